"""How long `ahmsa predict --video` takes for a clip of 200 frames, and for a window slid along it.

    python benchmarks/video_speed.py [--frames 200] [--checkpoint DIR]

The clip is synthetic, 640x480 at 100 frames per second. Without a checkpoint an untrained network answers:
its size decides nothing here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe


def untrained(folder: Path) -> Path:
    from ahmsa_model import AHMSANet, CheckpointMetadata

    network = AHMSANet.from_variant("small")
    network.metadata = CheckpointMetadata(
        classes=("negative", "positive", "surprise"),
        scheme="megc3",
        view="regions-28",
        normalisation="scaled",
    )
    network.save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--checkpoint", type=Path)
    given = parser.parse_args()
    from mer_flow.synthetic.video import Event, video_frames, write_video

    print(describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = write_video(folder / "clip.avi", video_frames([Event("4", 0.3)], given.frames / 100))
        checkpoint = given.checkpoint or untrained(folder / "network")
        for what, options in (("one moment", []), ("--every 0.25", ["--every", "0.25"])):
            begin, used = time.perf_counter(), os.times()
            subprocess.run(
                [
                    *(sys.executable, "-m", "ahmsa_model.cli", "predict", "--default-pipeline"),
                    *("--checkpoint", checkpoint, "--video", video, "--picture", folder / "p.png"),
                    *("--annotated", folder / "a.mp4", *options),
                ],
                check=True,
                capture_output=True,
            )
            seconds, now = time.perf_counter() - begin, os.times()
            spent = sum(now[2:4]) - sum(used[2:4])
            print(
                f"{given.frames} frames, {what}, with picture and annotated video: "
                f"{seconds:.1f} s, {spent:.1f} s of processor time"
            )


if __name__ == "__main__":
    main()
