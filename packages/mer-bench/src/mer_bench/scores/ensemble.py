"""Ensembles: the mean of recorded probabilities, equally weighted or by weights fitted inside the folds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from mer_bench.errors import RunError, UsageError
from mer_bench.scores.members import Members
from mer_flow.work.suggest import unknown

#: What may be averaged.
MEANS = ("log-probability", "probability")


def average(scores: np.ndarray, weights: np.ndarray, mean: str = "log-probability") -> np.ndarray:
    """Average what members say of samples.

    Args:
        scores: `(M, n, C)`, logits or log probabilities.
        weights: `(M,)`, not negative, their sum 1.
        mean: `probability` for the linear pool `sum_m w_m p_m`, `log-probability` for the logarithmic one,
            whose p is proportional to `prod_m p_m^w_m` (Genest and Zidek 1986, doi:10.1214/ss/1177013825).

    Returns:
        `(n, C)` float64, log probabilities.

    >>> two = np.log([[[0.9, 0.1]], [[0.5, 0.5]]])
    >>> np.exp(average(two, np.array([0.5, 0.5]), "probability")).round(3).tolist()
    [[0.7, 0.3]]
    >>> np.exp(average(two, np.array([0.5, 0.5]))).round(3).tolist()
    [[0.75, 0.25]]
    """
    from scipy.special import log_softmax, logsumexp

    log_p = log_softmax(np.asarray(scores, np.float64), axis=2)
    if mean == "probability":
        return logsumexp(log_p, axis=0, b=weights[:, None, None])
    return log_softmax(np.tensordot(weights, log_p, 1), axis=1)


def fit_weights(scores: np.ndarray, labels: np.ndarray, mean: str, start: np.ndarray) -> np.ndarray:
    """Return the weights of the lowest mean cross-entropy of the average, a convex problem for either mean.

    Args:
        scores: `(M, n, C)`, as for `average`.
        labels: `(n,)` int.
        mean: As for `average`.
        start: `(M,)`, where the search begins.

    Returns:
        `(M,)` float64, not negative, their sum 1.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax, logsumexp, softmax

    log_p = log_softmax(np.asarray(scores, np.float64), axis=2)
    right = log_p[:, np.arange(len(labels)), labels]

    def linear(w: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = logsumexp(right, axis=0, b=np.maximum(w, 1e-300)[:, None])
        return -float(mixed.mean()), -np.exp(right - mixed).mean(1)

    def logarithmic(w: np.ndarray) -> tuple[float, np.ndarray]:
        pooled = np.tensordot(w, log_p, 1)
        loss = logsumexp(pooled, axis=1) - w @ right
        slope = (softmax(pooled, axis=1) * log_p).sum(2) - right
        return float(loss.mean()), slope.mean(1)

    found = minimize(
        linear if mean == "probability" else logarithmic,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * len(start),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-10, "maxiter": 500},
    )
    weights = np.clip(found.x, 0, 1)
    return weights / weights.sum()


def equal_weights(members: Members) -> np.ndarray:
    """Return `(M,)`: the same for every run; its seeds, where they are pooled, share it."""
    digests = [member.digest for member in members.members]
    shares = np.array([1 / digests.count(digest) for digest in digests])
    return shares / shares.sum()


def ensemble_weights(members: Members, mean: str, fitted: bool = False) -> dict[int, np.ndarray]:
    """Return the weights of the members in each fold.

    Args:
        members: The members.
        mean: As for `average`.
        fitted: Fit the weights of a fold on the records of the other folds, whose subjects are others.

    Returns:
        Seed to `(F, M)` float64.

    Raises:
        UsageError: No such mean.
        RunError: There is no other fold to fit on.
    """
    if mean not in MEANS:
        raise UsageError(str(unknown("mean", mean, MEANS)))
    start, tests = equal_weights(members), members.tests()
    if not fitted:
        return {seed: np.tile(start, (len(tests), 1)) for seed in members.scores}
    require_other_folds(members, "weights cannot be fitted")
    return {
        seed: np.array(
            [
                fit_weights(scores[:, others], members.labels[others], mean, start)
                for others in other_rows(tests)
            ]
        )
        for seed, scores in members.scores.items()
    }


def require_other_folds(members: Members, what: str) -> None:
    """Raise RunError where a run has a single fold, and so no record of other subjects."""
    if len(members.folds) < 2:
        raise RunError(
            f"{what}: protocol '{members.manifests[0].protocol}' has a single fold, so there are no records "
            "of other subjects"
        )


def other_rows(tests: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each fold the rows that the others hold out.

    >>> [rows.tolist() for rows in other_rows([np.array([0, 3]), np.array([1]), np.array([2])])]
    [[1, 2], [0, 2, 3], [0, 1, 3]]
    """
    every = np.sort(np.concatenate(tests))
    return [np.setdiff1d(every, test) for test in tests]


def combine_by(mean: str) -> partial[np.ndarray]:
    """Return `average` of one kind, for `Members.results`."""
    return partial(average, mean=mean)
