"""Selections from one record: last, inner, oracle, and what their ties do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mer_bench.errors import RunError, UsageError
from mer_bench.scores.selection import select
from mer_bench.training.result import FoldResult

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
Make = Callable[..., FoldResult]


def test_last_takes_the_last_epoch_of_every_fold(record: Make) -> None:
    found = select([record("b", [2, 3], [[2, 0], [1, 1]]), record("a", [0, 1], [[0, 1], [0, 0]])], LABELS)
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found.predicted.tolist() == [0, 0, 1, 1]
    assert found.epochs == {"b": 2, "a": 2}


def test_oracle_takes_each_subjects_best_epoch(record: Make) -> None:
    folds = [record("a", [0, 1], [[0, 0], [0, 1], [1, 0]]), record("b", [2, 3], [[2, 0], [1, 0], [0, 1]])]
    found = select(folds, LABELS, "oracle")
    assert found.predicted.tolist() == [0, 1, 2, 0]
    assert found.epochs == {"a": 2, "b": 1}


def test_oracle_ties_go_to_the_latest_epoch(record: Make) -> None:
    found = select([record("a", [0, 1], [[0, 0], [1, 1], [2, 2]])], LABELS, "oracle")
    assert found.epochs == {"a": 2}
    assert found.predicted.tolist() == [1, 1]


def test_oracle_is_never_below_last_in_accuracy(record: Make) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = rng.integers(0, 3, 30)
        folds = [
            record(str(i), range(5 * i, 5 * i + 5), rng.integers(0, 3, (7, 5)).tolist()) for i in range(6)
        ]
        hits = [(select(folds, labels, rule).predicted == labels).sum() for rule in ("last", "oracle")]
        assert hits[1] >= hits[0]


def test_inner_looks_at_the_reserved_subjects_only(record: Make) -> None:
    fold = record("a", [0, 1], [[0, 1], [1, 0], [1, 0]], [3, 4, 5], [[0, 0, 0], [0, 1, 2], [0, 0, 0]])
    found = select([fold], LABELS, "inner")
    assert found.epochs == {"a": 2}
    assert found.predicted.tolist() == [1, 0]
    other_truth = LABELS.copy()
    other_truth[:2] = 2
    assert select([fold], other_truth, "inner").epochs == found.epochs


def test_inner_ties_go_to_the_lower_loss_then_to_the_earlier_epoch(record: Make) -> None:
    fold = record("a", [0, 1], [[0, 1]] * 3, [3, 4, 5], [[0, 1, 2]] * 3)
    assert select([fold], LABELS, "inner").epochs == {"a": 1}
    sharper = fold.inner_logits.copy()
    sharper[1] *= 4
    assert select([FoldResult(**{**vars(fold), "inner_logits": sharper})], LABELS, "inner").epochs == {"a": 2}


def test_inner_without_reserved_subjects_is_refused(record: Make) -> None:
    with pytest.raises(RunError, match="--inner"):
        select([record("a", [0], [[0]])], LABELS, "inner")


def test_a_sample_tested_twice_is_refused(record: Make) -> None:
    with pytest.raises(RunError, match="more than one fold"):
        select([record("a", [0], [[0]]), record("b", [0], [[0]])], LABELS)


def test_an_unknown_rule_is_suggested(record: Make) -> None:
    with pytest.raises(UsageError, match="did you mean 'oracle'"):
        select([record("a", [0], [[0]])], LABELS, "oracel")
