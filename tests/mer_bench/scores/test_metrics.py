"""Pooled scores against scikit-learn, absent classes included."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from mer_bench.errors import DataError
from mer_bench.scores.metrics import FULL, METRICS, Scores, confusion_matrix, pools, score


def pool(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Random truth and predictions; often with classes that are absent, never predicted, or both."""
    rng = np.random.default_rng(seed)
    num_classes = int(rng.integers(2, 8))
    true_of = rng.choice(num_classes, int(rng.integers(1, num_classes + 1)), replace=False)
    predicted_of = rng.choice(num_classes, int(rng.integers(1, num_classes + 1)), replace=False)
    size = int(rng.integers(1, 60))
    return rng.choice(true_of, size), rng.choice(predicted_of, size), num_classes


@pytest.mark.parametrize("seed", range(200))
def test_agrees_with_scikit_learn(seed: int) -> None:
    labels, predicted, num_classes = pool(seed)
    found = Scores.of(confusion_matrix(labels, predicted, num_classes))
    every = list(range(num_classes))
    options = {"labels": every, "zero_division": 0}
    np.testing.assert_array_equal(
        found.confusion, reference.confusion_matrix(labels, predicted, labels=every)
    )
    assert found.uf1 == pytest.approx(
        reference.f1_score(labels, predicted, average="macro", **options), abs=1e-12
    )
    assert found.uar == pytest.approx(
        reference.recall_score(labels, predicted, average="macro", **options), abs=1e-12
    )
    assert found.accuracy == pytest.approx(reference.accuracy_score(labels, predicted), abs=1e-12)
    np.testing.assert_allclose(
        found.f1, reference.f1_score(labels, predicted, average=None, **options), atol=1e-12
    )
    np.testing.assert_allclose(
        found.recall, reference.recall_score(labels, predicted, average=None, **options), atol=1e-12
    )
    np.testing.assert_allclose(
        found.precision, reference.precision_score(labels, predicted, average=None, **options), atol=1e-12
    )


def test_the_random_pools_do_have_absent_classes() -> None:
    absent = [len(set(range(n)) - set(labels.tolist())) for labels, _, n in map(pool, range(200))]
    assert sum(count > 0 for count in absent) > 50


def test_an_absent_class_keeps_its_place() -> None:
    perfect = np.array([0, 0, 1, 1])
    found = Scores.of(confusion_matrix(perfect, perfect, 3))
    assert found.uf1 == pytest.approx(2 / 3)
    assert found.uar == pytest.approx(2 / 3)
    assert found.absent.tolist() == [2]


def test_the_majority_floor_of_the_composite() -> None:
    labels = np.repeat([0, 1, 2], [250, 109, 83])
    found = Scores.of(confusion_matrix(labels, np.zeros(442, int), 3))
    assert (round(found.uf1, 3), round(found.uar, 3), round(found.accuracy, 3)) == (0.241, 0.333, 0.566)


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    databases = rng.choice(["samm", "smic"], 90)
    order = rng.permutation(90)
    a = score(labels, predicted, databases, 3)
    b = score(labels[order], predicted[order], databases[order], 3)
    assert {k: v.to_json() for k, v in a.items()} == {k: v.to_json() for k, v in b.items()}


def test_a_database_is_the_same_pool_restricted() -> None:
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    databases = rng.choice(["samm", "smic", "casme2"], 90)
    found = score(labels, predicted, databases, 3)
    assert list(found) == [FULL, "casme2", "samm", "smic"]
    np.testing.assert_array_equal(
        found[FULL].confusion, sum(found[d].confusion for d in ("casme2", "samm", "smic"))
    )
    mask = databases == "samm"
    assert found["samm"].uf1 == pytest.approx(
        reference.f1_score(labels[mask], predicted[mask], labels=[0, 1, 2], average="macro", zero_division=0)
    )


def test_one_database_is_not_scored_twice() -> None:
    assert list(pools(np.array(["samm", "samm"]))) == [FULL]


def test_metrics_take_stacks_of_matrices() -> None:
    stack = np.random.default_rng(2).integers(0, 9, (4, 5, 3, 3))
    for metric in METRICS.values():
        values = metric(stack)
        assert values.shape == (4, 5)
        assert values[1, 2] == pytest.approx(float(metric(stack[1, 2])))


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, 1], [0], "equally long"),
        ([0, 3], [0, 0], "label is outside"),
        ([0, 1], [0, -1], "prediction is outside"),
    ],
)
def test_bad_input_is_refused(labels: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        confusion_matrix(np.array(labels), np.array(predicted), 3)
