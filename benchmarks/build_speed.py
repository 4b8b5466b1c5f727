"""How fast `mer-flow build` is: by flow backend, and how well two workers use two cores.

    python benchmarks/build_speed.py [--subjects 6] [--clips 6] [--flow-backend opencv|torch|both]

With one backend: two workers against two one-worker builds side by side (target: at least 0.9), the share of
the workers' time that kernels take (target: over 90 %) and the peak memory per worker (target: under 700 MB).
With `both`: samples per second of the PyTorch backend against OpenCV's, two workers each (target: at least
2), the builds taking turns; in wall time, and in processor time, which a busy machine does not stretch. Then
where the time goes. All in one run, on synthetic trees.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from machine import describe

COMMAND = [sys.executable, "-m", "mer_flow.cli", "build", "--json", "--quiet"]


def start(database: str, root: Path, store: Path, workers: int, backend: str) -> subprocess.Popen[str]:
    """Start one build as its own process."""
    arguments = ["--db", database, "--root", str(root), "--store", str(store), "--workers", str(workers)]
    arguments += ["--flow-backend", backend]
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True)


def finish(build: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a build and return its summary."""
    output, _ = build.communicate()
    summary: dict[str, Any] = json.loads(output)
    return summary


def compare_backends(tree: Path, folder: Path, rounds: int) -> None:
    """Print samples per second of both backends, and where the time of each goes."""
    wall: dict[str, list[float]] = {"opencv": [], "torch": []}
    cpu: dict[str, list[float]] = {"opencv": [], "torch": []}
    stages: dict[str, Counter[str]] = {"opencv": Counter(), "torch": Counter()}
    kernels: dict[str, list[float]] = {"opencv": [], "torch": []}
    built: Counter[str] = Counter()
    for turn in range(rounds):
        for backend in ("opencv", "torch") if turn % 2 == 0 else ("torch", "opencv"):
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            found = finish(start("samm", tree, folder / f"{turn}-{backend}.h5", 2, backend))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall[backend].append(time.monotonic() - began)
            # workers included: the build waits for them
            cpu[backend].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            stages[backend].update(found["stage_seconds"])
            kernels[backend].append(found["kernel_fraction"])
            built[backend] += found["built"]
    print("| backend | samples per s, two workers | processor s per sample | kernels' share | s per sample |")
    print("|---|---|---|---|---|")
    for backend, samples in built.items():
        parts = ", ".join(f"{name} {value / samples:.3f}" for name, value in stages[backend].most_common())
        print(
            f"| {backend} | {samples / sum(wall[backend]):.2f} | {sum(cpu[backend]) / samples:.3f} | "
            f"{max(kernels[backend]):.2f} | {parts} |"
        )
    wall_ratio, cpu_ratio = (sum(t["opencv"]) / sum(t["torch"]) for t in (wall, cpu))
    print(f"\nPyTorch against OpenCV: {wall_ratio:.2f} in wall time, {cpu_ratio:.2f} in processor time "
          "(target 2), start-up included.")  # fmt: skip
    work = {name: sum(found.values()) / built[name] for name, found in stages.items()}
    print(f"Without start-up, stages alone: {work['opencv'] / work['torch']:.2f}.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", type=int, default=6)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2, help="each order once: the machine's speed drifts")
    parser.add_argument("--flow-backend", choices=("opencv", "torch", "both"), default="opencv")
    options = parser.parse_args()

    from mer_flow.synthetic import make_tree

    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        trees = {}
        names = ("first",) if options.flow_backend == "both" else ("first", "second")
        for seed, name in enumerate(names):
            trees[name] = Path(folder) / name
            make_tree(
                trees[name],
                "samm",
                subjects=options.subjects,
                clips_per_subject=options.clips,
                seed=seed,
                workers=2,
            )
        if options.flow_backend == "both":
            compare_backends(trees["first"], Path(folder), options.rounds)
            return
        backend = options.flow_backend
        rates: dict[str, list[float]] = {"two workers": [], "side by side": []}
        kernels, peaks = [], []
        for turn in range(options.rounds):
            for kind in ("two workers", "side by side") if turn % 2 == 0 else ("side by side", "two workers"):
                began = time.monotonic()
                if kind == "two workers":
                    summaries = [
                        finish(start("samm", trees[n], Path(folder) / f"{turn}-{n}-2.h5", 2, backend))
                        for n in trees
                    ]
                    kernels += [s["kernel_fraction"] for s in summaries]
                    peaks += [s["peak_mb"] for s in summaries]
                else:
                    running = [
                        start("samm", trees[n], Path(folder) / f"{turn}-{n}-1.h5", 1, backend) for n in trees
                    ]
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
