"""Classifiers of any kind through the engine: what they predict, a class they never saw, and failure."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mer_bench.errors import TrainingError
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.settings import TrainingSettings
from mer_bench.training.classifier import fit_fold
from mer_bench.training.job import Job, TrainingData

LABELS = np.tile([0, 1, 2], 20).astype(np.int64)
MAPS = LABELS[:, None, None, None] + 0.1 * np.random.default_rng(0).standard_normal((60, 3, 2, 2))


def run(build):
    """Fit without a sample of class 1, predict 15 samples of all classes."""
    spec = ModelSpec("x", "X", build, "classifier", ("whole-2:raw",), "none", "baseline")
    job = Job(spec, {}, None, TrainingSettings(device="cpu"), ("a", "b", "c"), "p", 0)
    fold = Fold("f", np.flatnonzero(LABELS[:45] != 1), np.arange(45, 60))
    return fit_fold(job, TrainingData(MAPS.astype(np.float32), LABELS), fold)


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


@pytest.mark.parametrize("build", [logistic, ByNearestMean])
def test_classifier_learns_and_misses_a_class_it_never_saw(build):
    record = run(build)
    assert record.engine == "classifier" and record.logits.shape == (1, 15, 3)
    assert np.isfinite(record.logits).all()
    seen = LABELS[45:] != 1
    assert (record.logits[0].argmax(1)[seen] == LABELS[45:][seen]).all()
    assert "class 'b' has no training sample" in record.notes[0]


def test_a_classifier_that_fails_is_named():
    with pytest.raises(TrainingError, match=r"fold 'f': classifier 'x' .*no luck"):
        run(Broken)
