"""How long the pages take: the site of 20 runs on 442 samples, and the page of a store of 442 samples.

The store is synthetic (smooth random flow of 224 px with faces, the composite's samples); the runs hold
random records of the shape that training leaves (68 folds, 30 epochs, three classes), every fourth with three
seeds.

    python benchmarks/site_speed.py --out benchmarks/results/2026-11-28-site.md
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe, write_out
from public_shape import MANIFEST

from mer_bench.models.registry import Registered
from mer_bench.models.ststnet import SPECS
from mer_bench.runs.data import DataCache
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import prepare
from mer_bench.settings import Request, RunSettings
from mer_bench.training.result import FoldResult
from mer_flow.samples import Sample, SampleTable
from mer_flow.store.writer import SampleRecord, StoreWriter, encode_sample
from mer_flow.views.resample import area_resize

CLASSES = ("negative", "positive", "surprise")
EPOCHS = 30


def smooth_maps(rng: np.random.Generator, side: int) -> np.ndarray:
    """Makes flow and strain without edges, (3, side, side) float32."""
    coarse = rng.normal(0, 1, (3, 14, 14)).repeat(side // 14, 1).repeat(side // 14, 2)
    maps = area_resize(np.pad(coarse, ((0, 0), (8, 8), (8, 8)), mode="edge"), side)
    maps[2] = np.abs(maps[2]) / 10
    return maps


def write_store(path: Path, side: int) -> Path:
    """Writes the composite's samples with random maps and faces."""
    rng = np.random.default_rng(0)
    with MANIFEST.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with StoreWriter(path, {"map_kind": {"kind": "computed", "map_size": side, "values": "px"}}) as writer:
        for database in sorted({row["database"] for row in rows}):
            samples = [
                Sample(
                    f"{database}/{row['subject']}/{row['clip']}", database, f"{database}/{row['subject']}",
                    row["clip"], 1, 5, 9, "sheet", CLASSES[int(row["label"])], "", 0, 200.0,
                )
                for row in rows if row["database"] == database
            ]  # fmt: skip
            writer.begin(database, SampleTable(samples))
            for sample in samples:
                faces = rng.integers(0, 256, (2, side, side), dtype=np.uint8)
                record = SampleRecord(sample, smooth_maps(rng, side), faces=faces)
                writer.commit(sample.sample_id, encode_sample(record))
        writer.finish()
    return path


def write_runs(out: Path, store: Path, count: int) -> None:
    """Writes runs with random records."""
    rng, cache = np.random.default_rng(1), DataCache()
    for number in range(count):
        seeds = (0, 1, 2) if number % 4 == 0 else (0,)
        request = Request(
            RunSettings(model="ststnet", protocol="cde", seeds=seeds),
            {"lr": 1e-5 * (number + 1), "epochs": EPOCHS},
        )
        prepared = prepare(Registered(SPECS[0], "benchmark"), request, store, cache)
        run = RunDirectory.create_or_resume(out, prepared.manifest)
        for seed in seeds:
            for fold in prepared.folds.folds:
                shape = EPOCHS, len(fold.test), 3
                loss, accuracy = np.linspace(1, 0.5, EPOCHS), np.linspace(0.4, 0.9, EPOCHS)
                run.write(
                    FoldResult(
                        fold.name, seed, fold.test, rng.normal(0, 1, shape).astype(np.float32), fold.inner,
                        np.empty((EPOCHS, 0, 3), np.float32), loss.astype(np.float32),
                        accuracy.astype(np.float32), 1.0, "local", "cpu",
                    )
                )  # fmt: skip


def measured(folder: Path, *command: str) -> tuple[float, float, float, int]:
    """Runs a command that writes a folder; returns seconds, processor seconds, megabytes and files."""
    begin, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    seconds, after = time.perf_counter() - begin, os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    files = [path for path in folder.rglob("*") if path.is_file()]
    return seconds, used, sum(path.stat().st_size for path in files) / 1e6, len(files)


def main() -> None:
    """Makes, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="runs of the site (default 20)")
    parser.add_argument("--side", type=int, default=224, help="side of the maps, px (default 224)")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    options = parser.parse_args()
    lines = [
        "# Pages",
        "",
        f"{describe()}. One process; start-up is part of it.",
        "",
        "| pages | seconds | processor seconds | MB | files |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store, runs = write_store(folder / "s.h5", options.side), folder / "runs"
        write_runs(runs, store, options.runs)
        for name, made, command in (
            (f"site of {options.runs} runs, no store", "a", ("mer_bench.cli", "report", str(runs))),
            (f"site of {options.runs} runs on 442 samples", "b", ("mer_bench.cli", "report", str(runs))),
            ("store of 442 samples", "c", ("mer_flow.cli", "show", str(store))),
            ("store of 442 samples, with faces", "d", ("mer_flow.cli", "show", str(store))),
        ):
            extra = {"b": ("--store", str(store)), "d": ("--faces",)}.get(made, ())
            found = measured(folder / made, *command, "--html", str(folder / made), *extra)
            lines.append(f"| {name} | {found[0]:.1f} | {found[1]:.1f} | {found[2]:.1f} | {found[3]} |")
    write_out(lines, options.out)


if __name__ == "__main__":
    main()
