"""Pooled scores against scikit-learn, absent classes included."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from mer_bench.errors import DataError
from mer_bench.scores.metrics import CLASS_METRICS, FULL, METRICS, confusion_matrix, pools


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
    found = confusion_matrix(labels, predicted, num_classes)
    every = list(range(num_classes))
    np.testing.assert_array_equal(found, reference.confusion_matrix(labels, predicted, labels=every))
    assert METRICS["accuracy"](found) == pytest.approx(reference.accuracy_score(labels, predicted), abs=1e-12)
    for ours, theirs, pooled in (
        ("f1", reference.f1_score, "uf1"),
        ("recall", reference.recall_score, "uar"),
        ("precision", reference.precision_score, None),
    ):
        expected = theirs(labels, predicted, labels=every, average=None, zero_division=0)
        np.testing.assert_allclose(CLASS_METRICS[ours](found), expected, atol=1e-12)
        if pooled:
            expected = theirs(labels, predicted, labels=every, average="macro", zero_division=0)
            assert METRICS[pooled](found) == pytest.approx(expected, abs=1e-12)


def test_the_random_pools_do_have_absent_classes() -> None:
    absent = [len(set(range(n)) - set(labels.tolist())) for labels, _, n in map(pool, range(200))]
    assert sum(count > 0 for count in absent) > 50


@pytest.mark.parametrize(
    ("labels", "predicted", "expected"),
    [
        # An absent class keeps its place.
        ([0, 0, 1, 1], [0, 0, 1, 1], (2 / 3, 2 / 3, 1)),
        # The majority floor of the composite.
        (np.repeat([0, 1, 2], [250, 109, 83]), [0] * 442, (0.241, 0.333, 0.566)),
    ],
)
def test_known_scores(labels: list[int], predicted: list[int], expected: tuple[float, ...]) -> None:
    found = confusion_matrix(np.array(labels), np.array(predicted), 3)
    assert [float(metric(found)) for metric in METRICS.values()] == pytest.approx(expected, abs=5e-4)


def test_pools_are_everything_and_each_database() -> None:
    rng = np.random.default_rng(1)
    labels, predicted = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    databases = rng.choice(["samm", "smic", "casme2"], 90)
    found = {
        name: confusion_matrix(labels[mask], predicted[mask], 3) for name, mask in pools(databases).items()
    }
    assert list(found) == [FULL, "casme2", "samm", "smic"]
    np.testing.assert_array_equal(found[FULL], found["casme2"] + found["samm"] + found["smic"])
    own = databases == "samm"
    np.testing.assert_array_equal(
        found["samm"], reference.confusion_matrix(labels[own], predicted[own], labels=[0, 1, 2])
    )
    assert list(pools(np.array(["samm", "samm"]))) == [FULL]


@pytest.mark.parametrize("name", [*METRICS, *CLASS_METRICS])
def test_metrics_take_stacks_of_matrices(name: str) -> None:
    metric = {**METRICS, **CLASS_METRICS}[name]
    stack = np.random.default_rng(2).integers(0, 9, (4, 5, 3, 3))
    assert metric(stack).shape[:2] == (4, 5)
    np.testing.assert_allclose(metric(stack)[1, 2], metric(stack[1, 2]))


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
