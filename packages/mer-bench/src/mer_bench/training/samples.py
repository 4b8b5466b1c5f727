"""What goes into a training, and nothing more: the training samples of folds, cut out of the run's data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mer_bench.errors import DataError
from mer_bench.protocols.folds import Fold
from mer_bench.training.job import TrainingData
from mer_bench.training.networks import Networks


class Maps:
    """Copies of some of a run's maps where the networks are, picked fold by fold.

    Args:
        maps: `(N, C, H, W)` float32, the run's.
        rows: Of each fold, the rows that are copied, in the order of its positions. No other can be reached.
        networks: Say on which device and in which order of memory they want them.

    Attributes:
        lengths: `(F,)` int64 rows of each fold.
        padded: The largest of them; rows of a shorter fold are filled up with its first.
    """

    def __init__(self, maps: np.ndarray, rows: Sequence[np.ndarray], networks: Networks) -> None:
        device = networks.device
        self.lengths = torch.tensor([len(r) for r in rows], device=device)
        self.padded = max(map(len, rows))
        filled = fill_up(rows)
        kept, places = np.unique(filled, return_inverse=True)
        self._places = torch.from_numpy(places.reshape(filled.shape)).to(device)
        self._maps = torch.from_numpy(np.asarray(maps)[kept].astype(np.float32, copy=False)).to(device)
        # With channels last in memory a picked batch needs no second copy.
        self._last = networks.channels_last
        if self._last:
            self._maps = self._maps.permute(0, 2, 3, 1).contiguous()

    def pick(self, positions: Tensor) -> Tensor:
        """Pick one batch per fold.

        Args:
            positions: `(F, B)` int64 in `0 .. padded - 1`.

        Returns:
            `(F, B, C, H, W)` float32.
        """
        places = self._places.gather(1, positions)
        picked = self._maps.index_select(0, places.flatten()).unflatten(0, places.shape)
        return picked.permute(0, 1, 4, 2, 3) if self._last else picked


class TrainingSamples:
    """The training samples of some folds; a position is a place among a fold's own training samples.

    They lie class by class, as published code lists its training folders: without shuffling, batches are cut
    from this order. STSTNet's and HTNet's scripts read a folder per class and pass the samples on as they
    come, so that a batch of 256 holds one class almost alone.

    Args:
        data: The run's data.
        folds: Only their `train` is read.
        classes: How many.
        networks: What is trained.

    Attributes:
        lengths: `(F,)` int64 training samples of each fold.
        padded: The largest of them.
        counts: `(F, classes)` int64 samples per class.
    """

    def __init__(self, data: TrainingData, folds: Sequence[Fold], classes: int, networks: Networks) -> None:
        rows = [f.train[np.argsort(data.labels[f.train], kind="stable")] for f in folds]
        self._maps = Maps(data.maps, rows, networks)
        self.lengths, self.padded = self._maps.lengths, self._maps.padded
        self._equal = len({len(r) for r in rows}) == 1
        counts = np.stack([np.bincount(data.labels[r], minlength=classes) for r in rows])
        self._labels = torch.from_numpy(data.labels[fill_up(rows)]).to(networks.device)
        self.counts = torch.from_numpy(counts).to(networks.device)

    def __len__(self) -> int:
        return len(self.lengths)

    def pick(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pick one batch per fold.

        Args:
            positions: `(F, B)` int64 in `0 .. padded - 1`; those from a fold's length on are padding.

        Returns:
            Maps `(F, B, C, H, W)`, labels `(F, B)` and weights `(F, B)` float32, 1 for a sample and 0 for
            padding; None where the folds are of equal length, so that nothing is padded.
        """
        weights = None if self._equal else (positions < self.lengths.unsqueeze(1)).to(torch.float32)
        return self._maps.pick(positions), self._labels.gather(1, positions), weights


def fill_up(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack rows of unequal length, each filled up with its own first entry."""
    longest = max(map(len, rows))
    return np.stack([np.concatenate([r, np.full(longest - len(r), r[0])]) for r in rows])


def check_data(data: TrainingData, classes: int, folds: Sequence[Fold]) -> None:
    """Refuse data that no training should start on.

    Args:
        data: The run's data.
        classes: How many; labels lie in `0 .. classes - 1`.
        folds: Their indices must lie within the data, and their parts be disjoint.

    Raises:
        DataError: A map holds NaN or infinity, a label is out of range, a fold is empty or its parts overlap.
    """
    maps, labels = data.maps, data.labels
    if maps.ndim != (4 if data.map_shape is None else maps.ndim) or labels.shape != maps.shape[:1]:
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
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise DataError(
            f"sample {wrong[0]} has label {labels[wrong[0]]}, expected 0 to {classes - 1}; "
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
