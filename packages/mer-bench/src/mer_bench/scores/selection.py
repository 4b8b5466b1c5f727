"""Which epoch counts: `last`, `inner` or `oracle`, all from the same recorded logits.

`last` is fixed before training and is the headline. `inner` looks at reserved training subjects only.
`oracle` looks at the held-out subject itself, as much published code does, so its figures leak; it exists to
place such figures.
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
    "inner": "inner (training subjects choose)",
    "oracle": "oracle (LEAKS: test subject chooses)",
}


@dataclass(frozen=True)
class Selected:
    """One prediction per tested sample.

    Attributes:
        index: `(M,)` int64 rows of the run's data, ascending.
        predicted: `(M,)` int64 classes.
        epochs: Fold name to the chosen epoch, counted from 1.
    """

    index: np.ndarray
    predicted: np.ndarray
    epochs: dict[str, int]


def _last(record: FoldResult, labels: np.ndarray) -> int:
    return len(record.logits) - 1


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


#: Rule to the place of the epoch that it chooses in a fold; honest rules first.
SELECTIONS = {"last": _last, "inner": _inner, "oracle": _oracle}


def select(records: Sequence[FoldResult], labels: np.ndarray, rule: str = "last") -> Selected:
    """Pool one prediction per tested sample, from the epoch that a rule chooses in each fold.

    Args:
        records: Every fold of one seed.
        labels: `(N,)` int64, labels of the run's data.
        rule: `last`, `inner` or `oracle`.

    Raises:
        UsageError: No such rule.
        RunError: `inner` without inner subjects, or a sample tested twice.
    """
    if rule not in SELECTIONS:
        raise UsageError(str(unknown("selection", rule, SELECTIONS)))
    chosen = [SELECTIONS[rule](record, labels) for record in records]
    rows = np.concatenate([record.test_index for record in records])
    predicted = [record.logits[epoch].argmax(1) for record, epoch in zip(records, chosen, strict=True)]
    order = np.argsort(rows, kind="stable")
    if np.any(np.diff(rows[order]) == 0):
        raise RunError("a sample is tested by more than one fold; its predictions cannot be pooled")
    epochs = {record.fold: epoch + 1 for record, epoch in zip(records, chosen, strict=True)}
    return Selected(rows[order], np.concatenate(predicted)[order].astype(np.int64), epochs)
