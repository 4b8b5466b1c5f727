"""Uncertainty over subjects: bootstrap intervals and paired tests.

Subjects, not samples, are the independent units: one person's clips share a face, a session and a mood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import comb

import numpy as np

Metric = Callable[[np.ndarray], np.ndarray]

# Resamples handled at once; bounds the memory of (chunk, seeds, C, C) arrays.
_CHUNK = 1024


def subject_confusions(
    labels: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts each subject's predictions, for every seed.

    Args:
        labels: `(N,)` int, true classes.
        predicted: `(K, N)` int, predictions of K seeds.
        subjects: `(N,)` str.
        num_classes: Number of classes C.

    Returns:
        `(K, S, C, C)` int64, subjects in sorted order.
    """
    names, owner = np.unique(subjects, return_inverse=True)
    counts = np.zeros((len(predicted), names.size, num_classes, num_classes), np.int64)
    seeds = np.broadcast_to(np.arange(len(predicted))[:, None], predicted.shape)
    np.add.at(
        counts,
        (seeds, np.broadcast_to(owner, predicted.shape), np.broadcast_to(labels, predicted.shape), predicted),
        1,
    )
    return counts


def _resamples(subjects: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        yield rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=size)


def _weighted(metric: Metric, confusions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns `(B,)`: the metric of the pool under subject weights `(B, S)`, averaged over seeds."""
    pooled = np.einsum("bs,ksij->bkij", weights, confusions, optimize=True)
    return metric(pooled).mean(1)


def bootstrap_interval(
    metric: Metric, confusions: np.ndarray, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a pooled metric under resampling of subjects with replacement.

    Every seed sees the same resample and the metric is averaged over seeds, so the interval is that of the
    reported mean.

    Args:
        metric: From `(..., C, C)` confusion matrices to `(...)`.
        confusions: `(K, S, C, C)`, from `subject_confusions`.
        draws: Number of resamples.
        seed: Decides them.
        level: Coverage.

    Returns:
        Lower and upper end.
    """
    values = np.concatenate(
        [_weighted(metric, confusions, w) for w in _resamples(confusions.shape[1], draws, seed)]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """Run A against run B on the same subjects.

    Attributes:
        difference: Metric of A minus metric of B, averaged over seeds.
        low: Lower end of the 95 % paired-bootstrap interval of the difference.
        high: Upper end.
        p_value: Two-sided, from exchanging A and B subject by subject.
    """

    difference: float
    low: float
    high: float
    p_value: float


def paired_test(
    metric: Metric, a: np.ndarray, b: np.ndarray, *, draws: int = 10000, seed: int = 0
) -> PairedTest:
    """Tests whether two runs differ, subject by subject.

    The permutation test exchanges the two runs' predictions for a random half of the subjects (all seeds of a
    subject together); `p = (1 + exchanges at least as extreme) / (1 + draws)`.

    Args:
        metric: From `(..., C, C)` confusion matrices to `(...)`.
        a: `(K, S, C, C)`, from `subject_confusions`.
        b: The same of the other run; same seeds, same subjects.
        draws: Resamples of the bootstrap, and exchanges of the permutation test.
        seed: Decides both.

    Returns:
        The difference with its interval and p-value.
    """
    subjects = a.shape[1]
    observed = float(metric(a.sum(1)).mean() - metric(b.sum(1)).mean())
    differences = np.concatenate(
        [_weighted(metric, a, w) - _weighted(metric, b, w) for w in _resamples(subjects, draws, seed)]
    )
    rng = np.random.default_rng([seed, 1])
    extreme = 0
    for start in range(0, draws, _CHUNK):
        keep = rng.integers(0, 2, size=(min(_CHUNK, draws - start), subjects))
        first = np.einsum("bs,ksij->bkij", keep, a, optimize=True) + np.einsum(
            "bs,ksij->bkij", 1 - keep, b, optimize=True
        )
        second = (a + b).sum(1) - first
        exchanged = metric(first).mean(1) - metric(second).mean(1)
        extreme += int((np.abs(exchanged) >= abs(observed) - 1e-12).sum())
    low, high = np.quantile(differences, [0.025, 0.975])
    return PairedTest(observed, float(low), float(high), (1 + extreme) / (1 + draws))


def mcnemar(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[int, int, float]:
    """Exact McNemar test on samples (McNemar 1947, doi:10.1007/BF02295996).

    It takes samples for independent, which clips of one subject are not; the subject-wise tests come first.

    Args:
        labels: `(N,)` int, true classes.
        a: `(N,)` int, predictions of run A.
        b: `(N,)` int, predictions of run B.

    Returns:
        Samples that only A has right, samples that only B has right, and the two-sided p-value.

    >>> mcnemar(np.zeros(6, int), np.zeros(6, int), np.ones(6, int))
    (6, 0, 0.03125)
    """
    only_a = int(((a == labels) & (b != labels)).sum())
    only_b = int(((b == labels) & (a != labels)).sum())
    n, k = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(n, i) for i in range(k + 1))
    return only_a, only_b, min(1.0, 2 * tail / 2**n)
