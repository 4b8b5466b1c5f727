"""What a cluster costs: Dask with two workers against two processes of this machine.

    python benchmarks/cluster.py [--part ratios|tasks] [--epochs 40] [--tasks 10000,100000] [--out FILE.md]

Ratios of a run (STSTNet, cde) and of a build of 144 synthetic samples, in turns, whole commands and training
or building alone (target: at least 0.95 alone); the cost of an empty task (target: under 10 ms), beside that
of Dask itself; memory of driver, scheduler and workers together over many empty tasks (target: growth under
500 MB at 100,000). All on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import csv
import json
import operator
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import psutil
from machine import describe, write_out
from public_shape import MANIFEST, composite

ON_DASK = ("--executor", "dask", "--cluster", "local")


def command(module: str, *arguments: object) -> tuple[float, float, dict[str, Any]]:
    """Runs one command with two workers; returns its wall and processor time, and what it says."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-m", module, *map(str, arguments), "--workers", "2", "--quiet", "--json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, processor, found


def public_store(path: Path) -> Path:
    """Writes random maps of the public set's shape, subjects and labels."""
    from mer_flow.samples import Sample, SampleTable
    from mer_flow.store.encode import SampleRecord, encode_sample
    from mer_flow.store.writer import StoreWriter

    maps, labels, _ = composite()
    with MANIFEST.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes = ("negative", "positive", "surprise")
    with StoreWriter(path, {"map_kind": {"kind": "computed", "map_size": 28, "values": "px"}}) as writer:
        for database in sorted({row["database"] for row in rows}):
            chosen = {}
            for i, row in enumerate(rows):
                if row["database"] == database:
                    subject, emotion = f"{database}/{row['subject']}", classes[labels[i]]
                    name = f"{subject}/c{i:03d}"
                    chosen[i] = Sample(
                        name, database, subject, f"c{i:03d}", 1, 5, 9, "sheet", emotion, "", 0, 200.0
                    )
            writer.begin(database, SampleTable(list(chosen.values())))
            for i, sample in chosen.items():
                record = SampleRecord(sample, maps[i] / 255, notes={"fallbacks": []})
                writer.commit(sample.sample_id, encode_sample(record))
        writer.finish()
    return path


def ratios(options: argparse.Namespace, folder: Path) -> list[str]:
    """Trains and builds in turns, both ways."""
    from mer_flow.synthetic import make_tree

    store = options.store or public_store(folder / "store.h5")
    tree = make_tree(folder / "samm", "samm", subjects=12, clips_per_subject=12, workers=2)
    run = ("mer_bench.cli", "run", "ststnet", "--protocol", "cde", "--store", store, "--device", "cpu")
    build = ("mer_flow.cli", "build", "--db", "samm", "--root", tree)
    work = {
        f"STSTNet cde, 68 folds of {options.epochs} epochs": lambda at: (*run, "--set",
                                                            f"epochs={options.epochs}", "--out", at),
        "build of 144 samples": lambda at: (*build, "--store", at / "s.h5"),
    }  # fmt: skip
    lines = [
        "| work | s, local | s, dask | ratio | alone | processor s, local | processor s, dask | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, arguments in work.items():
        whole: dict[str, list[float]] = {"local": [], "dask": []}
        alone: dict[str, list[float]] = {"local": [], "dask": []}
        processor: dict[str, list[float]] = {"local": [], "dask": []}
        for turn in range(options.rounds):
            for kind in ("local", "dask") if turn % 2 == 0 else ("dask", "local"):
                at = folder / f"{kind}-{turn}-{len(lines)}"
                at.mkdir()
                more = ON_DASK if kind == "dask" else ()
                seconds, busy, found = command(*arguments(at), *more)
                whole[kind].append(seconds)
                processor[kind].append(busy)
                alone[kind].append(found["seconds"])
        (a, b), (c, d), (e, f) = (
            (sum(values["local"]), sum(values["dask"])) for values in (whole, alone, processor)
        )
        lines.append(
            f"| {name} | {a:.1f} | {b:.1f} | {a / b:.3f} | {c / d:.3f} | {e:.1f} | {f:.1f} | {e / f:.3f} |"
        )
    return lines


def empty_tasks(counts: list[int]) -> list[str]:
    """Sends empty tasks to two worker processes, and many to workers within this process."""
    from distributed import Client

    from mer_flow.work.cluster import OnDask, dask_executor
    from mer_flow.work.executor import run_all
    from mer_flow.work.where import Needs, Where

    needs, where = Needs.of(("mer-flow", "numpy")), Where(executor="dask")
    lines = ["| empty tasks, two worker processes | ms per task |", "|---|---|"]
    with dask_executor(where, needs, 2) as executor:
        deque(run_all(executor, operator.neg, range(200)), maxlen=0)
        ours, plain, cpu = [], [], []
        for _ in range(3):
            began, before = time.monotonic(), time.process_time()
            deque(run_all(executor, operator.neg, range(1000)), maxlen=0)
            ours.append(time.monotonic() - began)
            cpu.append(time.process_time() - before)
            began = time.monotonic()
            client = executor._client
            client.gather([client.submit(operator.neg, i, pure=False) for i in range(1000)])
            plain.append(time.monotonic() - began)
    lines += [
        f"| through run_all, six in flight | {statistics.median(ours):.2f} |",
        f"| of which processor time of driver and scheduler | {statistics.median(cpu):.2f} |",
        f"| Dask's own submit, all at once, and gather | {statistics.median(plain):.2f} |",
        "",
        "| tasks | seconds | growth of driver, scheduler and eight workers in one process, MB |",
        "|---|---|---|",
    ]
    process = psutil.Process(os.getpid())
    address = {
        "processes": False,
        "n_workers": 8,
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",
    }
    with Client(**address, set_as_default=False) as client:
        executor = OnDask(client, where, needs)
        executor.check()
        deque(run_all(executor, operator.neg, range(200)), maxlen=0)
        for count in counts:
            before, began = process.memory_info().rss, time.monotonic()
            deque(run_all(executor, operator.neg, range(count)), maxlen=0)
            grown = (process.memory_info().rss - before) / 2**20
            lines.append(f"| {count:,} | {time.monotonic() - began:.0f} | {grown:.0f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return [*lines, "", f"Peak of that process: {peak:.0f} MB."]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help="else maps of the public set's shape")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2, help="each order once: the machine's speed drifts")
    parser.add_argument("--part", choices=("ratios", "tasks", "both"), default="both")
    parser.add_argument("--tasks", default="10000,100000")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    lines = ["# Cluster", "", f"{describe()}; load {load:.1f} at the start.", ""]
    if options.part != "tasks":
        with tempfile.TemporaryDirectory() as folder:
            lines += [*ratios(options, Path(folder)), ""]
    if options.part != "ratios":
        lines += empty_tasks([int(part) for part in options.tasks.split(",")])
    write_out([*lines, "", f"Load {os.getloadavg()[0]:.1f} at the end."], options.out)


if __name__ == "__main__":
    main()
