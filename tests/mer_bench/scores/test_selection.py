"""Selections from one record: last, tail, inner, oracle, naive, and what their ties do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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


def test_tail_is_the_mean_softmax_of_the_last_epochs(record: Make) -> None:
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    every = [
        replace(record(str(i), range(8 * i, 8 * i + 8), [[0] * 8] * 5), logits=rng.normal(0, 2, (5, 8, 3)))
        for i in range(5)
    ]
    for wanted, count in ((None, 2), (3, 3), (5, 5), (9, 5)):
        found = select(every, labels, "tail", wanted)
        powers = np.exp(np.concatenate([fold.logits[-count:] for fold in every], axis=1))
        mean = (powers / powers.sum(2, keepdims=True)).mean(0)
        np.testing.assert_allclose(np.exp(found.scores), mean, rtol=1e-12)
        assert found.predicted.tolist() == mean.argmax(1).tolist()
        assert set(found.epochs.values()) == {6 - count}
        # A mean of probabilities never loses more than its members do on average (Jensen).
        losses = [log_loss(labels, epoch / epoch.sum(1, keepdims=True)) for epoch in powers]
        assert log_loss(labels, mean) <= np.mean(losses)


def test_tail_of_a_single_epoch_is_that_epoch(record: Make) -> None:
    fold = record("a", [0, 1], [[0, 1]])
    # Values that differ by less than a softmax can hold, as where `predict` broke a tie.
    logits = np.array([[[1.0, np.nextafter(np.float32(1), np.float32(2)), 0.0], [0, 1e-30, 0]]], np.float32)
    fold = replace(fold, logits=logits)
    last, tail = (select([fold], LABELS, rule) for rule in ("last", "tail"))
    assert last.predicted.tolist() == tail.predicted.tolist() == [1, 1]


def test_naive_takes_the_member_that_is_best_where_it_is_scored(record: Make) -> None:
    picks = {"a": [[0, 0], [0, 1], [0, 0]], "b": [[2, 1], [2, 2], [2, 0]]}
    folds = [record("a", [0, 1], [[0, 0]]), record("b", [2, 3], [[0, 0]])]
    folds = [replace(fold, members=np.eye(3, dtype=np.float32)[picks[fold.fold]]) for fold in folds]
    assert select(folds, LABELS, "naive").predicted.tolist() == [0, 1, 2, 2]
    assert select(folds[:1], LABELS, "naive").predicted.tolist() == [0, 1]
    with pytest.raises(RunError, match="mer-bench choose"):
        select([record("a", [0], [[0]])], LABELS, "naive")


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
