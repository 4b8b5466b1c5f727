"""How well `mer-flow build` uses the cores: two workers against two one-worker builds side by side.

    python benchmarks/build_speed.py [--subjects 6] [--clips 6]

Prints the ratio of samples per second (target: at least 0.9), the share of the workers' time that kernels
take (target: over 90 %) and the peak memory per worker (target: under 700 MB), all in one run, on synthetic
trees.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

COMMAND = [sys.executable, "-m", "mer_flow.cli", "build", "--json", "--quiet"]


def start(database: str, root: Path, store: Path, workers: int) -> subprocess.Popen[str]:
    """Starts one build as its own process."""
    arguments = ["--db", database, "--root", str(root), "--store", str(store), "--workers", str(workers)]
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True)


def finish(build: subprocess.Popen[str]) -> dict[str, float]:
    """Waits for a build and returns its summary."""
    output, _ = build.communicate()
    summary: dict[str, float] = json.loads(output)
    return summary


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=6)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2, help="each order once: the machine's speed drifts")
    options = parser.parse_args()

    from mer_flow.synthetic import make_tree

    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        trees = {}
        for seed, name in enumerate(("first", "second")):
            trees[name] = Path(folder) / name
            make_tree(
                trees[name],
                "samm",
                subjects=options.subjects,
                clips_per_subject=options.clips,
                seed=seed,
                workers=2,
            )
        rates: dict[str, list[float]] = {"two workers": [], "side by side": []}
        kernels, peaks = [], []
        for turn in range(options.rounds):
            for kind in ("two workers", "side by side") if turn % 2 == 0 else ("side by side", "two workers"):
                began = time.monotonic()
                if kind == "two workers":
                    summaries = [
                        finish(start("samm", trees[n], Path(folder) / f"{turn}-{n}-2.h5", 2)) for n in trees
                    ]
                    kernels += [s["kernel_fraction"] for s in summaries]
                    peaks += [s["peak_mb"] for s in summaries]
                else:
                    running = [start("samm", trees[n], Path(folder) / f"{turn}-{n}-1.h5", 1) for n in trees]
                    summaries = [finish(build) for build in running]
                seconds = time.monotonic() - began
                rates[kind].append(sum(s["built"] for s in summaries) / seconds)
                built = sum(s["built"] for s in summaries)
                rate = rates[kind][-1]
                print(f"  {kind:13s} {built:.0f} samples in {seconds:.1f} s: {rate:.2f}/s")
    ratio = sum(rates["two workers"]) / sum(rates["side by side"])
    print("\n| figure | measured | target |\n|---|---|---|")
    print(f"| two workers / two builds side by side | {ratio:.3f} | >= 0.9 |")
    print(f"| kernels' share of the workers' time | {min(kernels):.3f} | > 0.9 |")
    print(f"| peak memory of a worker | {max(peaks):.0f} MB | < 700 MB |")


if __name__ == "__main__":
    main()
