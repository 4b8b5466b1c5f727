"""How a run's score goes with the epochs: fixed beforehand, and picked by the held-out subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mer_bench.scores.metrics import uf1
from mer_bench.training.result import FoldResult


@dataclass(frozen=True)
class Course:
    """Scores after each epoch, a row per seed.

    Attributes:
        fixed: `(K, E)` UF1 of all folds together, had the number of epochs been fixed at that one.
        picked: `(K, E)` UF1 where each held-out subject picks its best epoch so far, as `oracle` does; LEAKS.
        train_accuracy: `(K, E)` mean over folds.
        chosen: `(K, F)` int64, the epochs that `oracle` picks of all, counted from 1.
    """

    fixed: np.ndarray
    picked: np.ndarray
    train_accuracy: np.ndarray
    chosen: np.ndarray

    @property
    def epochs(self) -> int:
        """Epochs recorded per fold."""
        return int(self.fixed.shape[1])


def course_of(records: Mapping[int, Sequence[FoldResult]], labels: np.ndarray) -> Course:
    """Follow a run through its epochs.

    Args:
        records: Seed to the records of every fold.
        labels: `(N,)` int64, labels of the run's data.
    """
    rows = [_of_seed(folds, labels) for folds in records.values()]
    return Course(*(np.stack(columns) for columns in zip(*rows, strict=True)))


def _of_seed(folds: Sequence[FoldResult], labels: np.ndarray) -> tuple[np.ndarray, ...]:
    epochs, _, classes = folds[0].logits.shape
    steps = np.arange(epochs)
    confusions = np.zeros((2, epochs, classes, classes), np.int64)
    chosen = []
    for record in folds:
        truth = labels[record.test_index]
        predicted = record.logits.argmax(2)
        hits = (predicted == truth).sum(1)
        # Of equally good epochs the latest, as `oracle` has it.
        best = np.maximum.accumulate(np.where(hits == np.maximum.accumulate(hits), steps, 0))
        chosen.append(best[-1] + 1)
        for counts, said in zip(confusions, (predicted, predicted[best]), strict=True):
            np.add.at(counts, (steps[:, None], truth[None], said), 1)
    accuracy = np.mean([record.train_accuracy for record in folds], axis=0)
    return uf1(confusions[0]), uf1(confusions[1]), accuracy, np.array(chosen, np.int64)
