"""Random maps in the shape of the MEGC2019 composite, and how the benchmarks train on them.

Time depends on shapes, not on what the maps show. Subjects and labels are the organisers' public list.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.settings import TrainingSettings
from mer_bench.training.job import Job
from mer_bench.training.result import FoldResult

MANIFEST = Path(__file__).parent.parent / "datasets" / "manifests" / "megc2019.csv"


def composite(
    seed: int = 0, size: int = 28, subjects: int | None = None, whole: bool = True
) -> tuple[np.ndarray, np.ndarray, list[Fold]]:
    """Makes maps and the folds of `cde`.

    Args:
        seed: Of the maps.
        size: Their side, pixels.
        subjects: Only the folds of the first so many subjects; None for all 68.
        whole: Whether those folds train on all other subjects, or only on one another's samples.

    Returns:
        Maps `(N, 3, size, size)` float32 in 0 to 255 with a trace of the label in u, labels `(N,)` int64, and
        the folds; N is 442 unless the samples of a few subjects were asked for.
    """
    with MANIFEST.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in rows], np.int64)
    names = np.array([f"{row['database']}/{row['subject']}" for row in rows])
    chosen = sorted(set(names))[:subjects]
    if not whole:
        kept = np.isin(names, chosen)
        labels, names = labels[kept], names[kept]
    generator = np.random.default_rng(seed)
    maps = generator.integers(0, 256, (len(labels), 3, size, size)).astype(np.float32)
    maps[:, 0] = np.clip(maps[:, 0] + 20.0 * (labels - 1)[:, None, None], 0, 255)
    folds = [Fold(name, np.flatnonzero(names != name), np.flatnonzero(names == name)) for name in chosen]
    return maps, labels, folds


def job_of(spec: ModelSpec, variant: str, recipe: Recipe, **training: Any) -> Job:
    """Returns the training of a model's variant; `training` goes to the settings."""
    settings = TrainingSettings(**{"device": "cpu", "workers": 1, **training})
    classes = ("negative", "positive", "surprise")
    return Job(spec, spec.variants[variant], recipe, settings, classes, "cde", 0)


class Records(dict[str, FoldResult]):
    """Keeps every fold's record."""

    def fold(self, result: FoldResult) -> None:
        """Keeps one."""
        self[result.fold] = result

    def progress(self, done: int, total: int) -> None:
        """Nobody watches."""
