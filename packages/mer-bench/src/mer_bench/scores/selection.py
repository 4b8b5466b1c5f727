"""Which epochs count: `last`, `tail`, `inner` or `oracle`, all from the same recorded logits.

`last` and `tail` are fixed before training; one of them is a run's headline. `inner` looks at reserved
training subjects only. `oracle` looks at the held-out subject itself, as much published code does, so its
figures leak; it exists to place such figures. `naive` does the same with the members of a choice
(`scores.choice`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mer_bench.errors import RunError, UsageError
from mer_bench.scores.metrics import confusion_matrix, uf1
from mer_bench.training.result import FoldResult
from mer_flow.work.suggest import unknown

#: How a table names them; a leaking figure is never printed without saying so.
SELECTION_TITLES = {
    "last": "last epoch",
    "tail": "tail (mean of the last epochs)",
    "inner": "inner (training subjects choose)",
    "oracle": "oracle (LEAKS: test subject chooses)",
    "naive": "naive choice (LEAKS: test subjects choose the member)",
}
#: Those that may be a run's headline.
HEADLINES = ("last", "tail")
LEAKING = ("oracle", "naive")


@dataclass(frozen=True)
class Selected:
    """What a selection says of every tested sample.

    Attributes:
        index: `(M,)` int64 rows of the run's data, ascending.
        scores: `(M, C)` float64, logits or log probabilities.
        epochs: Fold name to the chosen epoch, counted from 1; the first of those of `tail`.
    """

    index: np.ndarray
    scores: np.ndarray
    epochs: dict[str, int]

    @property
    def predicted(self) -> np.ndarray:
        """`(M,)` int64 classes."""
        return self.scores.argmax(1)


def _inner(record: FoldResult, labels: np.ndarray) -> int:
    """The epoch of the best inner UF1; ties go to the lower inner loss, then to the earlier epoch."""
    from scipy.special import log_softmax

    if not record.inner_index.size:
        raise RunError(
            f"fold '{record.fold}' reserved no training subjects; selection 'inner' needs a run with --inner"
        )
    truth = labels[record.inner_index]
    logits = record.inner_logits.astype(np.float64)
    scores = [float(uf1(confusion_matrix(truth, step.argmax(1), logits.shape[2]))) for step in logits]
    losses = -log_softmax(logits, axis=2)[:, np.arange(len(truth)), truth].mean(1)
    return min(range(len(scores)), key=lambda epoch: (-scores[epoch], losses[epoch], epoch))


def _oracle(record: FoldResult, labels: np.ndarray) -> int:
    """The epoch of the best accuracy on the held-out samples, as HTNet's script takes it."""
    # It keeps an epoch where `best <= accuracy`, so the latest of equally good epochs wins.
    hits = (record.logits.argmax(2) == labels[record.test_index]).sum(1)
    return int(len(hits) - 1 - np.argmax(hits[::-1]))


def _naive(records: Sequence[FoldResult], labels: np.ndarray) -> int:
    """The member of the best UF1 over the very samples that are scored; ties go to the first."""
    if not all(len(record.members) for record in records):
        raise RunError("selection 'naive' needs a run of `mer-bench choose`; this one has no members")
    truth = np.concatenate([labels[record.test_index] for record in records])
    predicted = np.concatenate([record.members.argmax(2) for record in records], axis=1)
    classes = records[0].members.shape[2]
    return int(np.argmax([uf1(confusion_matrix(truth, each, classes)) for each in predicted]))


#: Rules that choose one epoch in each fold.
_CHOOSING = {"last": lambda record, labels: len(record.logits) - 1, "inner": _inner, "oracle": _oracle}


def mean_log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean softmax over the first axis.

    Args:
        logits: `(E, n, C)`.

    Returns:
        `(n, C)` float64; of a single epoch the logits themselves, so that nothing is lost to rounding.

    >>> np.exp(mean_log_probabilities(np.log([[[0.9, 0.1]], [[0.5, 0.5]]]))).round(3).tolist()
    [[0.7, 0.3]]
    """
    from scipy.special import log_softmax, logsumexp

    logits = logits.astype(np.float64)
    if len(logits) == 1:
        return logits[0]
    return logsumexp(log_softmax(logits, axis=2), axis=0) - np.log(len(logits))


def select(
    records: Sequence[FoldResult], labels: np.ndarray, rule: str = "last", tail_epochs: int | None = None
) -> Selected:
    """Pool what a rule says of every tested sample.

    Args:
        records: Every fold of one seed.
        labels: `(N,)` int64, labels of the run's data.
        rule: `last`, `tail`, `inner`, `oracle` or `naive`.
        tail_epochs: How many of the last epochs `tail` averages; None for half of them, at least one.

    Raises:
        UsageError: No such rule.
        RunError: `inner` without inner subjects, `naive` without members, or a sample tested twice.
    """
    if rule not in SELECTION_TITLES:
        raise UsageError(str(unknown("selection", rule, SELECTION_TITLES)))
    best = _naive(records, labels) if rule == "naive" else 0
    scores, epochs = [], {}
    for record in records:
        count = len(record.logits)
        if rule == "naive":
            first, each = 0, record.members[best].astype(np.float64)
        elif rule == "tail":
            first = max(count - (tail_epochs or max(count // 2, 1)), 0)
            each = mean_log_probabilities(record.logits[first:])
        else:
            first = _CHOOSING[rule](record, labels)
            each = record.logits[first].astype(np.float64)
        scores.append(each)
        epochs[record.fold] = first + 1
    rows = np.concatenate([record.test_index for record in records])
    order = np.argsort(rows, kind="stable")
    if np.any(np.diff(rows[order]) == 0):
        raise RunError("a sample is tested by more than one fold; its predictions cannot be pooled")
    return Selected(rows[order], np.concatenate(scores)[order], epochs)
