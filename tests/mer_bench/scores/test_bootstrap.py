"""Intervals and paired tests over subjects."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from mer_bench.scores.bootstrap import bootstrap_interval, mcnemar, paired_test, subject_confusions
from mer_bench.scores.metrics import accuracy, uar, uf1


def people(seed: int, subjects: int = 40, clips: int = 8, skill: float = 0.6) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, subjects * clips)
    owner = np.repeat([f"s{i:02d}" for i in range(subjects)], clips)
    right = rng.random(labels.size) < skill
    predicted = np.where(right, labels, (labels + rng.integers(1, 3, labels.size)) % 3)
    return labels, predicted, owner


def test_confusions_per_subject_sum_to_the_pool() -> None:
    labels, predicted, owner = people(0)
    counts = subject_confusions(labels, np.stack([predicted, labels]), owner, 3)
    assert counts.shape == (2, 40, 3, 3)
    for k, one in enumerate((predicted, labels)):
        for true in range(3):
            for guess in range(3):
                assert counts[k, :, true, guess].sum() == ((labels == true) & (one == guess)).sum()
    assert (counts.sum((2, 3)) == 8).all()


def test_the_interval_agrees_with_a_plain_loop() -> None:
    labels, predicted, owner = people(1, subjects=12)
    counts = subject_confusions(labels, predicted[None], owner, 3)
    low, high = bootstrap_interval(uf1, counts, draws=4000, seed=3)
    rng = np.random.default_rng(99)
    values = [uf1(counts[0, rng.integers(0, 12, 12)].sum(0)) for _ in range(4000)]
    np.testing.assert_allclose((low, high), np.quantile(values, [0.025, 0.975]), atol=0.012)


def test_the_interval_is_seeded_and_holds_the_score() -> None:
    labels, predicted, owner = people(2)
    counts = subject_confusions(labels, predicted[None], owner, 3)
    first = bootstrap_interval(uar, counts, seed=5)
    assert first == bootstrap_interval(uar, counts, seed=5)
    assert first != bootstrap_interval(uar, counts, seed=6)
    assert first[0] < uar(counts[0].sum(0)) < first[1]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        labels, predicted, owner = people(seed, skill=0.7)
        low, high = bootstrap_interval(
            accuracy, subject_confusions(labels, predicted[None], owner, 3), draws=500
        )
        covered += low <= 0.7 <= high
    assert 85 <= covered <= 100


def test_a_run_against_itself_does_not_differ() -> None:
    labels, predicted, owner = people(3)
    counts = subject_confusions(labels, predicted[None], owner, 3)
    test = paired_test(uf1, counts, counts, draws=500)
    assert (test.difference, test.low, test.high, test.p_value) == (0, 0, 0, 1)


def test_a_clear_difference_is_found_and_signed() -> None:
    labels, weak, owner = people(4, skill=0.5)
    _, strong, _ = people(4, skill=0.5)
    fix = np.random.default_rng(0).random(labels.size) < 0.6
    strong = np.where(fix, labels, strong)
    a = subject_confusions(labels, strong[None], owner, 3)
    b = subject_confusions(labels, weak[None], owner, 3)
    test = paired_test(uf1, a, b, draws=2000)
    assert test.difference > 0.1
    assert 0 < test.low < test.difference < test.high
    assert test.p_value < 0.01
    back = paired_test(uf1, b, a, draws=2000)
    assert back.difference == pytest.approx(-test.difference)
    assert back.p_value == pytest.approx(test.p_value, abs=0.01)


def test_the_permutation_test_keeps_its_level() -> None:
    rejected = 0
    for seed in range(100):
        labels, one, owner = people(seed)
        other = people(seed + 1000)[1]
        # The same skill on the same truth: exchangeable by construction.
        rng = np.random.default_rng(seed)
        other = np.where(
            rng.random(labels.size) < 0.6, labels, (labels + rng.integers(1, 3, labels.size)) % 3
        )
        pair = [subject_confusions(labels, p[None], owner, 3) for p in (one, other)]
        rejected += paired_test(uar, *pair, draws=300).p_value <= 0.05
    assert rejected <= 12


def test_mcnemar_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, a, b = rng.integers(0, 3, (3, 200))
        only_a, only_b, p = mcnemar(labels, a, b)
        assert only_a == ((a == labels) & (b != labels)).sum()
        assert only_b == ((b == labels) & (a != labels)).sum()
        n, k = only_a + only_b, min(only_a, only_b)
        assert p == pytest.approx(min(1, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n), abs=1e-9)
    assert mcnemar(labels, a, a) == (0, 0, 1.0)
