"""Whether memory and descriptors stay flat: build, verify, read, train, score and tabulate, over and over.

One process does all of it on a synthetic database, in rounds; after each its resident memory, open
descriptors, threads and children are taken. Between rounds it sleeps, to take a share of one core only.

    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/soak.py --minutes 120 --out benchmarks/results/DATE-soak.md
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from machine import describe, write_out

from mer_bench.models.registry import Registry
from mer_bench.report.leaderboard import build_leaderboards
from mer_bench.report.render import to_csv
from mer_bench.runs.train import execute, prepare
from mer_bench.scores.summary import summarise
from mer_bench.settings import Request, RunSettings, TrainingSettings
from mer_flow.databases.source import Source
from mer_flow.extraction.build import BuildOptions, build_store
from mer_flow.store.verify import verify_store
from mer_flow.synthetic.tree import make_tree

DATABASE = "casme2"
#: Rounds before the first one that counts: libraries load, caches and pools fill.
WARM_UP = 5
#: Every so many rounds builds and trains in two worker processes, so that pools come and go.
IN_WORKERS = 10


@dataclass(frozen=True)
class Seen:
    """The process after a round: minutes since the start, MiB resident, and counts."""

    minutes: float
    resident: float
    descriptors: int
    threads: int
    children: int


def one_round(root: Path, folder: Path, workers: int) -> None:
    """Build a store, verify it, train two models on it, score and tabulate them, and remove all of it."""
    store = folder / "flows.h5"
    built = build_store(Source(DATABASE, root), store, options=BuildOptions(workers=workers))
    if built.failed or verify_store(store):
        raise SystemExit(f"the store of this round is not whole: {built.failed}")
    training = TrainingSettings(device="cpu", workers=workers)
    summaries = []
    for name, overrides in (("ststnet", {"epochs": 2}), ("flow-svm", {})):
        run = RunSettings(model=name, protocol="loso", db=(DATABASE,))
        prepared = prepare(Registry().find(name), Request(run, overrides, training), store)
        outcome = execute(prepared, folder / "runs")
        if not outcome.status.complete:
            raise SystemExit(f"{name} of this round is not whole: {outcome.failures}")
        summaries.append(summarise(outcome.run, draws=50))
    to_csv(build_leaderboards(summaries))
    shutil.rmtree(folder)


def look(process: psutil.Process, began: float) -> Seen:
    """Take the process as it is."""
    gc.collect()
    resident = process.memory_info().rss / 2**20
    counts = process.num_fds(), process.num_threads(), len(process.children(recursive=True))
    return Seen((time.monotonic() - began) / 60, resident, *counts)


def slope(seen: list[Seen]) -> float:
    """Return how fast resident memory grows, in MiB per hour, by least squares."""
    return float(np.polyfit([one.minutes / 60 for one in seen], [one.resident for one in seen], 1)[0])


def report(seen: list[Seen], options: argparse.Namespace) -> list[str]:
    """Write the table: a dozen looks spread over the soak, and what is to be concluded."""
    counted = seen[WARM_UP:]
    half = counted[len(counted) // 2 :]
    shown = [counted[i] for i in np.unique(np.linspace(0, len(counted) - 1, 12).astype(int))]
    resident, descriptors, threads = (
        [getattr(one, name) for one in counted] for name in ("resident", "descriptors", "threads")
    )
    clips = options.subjects * options.clips
    return [
        "# Soak: memory and descriptors",
        "",
        f"{describe()}. One process: {len(seen)} rounds in {seen[-1].minutes:.0f} minutes, at most "
        f"{options.duty:.0%} of one core; the first {WARM_UP} rounds are warm-up and not counted. A round "
        f"builds {clips} clips of the synthetic {DATABASE} into a store, verifies it, trains and scores "
        "STSTNet (2 epochs) and flow-SVM leaving one subject out, and removes all of it; one in "
        f"{IN_WORKERS} builds and trains in two worker processes.",
        "",
        "| minute | resident, MiB | descriptors | threads | children |",
        "|---|---|---|---|---|",
        *(
            f"| {one.minutes:.0f} | {one.resident:.1f} | {one.descriptors} | {one.threads} | {one.children} |"
            for one in shown
        ),
        "",
        f"- Resident memory grows by {slope(counted):+.1f} MiB per hour, in the second half by "
        f"{slope(half):+.1f}; it lies between {min(resident):.1f} and {max(resident):.1f} MiB.",
        f"- Descriptors: {min(descriptors)} to {max(descriptors)}. "
        f"Threads: {min(threads)} to {max(threads)}.",
        "",
        f"`{' '.join(['python', 'benchmarks/soak.py', *sys.argv[1:]])}`",
    ]


def main() -> None:
    """Soak, print and write; exit code 1 where descriptors grew, or memory by more than is allowed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="how long (default 2)")
    parser.add_argument("--duty", type=float, default=0.33, help="share of one core (default 0.33)")
    parser.add_argument("--subjects", type=int, default=3)
    parser.add_argument("--clips", type=int, default=2, help="of each subject")
    parser.add_argument(
        "--allowed", type=float, default=30.0, help="MiB per hour in the second half (default 30)"
    )
    parser.add_argument("--out", type=Path, help="write the table here as well, anew every few minutes")
    options = parser.parse_args()
    process, began, seen, told = psutil.Process(), time.monotonic(), [], 0.0
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        root = make_tree(
            Path(scratch) / "tree", DATABASE, subjects=options.subjects, clips_per_subject=options.clips
        )
        while time.monotonic() - began < 60 * options.minutes or len(seen) < WARM_UP + 2:
            start, worked = time.monotonic(), sum(os.times()[:4])
            folder = Path(scratch) / "round"
            folder.mkdir()
            one_round(root, folder, workers=2 if len(seen) % IN_WORKERS == IN_WORKERS - 1 else 1)
            seen.append(look(process, began))
            share = (sum(os.times()[:4]) - worked) / options.duty
            time.sleep(max(0.0, share - (time.monotonic() - start)))
            if options.out and seen[-1].minutes - told > 5 and len(seen) > WARM_UP + 2:
                told = seen[-1].minutes
                options.out.write_text("\n".join(report(seen, options)) + "\n", encoding="utf-8")
    write_out(report(seen, options), options.out)
    counted = seen[WARM_UP:]
    grown = max(one.descriptors for one in counted) - counted[0].descriptors
    if grown > 4 or (seen[-1].minutes > 20 and slope(counted[len(counted) // 2 :]) > options.allowed):
        sys.exit(f"not flat: {grown} more descriptors, {slope(counted):+.1f} MiB per hour")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
