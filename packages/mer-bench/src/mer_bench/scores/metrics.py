"""UF1, UAR, accuracy and per-class figures from predictions pooled over folds.

Source: the MEGC2019 guideline (See et al., FG 2019). TP, FP and FN are summed over every fold first, then
`UF1 = mean_c 2TP_c / (2TP_c + FP_c + FN_c)` and `UAR = mean_c TP_c / n_c`.

The classes are those of the label scheme, whatever occurs in a pool. A class without a sample in a pool keeps
its place: its recall is 0 (0/0 counts as 0), and so is its F1 (which is 0/0 where it is never predicted
either). These are scikit-learn's `labels=range(C), zero_division=0`.

Every metric takes confusion matrices `(..., C, C)`, rows true, and gives float64 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mer_bench.errors import DataError

FULL = "Full"

Metric = Callable[[np.ndarray], np.ndarray]


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count predictions.

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


def _hits(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    # Counts: of nothing, there are 0 hits.
    return numerator / np.maximum(denominator, 1)


def class_f1(confusion: np.ndarray) -> np.ndarray:
    """Return F1 per class, `(..., C)`."""
    return _ratio(2 * _hits(confusion), confusion.sum(-1) + confusion.sum(-2))


def class_recall(confusion: np.ndarray) -> np.ndarray:
    """Return recall per class, `(..., C)`."""
    return _ratio(_hits(confusion), confusion.sum(-1))


def class_precision(confusion: np.ndarray) -> np.ndarray:
    """Return precision per class, `(..., C)`."""
    return _ratio(_hits(confusion), confusion.sum(-2))


def uf1(confusion: np.ndarray) -> np.ndarray:
    """Return the unweighted F1, `(...)`; every class counts.

    >>> float(uf1(np.array([[250, 0, 0], [109, 0, 0], [83, 0, 0]])).round(3))
    0.241
    """
    return class_f1(confusion).mean(-1)


def uar(confusion: np.ndarray) -> np.ndarray:
    """Return the unweighted average recall, `(...)`."""
    return class_recall(confusion).mean(-1)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return the share of correct predictions, `(...)`."""
    return _ratio(_hits(confusion).sum(-1), confusion.sum((-2, -1)))


#: The metrics of a table.
METRICS: dict[str, Metric] = {"uf1": uf1, "uar": uar, "accuracy": accuracy}
#: Those of each class.
CLASS_METRICS: dict[str, Metric] = {"f1": class_f1, "recall": class_recall, "precision": class_precision}


def pools(databases: np.ndarray) -> dict[str, np.ndarray]:
    """Return the pools that are scored: everything, then each database where there is more than one.

    Args:
        databases: `(N,)` str, the database of each tested sample.

    Returns:
        Pool name to `(N,)` bool mask.
    """
    names = np.unique(databases)
    each = {str(name): databases == name for name in names} if names.size > 1 else {}
    return {FULL: np.ones(len(databases), bool), **each}
