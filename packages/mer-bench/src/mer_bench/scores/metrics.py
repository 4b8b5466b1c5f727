"""UF1, UAR, accuracy and per-class figures from predictions pooled over folds.

Source: the MEGC2019 guideline (See et al., FG 2019). TP, FP and FN are summed over every fold first, then
`UF1 = mean_c 2TP_c / (2TP_c + FP_c + FN_c)` and `UAR = mean_c TP_c / n_c`.

The classes are those of the label scheme, whatever occurs in a pool. A class without a sample in a pool keeps
its place: its recall is 0 (0/0 counts as 0), and so is its F1 (which is 0/0 where it is never predicted
either). These are scikit-learn's `labels=range(C), zero_division=0`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mer_bench.errors import DataError

FULL = "Full"


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts predictions.

    Args:
        labels: `(N,)` int, true classes.
        predicted: `(N,)` int, predicted classes.
        num_classes: Number of classes C of the label scheme.

    Returns:
        `(C, C)` int64; rows are true classes, columns predicted ones.

    Raises:
        DataError: The two differ in length, or a class is out of range.

    >>> confusion_matrix(np.array([0, 0, 2]), np.array([0, 2, 2]), 3).tolist()
    [[1, 0, 1], [0, 0, 0], [0, 0, 1]]
    """
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise DataError(
            f"labels {labels.shape} and predictions {predicted.shape} must be equally long vectors"
        )
    for name, values in (("label", labels), ("prediction", predicted)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise DataError(f"a {name} is outside 0..{num_classes - 1}: {values.min()}..{values.max()}")
    pairs = labels.astype(np.int64) * num_classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(denominator)), where=denominator > 0)


def class_f1(confusion: np.ndarray) -> np.ndarray:
    """Returns F1 per class, `(..., C)` float64 in [0, 1], from confusion matrices `(..., C, C)`."""
    true_positive = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    return _ratio(2 * true_positive, confusion.sum(-1) + confusion.sum(-2).astype(float))


def class_recall(confusion: np.ndarray) -> np.ndarray:
    """Returns recall per class, `(..., C)` float64 in [0, 1], from confusion matrices `(..., C, C)`."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1).astype(float), confusion.sum(-1).astype(float))


def class_precision(confusion: np.ndarray) -> np.ndarray:
    """Returns precision per class, `(..., C)` float64 in [0, 1], from confusion matrices `(..., C, C)`."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1).astype(float), confusion.sum(-2).astype(float))


def uf1(confusion: np.ndarray) -> np.ndarray:
    """Returns the unweighted F1 `(...)` of confusion matrices `(..., C, C)`; every class counts.

    >>> float(uf1(np.array([[250, 0, 0], [109, 0, 0], [83, 0, 0]])).round(3))
    0.241
    """
    return class_f1(confusion).mean(-1)


def uar(confusion: np.ndarray) -> np.ndarray:
    """Returns the unweighted average recall `(...)` of confusion matrices `(..., C, C)`."""
    return class_recall(confusion).mean(-1)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns the share of correct predictions `(...)` of confusion matrices `(..., C, C)`."""
    return _ratio(
        np.trace(confusion, axis1=-2, axis2=-1).astype(float), confusion.sum((-2, -1)).astype(float)
    )


#: The metrics of a table, each from `(..., C, C)` confusion matrices to `(...)`.
METRICS = {"uf1": uf1, "uar": uar, "accuracy": accuracy}


@dataclass(frozen=True)
class Scores:
    """The figures of one pool of predictions.

    Attributes:
        uf1: Unweighted F1.
        uar: Unweighted average recall.
        accuracy: Share of correct predictions.
        f1: `(C,)`, per class in the scheme's order.
        recall: `(C,)`.
        precision: `(C,)`.
        confusion: `(C, C)` int64, rows true.
    """

    uf1: float
    uar: float
    accuracy: float
    f1: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    confusion: np.ndarray

    @classmethod
    def of(cls, confusion: np.ndarray) -> Scores:
        """Computes every figure from a `(C, C)` confusion matrix."""
        return cls(
            float(uf1(confusion)),
            float(uar(confusion)),
            float(accuracy(confusion)),
            class_f1(confusion),
            class_recall(confusion),
            class_precision(confusion),
            confusion,
        )

    @property
    def absent(self) -> np.ndarray:
        """Indices of classes without a sample in this pool; they count as 0."""
        return np.flatnonzero(self.confusion.sum(1) == 0)

    def to_json(self) -> dict[str, Any]:
        """Returns plain numbers and lists."""
        return {
            "uf1": self.uf1,
            "uar": self.uar,
            "accuracy": self.accuracy,
            "f1": self.f1.tolist(),
            "recall": self.recall.tolist(),
            "precision": self.precision.tolist(),
            "confusion": self.confusion.tolist(),
        }


def pools(databases: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the pools that are scored: everything, then each database where there is more than one.

    Args:
        databases: `(N,)` str, the database of each tested sample.

    Returns:
        Pool name to `(N,)` bool mask; `Full` first, databases in sorted order.
    """
    found: dict[str, np.ndarray] = {FULL: np.ones(len(databases), bool)}
    names = np.unique(databases)
    if names.size > 1:
        found.update({str(name): databases == name for name in names})
    return found


def score(
    labels: np.ndarray, predicted: np.ndarray, databases: np.ndarray, num_classes: int
) -> dict[str, Scores]:
    """Scores pooled predictions, Full and per database.

    Args:
        labels: `(N,)` int, true classes; row order does not matter.
        predicted: `(N,)` int.
        databases: `(N,)` str.
        num_classes: Number of classes of the label scheme.

    Returns:
        Pool name to scores.
    """
    return {
        name: Scores.of(confusion_matrix(labels[mask], predicted[mask], num_classes))
        for name, mask in pools(databases).items()
    }
