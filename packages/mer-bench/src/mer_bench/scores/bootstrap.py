"""Uncertainty over subjects: bootstrap intervals and paired tests.

Subjects, not samples, are the independent units: one person's clips share a face, a session and a mood. Each
carries a confusion matrix per seed, and a resample is a weight per subject.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mer_bench.scores.metrics import Metric

_ENDS = (0.025, 0.975)
# Resamples handled at once; bounds the memory of (chunk, seeds, C, C) arrays.
_CHUNK = 1024


def subject_confusions(
    labels: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, num_classes: int
) -> np.ndarray:
    """Count each subject's predictions, for every seed.

    Args:
        labels: `(N,)` int, true classes.
        predicted: `(K, N)` int, predictions of K seeds.
        subjects: `(N,)` str.
        num_classes: Number of classes C.

    Returns:
        `(K, S, C, C)` int64, subjects in sorted order, rows true.
    """
    names, owner = np.unique(subjects, return_inverse=True)
    counts = np.zeros((len(predicted), names.size, num_classes, num_classes), np.int64)
    np.add.at(counts, (np.arange(len(predicted))[:, None], owner, labels, predicted), 1)
    return counts


def _chunks(draws: int) -> Iterator[int]:
    for start in range(0, draws, _CHUNK):
        yield min(_CHUNK, draws - start)


@functools.lru_cache(maxsize=8)  # a table draws the same ones for every figure
def _resamples(subjects: int, draws: int, seed: int) -> tuple[np.ndarray, ...]:
    """Return `(B, S)` int of each chunk: how often each subject is drawn, with replacement."""
    rng, even = np.random.default_rng(seed), np.full(subjects, 1 / subjects)
    return tuple(rng.multinomial(subjects, even, size=size) for size in _chunks(draws))


def _pooled(confusions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return `(B, K, C, C)`: the pools under subject weights `(B, S)`."""
    return np.einsum("bs,ksij->bkij", weights, confusions, optimize=True)


def bootstrap_interval(
    metric: Metric, confusions: np.ndarray, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a pooled metric under resampling of subjects with replacement.

    Every seed sees the same resample and the metric is averaged over seeds, so the interval is that of the
    reported mean.

    Args:
        metric: From `(..., C, C)` confusion matrices to `(...)`.
        confusions: `(K, S, C, C)`, from `subject_confusions`.
        draws: Number of resamples.
        seed: Decides them.
    """
    resamples = _resamples(confusions.shape[1], draws, seed)
    values = np.concatenate([metric(_pooled(confusions, weights)).mean(1) for weights in resamples])
    low, high = np.quantile(values, _ENDS)
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


class PairedTests:
    """Paired tests between any two of several runs on the same subjects; what they share is drawn once.

    The permutation test exchanges the two runs' predictions for a random half of the subjects (all seeds of a
    subject together); `p = (1 + exchanges at least as extreme) / (1 + draws)`.

    Args:
        confusions: Run to `(K, S, C, C)`, from `subject_confusions`; the same subjects for all.
        draws: Resamples of the bootstrap, and exchanges of the permutation test.
        seed: Decides both.
    """

    def __init__(self, confusions: Mapping[str, np.ndarray], *, draws: int = 10000, seed: int = 0):
        subjects = next(iter(confusions.values())).shape[1]
        weights = np.concatenate(_resamples(subjects, draws, seed))
        rng = np.random.default_rng([seed, 1])
        kept = np.concatenate([rng.integers(0, 2, size=(size, subjects)) for size in _chunks(draws)])
        self._draws = draws
        self._totals = {name: each.sum(1) for name, each in confusions.items()}
        self._resampled = {name: _pooled(each, weights) for name, each in confusions.items()}
        self._kept = {name: _pooled(each, kept) for name, each in confusions.items()}

    def test(
        self, metric: Metric, a: str, b: str, seeds: tuple[Sequence[int], Sequence[int]] | None = None
    ) -> PairedTest:
        """Test whether run A and run B differ.

        Args:
            metric: From `(..., C, C)` confusion matrices to `(...)`.
            a: One run.
            b: The other.
            seeds: Rows of A's seeds and of B's that are compared; all by default.
        """
        mine, other = ([*rows] for rows in seeds) if seeds else (slice(None), slice(None))

        def difference(one: np.ndarray, two: np.ndarray) -> np.ndarray:
            return metric(one).mean(-1) - metric(two).mean(-1)

        totals = self._totals[a][mine], self._totals[b][other]
        observed = float(difference(*totals))
        differences = difference(self._resampled[a][:, mine], self._resampled[b][:, other])
        first = self._kept[a][:, mine] + totals[1] - self._kept[b][:, other]
        exchanged = difference(first, totals[0] + totals[1] - first)
        extreme = int((np.abs(exchanged) >= abs(observed) - 1e-12).sum())
        low, high = np.quantile(differences, _ENDS)
        return PairedTest(observed, float(low), float(high), (1 + extreme) / (1 + self._draws))


def paired_test(
    metric: Metric, a: np.ndarray, b: np.ndarray, *, draws: int = 10000, seed: int = 0
) -> PairedTest:
    """Test whether two runs differ, subject by subject, as `PairedTests` does.

    Args:
        metric: From `(..., C, C)` confusion matrices to `(...)`.
        a: `(K, S, C, C)`, from `subject_confusions`.
        b: The same of the other run; same seeds, same subjects.
        draws: Resamples of the bootstrap, and exchanges of the permutation test.
        seed: Decides both.
    """
    return PairedTests({"a": a, "b": b}, draws=draws, seed=seed).test(metric, "a", "b")


def mcnemar(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[int, int, float]:
    """Return the exact McNemar test on samples (McNemar 1947, doi:10.1007/BF02295996).

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
    from scipy.stats import binomtest

    only_a = int(((a == labels) & (b != labels)).sum())
    only_b = int(((b == labels) & (a != labels)).sum())
    differing = only_a + only_b
    return only_a, only_b, float(binomtest(only_a, differing).pvalue) if differing else 1.0
