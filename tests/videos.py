"""Videos for tests: drawn by numpy, written by OpenCV, altered by the FFmpeg of imageio-ffmpeg."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from mer_flow.synthetic.video import write_video


def moving_square(count: int = 20, size: tuple[int, int] = (96, 64)) -> Iterable[np.ndarray]:
    """Yield pictures whose grey level is ten times their number, with a white square at the top left."""
    for number in range(count):
        picture = np.full((size[1], size[0], 3), 10 * number % 250, np.uint8)
        picture[:16, :16] = 255
        yield picture


def plain_video(path: Path, count: int = 20, fps: float = 50.0) -> Path:
    return write_video(path, moving_square(count), fps)


def altered(source: Path, out: Path, *arguments: str, before: tuple[str, ...] = ()) -> Path:
    """Write `out` by FFmpeg; `before` stands before the input."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="FFmpeg's binary makes this test's input")
    command = [ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *before, "-i", str(source), *arguments, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return out


def variable_rate(source: Path, out: Path) -> Path:
    """Play the first ten frames of a 50 Hz video as they are, the others three times slower."""
    stamps = "setpts='if(lt(N,10),N*0.02,0.2+(N-10)*0.06)/TB'"
    return altered(source, out, "-vf", stamps, "-fps_mode", "vfr", "-c:v", "libx264", "-crf", "10")


def turned(source: Path, out: Path, degrees: int = 90) -> Path:
    """Have the metadata ask for a turn against the clock, the pixels left as they are."""
    whole = altered(source, out.with_name("whole.mp4"), "-c:v", "libx264", "-crf", "10")
    return altered(whole, out, "-c", "copy", before=("-display_rotation", str(degrees)))


def in_av1(source: Path, out: Path) -> Path:
    """Encode in AV1, for which OpenCV's FFmpeg has no decoder."""
    return altered(source, out, "-c:v", "libsvtav1")
