"""Scores along the epochs, against the selections they must agree with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mer_bench.scores.course import course_of
from mer_bench.scores.metrics import confusion_matrix, uf1
from mer_bench.scores.selection import select
from mer_bench.training.result import FoldResult


def test_every_epoch_agrees_with_the_selections(record: Callable[..., FoldResult]) -> None:
    """Cut short at any epoch, `last` is the fixed reading and `oracle` the picked one."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 20)
    tests = np.array_split(np.arange(20), 6)
    records = {
        seed: [
            record(f"f{i}", test, rng.integers(0, 3, (7, len(test))), seed=seed)
            for i, test in enumerate(tests)
        ]
        for seed in (0, 5)
    }
    course = course_of(records, labels)
    assert course.fixed.shape == course.picked.shape == course.train_accuracy.shape == (2, 7)
    for row, folds in enumerate(records.values()):
        for epoch in range(7):
            short = [replace(fold, logits=fold.logits[: epoch + 1]) for fold in folds]
            for rule, found in (("last", course.fixed), ("oracle", course.picked)):
                picked = select(short, labels, rule)
                expected = uf1(confusion_matrix(labels[picked.index], picked.predicted, 3))
                assert found[row, epoch] == pytest.approx(float(expected))
        assert course.chosen[row].tolist() == list(select(folds, labels, "oracle").epochs.values())
