"""Scores before and after: the same training by two states of the source, same seeds, fold by fold.

The older state is taken out of git into a temporary folder and trains in a process of its own, by its own
copy of this script; then the largest difference of any held-out logit is told, and UF1 and UAR of both after
the last epoch. Reordered sums change last digits, and training makes them grow; a changed rule would show at
once.

    python benchmarks/same_scores.py --before b4e819d --store maps.h5
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
JOBS = (("ststnet", "default", "authors"), ("ahmsa", "tiny", "quick"))


def train(store: Path | None, epochs: int, limit: int | None, out: Path) -> None:
    """Trains every job with whatever source is on the path; writes logits and labels."""
    from public_shape import Records, composite, job_of

    from ahmsa_model.registration import SPECS as AHMSA
    from mer_bench.models.ststnet import SPECS as STSTNET
    from mer_bench.protocols.folds import Fold
    from mer_bench.training.folds import run_folds
    from mer_bench.training.job import TrainingData

    found = {}
    for model, variant, name in JOBS:
        spec = {"ststnet": STSTNET[0], "ahmsa": AHMSA[0]}[model]
        if store is None:
            maps, labels, folds = composite()
            maps = maps if model == "ststnet" else maps / 255
        else:
            from mer_flow.store.reader import FlowStore
            from mer_flow.views import read_view

            with FlowStore(store) as opened:
                view = read_view(opened, "whole-28", "minmax-255" if model == "ststnet" else "minmax")
            maps, labels, subjects = view.maps, view.labels, view.subjects
            folds = [
                Fold(str(s), np.flatnonzero(subjects != s), np.flatnonzero(subjects == s))
                for s in sorted(set(subjects.tolist()))
            ]
        records, order = Records(), folds[:limit]
        job = job_of(spec, variant, spec.recipes[name].changed(epochs=epochs))
        run_folds(job, TrainingData(maps, labels), order, None, records)
        found[f"{model}-logits"] = np.concatenate([records[fold.name].logits for fold in order], axis=1)
        found[f"{model}-labels"] = np.concatenate([labels[fold.test] for fold in order])
    np.savez(out, **found)


def scores(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """UF1 and UAR of pooled predictions."""
    picked = logits.argmax(1)
    hits = np.array([np.sum((picked == k) & (labels == k)) for k in range(3)])
    said = np.array([np.sum(picked == k) for k in range(3)])
    there = np.array([np.sum(labels == k) for k in range(3)])
    f1 = 2 * hits / np.maximum(1, said + there)
    return float(f1.mean()), float((hits / np.maximum(1, there)).mean())


def trained_by(source: Path, options: argparse.Namespace, out: Path) -> dict[str, np.ndarray]:
    """Trains with the source of a tree, in a process of its own."""
    paths = [str(source / "packages" / name / "src") for name in ("mer-flow", "mer-bench", "ahmsa-model")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    script = source / "benchmarks" / "same_scores.py"
    command = [sys.executable, str(script), "--out", str(out), "--epochs", str(options.epochs)]
    command += ["--store", str(options.store)] if options.store else []
    command += ["--limit", str(options.limit)] if options.limit else []
    subprocess.run(command, check=True, env=environment)
    with np.load(out) as content:
        return dict(content)


def main() -> None:
    """Compares two states, or, told where to write, trains with the one on the path."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", help="the older commit")
    parser.add_argument("--store", type=Path, help="the public maps; random ones in their shape without")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of each training (default 10)")
    parser.add_argument("--limit", type=int, help="the first so many folds only")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        train(options.store, options.epochs, options.limit, options.out)
        return
    if not options.before:
        parser.error("--before COMMIT is missing")
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "before"
        old.mkdir()
        archive = Path(folder) / "before.tar"
        command = ["git", "-C", str(ROOT), "archive", "-o", str(archive), options.before]
        command += ["packages", "benchmarks", "datasets"]
        subprocess.run(command, check=True)
        subprocess.run(["tar", "-xf", str(archive), "-C", str(old)], check=True)
        before = trained_by(old, options, Path(folder) / "before.npz")
        after = trained_by(ROOT, options, Path(folder) / "after.npz")
    print(f"{options.before} and the working tree, {options.epochs} epochs, seed 0\n")
    print(
        "| model | largest difference of a logit | UF1 before, after | UAR before, after |\n|---|---|---|---|"
    )
    for model, variant, name in JOBS:
        a, b = before[f"{model}-logits"], after[f"{model}-logits"]
        labels = after[f"{model}-labels"]
        (f_a, r_a), (f_b, r_b) = scores(a[-1], labels), scores(b[-1], labels)
        apart = np.abs(a - b).max()
        print(f"| {model} {variant}, {name} | {apart:.1e} | {f_a:.4f}, {f_b:.4f} | {r_a:.4f}, {r_b:.4f} |")


if __name__ == "__main__":
    main()
