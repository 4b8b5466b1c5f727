"""The majority class, and classifiers in general, through the engine."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mer_bench.errors import TrainingError
from mer_bench.models.majority import SPECS
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.folds import run_folds


def run(spec, maps, labels, folds, **more):
    records = {}
    run_folds(
        spec, {}, maps, labels, 3, folds, Recipe(), protocol="p", seed=0, device="cpu",
        on_fold=lambda r: records.__setitem__(r.fold, r), **more,
    )  # fmt: skip
    return records


def composite():
    """Labels in the composite's proportions, 68 subjects; maps without meaning."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat([0, 1, 2], [250, 109, 83])).astype(np.int64)
    subjects = np.concatenate([np.arange(68), generator.integers(0, 68, 442 - 68)])
    folds = [Fold(str(s), np.flatnonzero(subjects != s), np.flatnonzero(subjects == s)) for s in range(68)]
    return np.zeros((442, 3, 2, 2), np.float32), labels, folds


def test_floor_of_the_composite():
    maps, labels, folds = composite()
    predicted = np.full(442, -1)
    for record in run(SPECS[0], maps, labels, folds).values():
        assert record.engine == "classifier"
        assert record.logits.shape[0] == 1
        predicted[record.test_index] = record.logits[-1].argmax(1)
    assert f1_score(labels, predicted, average="macro") == pytest.approx(0.241, abs=5e-4)


def logistic(num_classes, in_channels, map_size):
    flat = FunctionTransformer(lambda maps: maps.reshape(len(maps), -1))
    return make_pipeline(flat, LogisticRegression())


class ByNearestMean:
    """Has `predict` alone."""

    def __init__(self, num_classes, in_channels, map_size):
        pass

    def fit(self, maps, labels):
        self.classes = np.unique(labels)
        self.means = np.stack([maps[labels == k].mean(0) for k in self.classes])
        return self

    def predict(self, maps):
        return self.classes[((maps[:, None] - self.means) ** 2).sum((2, 3, 4)).argmin(1)]


class Broken(ByNearestMean):
    def fit(self, maps, labels):
        raise ValueError("no luck")


def as_spec(build):
    return ModelSpec("x", "X", build, "classifier", ("whole-2:raw",), "none", "baseline")


@pytest.mark.parametrize("build", [logistic, ByNearestMean])
def test_classifier_learns_and_misses_a_class_it_never_saw(build):
    generator = np.random.default_rng(0)
    labels = np.tile([0, 1, 2], 20).astype(np.int64)
    maps = (labels[:, None, None, None] + 0.1 * generator.standard_normal((60, 3, 2, 2))).astype(np.float32)
    train = np.flatnonzero(labels[:45] != 1)
    fold = Fold("f", train, np.arange(45, 60))
    record = run(as_spec(build), maps, labels, [fold])["f"]
    assert np.isfinite(record.logits).all()
    seen = labels[45:] != 1
    assert (record.logits[0].argmax(1)[seen] == labels[45:][seen]).all()
    assert "class 1 has no training sample" in record.notes[0]


def test_a_classifier_that_fails_is_named():
    maps, labels, folds = composite()
    with pytest.raises(TrainingError, match=r"fold '0': classifier 'x' .*no luck"):
        run(as_spec(Broken), maps, labels, folds[:1])
