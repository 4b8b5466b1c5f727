"""What goes into a training, and nothing more: a fold's training samples, cut out of the run's data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mer_bench.errors import DataError
from mer_bench.protocols.folds import Fold


def training_rows(fold: Fold, labels: np.ndarray) -> np.ndarray:
    """Returns a fold's training rows class by class, as published code lists its training folders.

    Without shuffling, batches are cut from this order: STSTNet's and HTNet's scripts read a folder per class
    and pass the samples on as they come, so that a batch of 256 holds one class almost alone.

    Args:
        fold: Only its `train` is read.
        labels: `(N,)` int64 of the run's data.

    Returns:
        `(n,)` int64, ordered by class, then by row.
    """
    return fold.train[np.argsort(np.asarray(labels)[fold.train], kind="stable")]


@dataclass(frozen=True)
class TrainingSamples:
    """The training samples of one fold; no other sample can be reached from here.

    Attributes:
        maps: `(n, C, H, W)` float32, a copy of its own.
        labels: `(n,)` int64.
        counts: `(classes,)` int64 samples per class.
    """

    maps: Tensor
    labels: Tensor
    counts: Tensor

    @classmethod
    def of_fold(
        cls, maps: np.ndarray, labels: np.ndarray, fold: Fold, num_classes: int, device: torch.device
    ) -> TrainingSamples:
        """Copy a fold's training samples out of the run's data.

        Args:
            maps: `(N, C, H, W)` float32.
            labels: `(N,)` int64.
            fold: Only its `train` is read.
            num_classes: Number of classes.
            device: Where the copy is put.

        Returns:
            The fold's training samples.
        """
        rows = training_rows(fold, labels)
        chosen = np.asarray(labels)[rows].astype(np.int64)
        return cls(
            maps=torch.from_numpy(np.asarray(maps)[rows].astype(np.float32, copy=False)).to(device),
            labels=torch.from_numpy(chosen).to(device),
            counts=torch.from_numpy(np.bincount(chosen, minlength=num_classes)).to(device),
        )


def check_data(maps: np.ndarray, labels: np.ndarray, num_classes: int, folds: Sequence[Fold]) -> None:
    """Refuse data that no training should start on.

    Args:
        maps: `(N, C, H, W)` float32.
        labels: `(N,)` int64 in `0 .. num_classes - 1`.
        num_classes: Number of classes.
        folds: The folds, whose indices must lie within the data and whose parts must be disjoint.

    Raises:
        DataError: If a map holds NaN or infinity, a label is out of range, a fold is empty or its parts
            overlap.
    """
    if maps.ndim != 4 or labels.shape != maps.shape[:1]:
        raise DataError(
            f"maps must be (N, C, H, W) with one label each; got maps {maps.shape} and labels {labels.shape}"
        )
    bad = np.flatnonzero([not np.isfinite(sample).all() for sample in maps])
    if bad.size:
        first = ", ".join(map(str, bad[:5])) + (" …" if bad.size > 5 else "")
        count = int((~np.isfinite(maps[bad[0]])).sum())
        raise DataError(
            f"{bad.size} of {len(maps)} maps are not finite: "
            f"sample {first} (index into the run's data; {count} bad values in sample {bad[0]}); "
            "rebuild those samples, or leave them out of the view, before training"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise DataError(
            f"sample {wrong[0]} has label {labels[wrong[0]]}, expected 0 to {num_classes - 1}; "
            "the label scheme and the number of classes do not belong together"
        )
    names = [fold.name for fold in folds]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"fold '{twice}' occurs more than once; fold names must be unique within a protocol")
    for fold in folds:
        _check_fold(fold, len(maps))


def _check_fold(fold: Fold, samples: int) -> None:
    if len(fold.train) == 0 or len(fold.test) == 0:
        part = "training" if len(fold.train) == 0 else "held-out"
        raise DataError(f"fold '{fold.name}' has no {part} samples; a fold needs both")
    together = np.concatenate([fold.train, fold.test, fold.inner])
    if together.min() < 0 or together.max() >= samples:
        raise DataError(
            f"fold '{fold.name}' points at sample {together.max()}, but the data have {samples} samples"
        )
    if len(np.unique(together)) != len(together):
        raise DataError(
            f"fold '{fold.name}': a sample occurs twice among its training, inner and held-out samples; "
            "they must be disjoint"
        )
