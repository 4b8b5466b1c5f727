"""Choices among members that never look at the fold they are made for.

`jackknife` chooses for each fold the member that is best on the other folds' finished records. It costs
nothing, and it is not nested cross-validation: the networks that made those records have trained on the
subjects for whom is chosen, so their labels have had a hand in the scores, if not in the choice among them.
`nested` chooses by trainings that never saw these subjects (`runs.nested`), and costs as many trainings as it
has inner folds.

The naive choice, of the member that is best over all folds, looks at every subject that it is scored on. It
is told beside either, marked as leaking, as the oracle is beside an epoch that was fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mer_bench.runs.nested import outer_of
from mer_bench.scores.bootstrap import subject_confusions
from mer_bench.scores.ensemble import require_other_folds
from mer_bench.scores.members import Members
from mer_bench.scores.metrics import confusion_matrix, uf1
from mer_bench.scores.selection import select
from mer_bench.training.result import FoldResult


def others_uf1(
    predicted: np.ndarray, labels: np.ndarray, tests: Sequence[np.ndarray], num_classes: int
) -> np.ndarray:
    """Score members for each fold on what the other folds hold out.

    Args:
        predicted: `(M, N)` int, the members' predictions.
        labels: `(N,)` int, true classes.
        tests: The rows that each fold holds out.
        num_classes: Number of classes.

    Returns:
        `(F, M)` float64, UF1 of the predictions pooled over the other folds.
    """
    rows, fold = np.concatenate(tests), np.repeat(np.arange(len(tests)), [len(test) for test in tests])
    own = subject_confusions(labels[rows], predicted[:, rows], fold, num_classes)
    return uf1(own.sum(1, keepdims=True) - own).T


def one_of(scores: np.ndarray) -> np.ndarray:
    """Return `(F, M)` weights: 1 for the member of the best score in each fold, ties to the first; else 0."""
    return np.eye(scores.shape[1])[scores.argmax(1)]


def take(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return, of `(M, n, C)` scores, the `(n, C)` of the one member with weight; for `Members.results`."""
    taken: np.ndarray = scores[weights.argmax()]
    return taken


def jackknife_scores(members: Members) -> dict[int, np.ndarray]:
    """Score members for each fold on the finished records of the other folds: see what this is not above.

    Returns:
        Seed to `(F, M)` float64, UF1.

    Raises:
        RunError: There is no other fold.
    """
    require_other_folds(members, "no member can be chosen by jackknife")
    tests = members.tests()
    return {
        seed: others_uf1(np.nan_to_num(scores).argmax(2), members.labels, tests, members.num_classes)
        for seed, scores in members.scores.items()
    }


def inner_scores(
    records: Sequence[FoldResult], labels: np.ndarray, selection: str, tail_epochs: int | None = None
) -> dict[str, float]:
    """Score one candidate by its inner folds.

    Args:
        records: Of every inner fold (`runs.nested.inner_folds`), of one seed.
        labels: `(N,)` int64, labels of the run's data.
        selection: `last` or `tail`.
        tail_epochs: As for `select`.

    Returns:
        Outer fold to the UF1 of the predictions pooled over its inner folds.
    """
    of_outer: dict[str, list[FoldResult]] = {}
    for record in records:
        of_outer.setdefault(outer_of(record.fold), []).append(record)
    found = {}
    for fold, inner in of_outer.items():
        chosen = select(inner, labels, selection, tail_epochs)
        classes = inner[0].logits.shape[2]
        found[fold] = float(uf1(confusion_matrix(labels[chosen.index], chosen.predicted, classes)))
    return found
