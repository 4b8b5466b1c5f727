"""Features of classifiers: once per sample, of that sample alone, for every engine; decision values."""

import multiprocessing
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from sklearn.svm import SVC
from tests.mer_bench.training.parts import Kept

from mer_bench.errors import TrainingError, UsageError
from mer_bench.models import bi_woof, lbp_top
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.runs.train import execute
from mer_bench.settings import TrainingSettings
from mer_bench.training.features import classifier_features
from mer_bench.training.folds import prepare_data, run_folds
from mer_bench.training.job import Job, TrainingData


def as_spec(build):
    return ModelSpec("x", "X", build, "classifier", ("whole-28:scaled",), "none", "baseline")


def job_of(spec, **training):
    settings = TrainingSettings(**{"device": "cpu", **training})
    return Job(spec, {}, None, settings, ("a", "b", "c"), "p", 0)


def run(spec, maps, labels, folds, executor=None, **training):
    kept = Kept()
    run_folds(job_of(spec, **training), TrainingData(maps, labels), folds, executor, kept)
    return kept


def three_folds(labels):
    rows = np.arange(len(labels))
    return [Fold(str(k), rows[rows % 3 != k], rows[rows % 3 == k]) for k in range(3)]


class Means:
    """The means of the channels, then an SVM; notes every call."""

    calls: ClassVar[list[tuple[int, ...]]] = []

    def __init__(self, num_classes, in_channels, map_size):
        self.shape = (in_channels, map_size)

    def features(self, maps, view):
        assert multiprocessing.parent_process() is None, "features are made before the folds, in one process"
        type(self).calls.append(maps.shape)
        return maps.mean((2, 3))

    def fit(self, features, labels):
        assert features.ndim == 2
        assert self.shape == (3, 4)
        self.svc = SVC(kernel="linear").fit(features, labels)
        self.classes_ = self.svc.classes_
        return self

    def predict(self, features):
        return self.svc.predict(features)

    def decision_function(self, features):
        return self.svc.decision_function(features)


class Running(Means):
    """Its features drift with what it saw before."""

    def features(self, maps, view):
        self.seen = getattr(self, "seen", 0) + 1
        return maps.mean((2, 3)) + self.seen


class Chance(Means):
    def features(self, maps, view):
        return np.random.default_rng().normal(size=(len(maps), 3))


class Uneven(Means):
    def features(self, maps, view):
        return np.ones((1, 2 + int(maps[0, 0, 0, 0] > 1)))


class Failing(Means):
    def features(self, maps, view):
        raise ArithmeticError("no luck")


class Endless(Means):
    def features(self, maps, view):
        return np.full((len(maps), 2), np.inf)


class Flat(Means):
    def features(self, maps, view):
        return np.ones(7)


def by_class(labels, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.3, (len(labels), 3, 4, 4))
    return (labels[:, None, None, None] * np.array([1, -1, 0.5])[:, None, None] + noise).astype(np.float32)


LABELS = np.tile([0, 1, 2], 12)[np.random.default_rng(1).permutation(36)].astype(np.int64)


@pytest.mark.parametrize("training", [{}, {"engine": "local", "workers": 2}, {"engine": "stacked"}])
def test_one_call_per_sample_before_all_folds_whatever_the_settings(training):
    maps = by_class(LABELS)
    Means.calls = []
    records = run(as_spec(Means), maps, LABELS, three_folds(LABELS), **training)
    # One more for the first sample, whose features are made twice and compared.
    assert Means.calls == [(1, 3, 4, 4)] * 37
    assert records.calls[-1] == (3, 3)
    right = sum((r.logits[0].argmax(1) == LABELS[r.test_index]).sum() for r in records.values())
    assert {r.engine for r in records.values()} == {"classifier"} and right > 30


def test_features_made_beforehand_are_not_made_again():
    maps, job = by_class(LABELS), job_of(as_spec(Means))
    data = prepare_data(job, TrainingData(maps, LABELS))
    assert data.maps.shape == (36, 3) and data.shape == (3, 4, 4)
    Means.calls = []
    kept = Kept()
    run_folds(job, data, three_folds(LABELS), None, kept)
    assert not Means.calls and prepare_data(job, data) is data
    expected = run(as_spec(Means), maps, LABELS, three_folds(LABELS))
    for name, record in kept.items():
        np.testing.assert_array_equal(record.logits, expected[name].logits)


def test_seeds_share_features(prepared_with, tmp_path: Path):
    class Sized(Means):
        def __init__(self, num_classes, in_channels, map_size):
            self.shape = (3, 4)

    Sized.calls = []
    prepared = prepared_with(as_spec(Sized), protocol="loso", db=("samm",), seeds=(0, 1, 2))
    tried = len(Sized.calls)
    outcome = execute(prepared, tmp_path)
    assert outcome.status.complete
    assert (tried, len(Sized.calls) - tried) == (1, len(prepared.data.maps) + 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Running, "must depend on nothing but the sample"),
        (Chance, "must depend on nothing but the sample"),
        (Uneven, "sample 5 .*every sample needs the same"),
        (Failing, "sample 0 of the run's data failed .*no luck"),
        (Endless, "not finite"),
        (Flat, r"shape \(7,\)"),
    ],
)
def test_features_that_cannot_be_trusted(build, message):
    maps = by_class(LABELS)
    maps[:, 0, 0, 0] = 0
    maps[5, 0, 0, 0] = 2
    with pytest.raises(TrainingError, match=message):
        run(as_spec(build), maps, LABELS, three_folds(LABELS))


@pytest.mark.parametrize(
    ("spec", "view", "shape"),
    [
        (bi_woof.SPECS[0], "whole-28:raw", (3, 28, 28)),
        (bi_woof.SPECS[0], "whole-28:minmax-255", (3, 28, 28)),
        (lbp_top.SPECS[0], "clips-28:raw", (12, 28, 28)),
    ],
)
def test_features_do_not_depend_on_other_samples(spec, view, shape):
    rng = np.random.default_rng(0)
    maps = rng.uniform(0, 255, (7, *shape)).astype(np.float32)
    features = classifier_features(spec, {}, 3, maps, view)
    others = rng.uniform(0, 255, maps.shape).astype(np.float32)
    others[3] = maps[4]
    np.testing.assert_array_equal(classifier_features(spec, {}, 3, others, view)[3], features[4])
    np.testing.assert_array_equal(classifier_features(spec, {}, 3, maps[::-1], view), features[::-1])
    together = spec.build(num_classes=3, in_channels=shape[0], map_size=28).features(maps, view)
    np.testing.assert_array_equal(together, features)


def test_features_leave_the_maps_alone():
    class Spoiling(Means):
        def features(self, maps, view):
            maps[:] = 0
            return np.ones((1, 2))

    maps = by_class(LABELS)
    before = maps.copy()
    classifier_features(as_spec(Spoiling), {}, 3, maps, "")
    np.testing.assert_array_equal(maps, before)


def test_decision_values_are_recorded():
    maps = by_class(LABELS)
    record = run(as_spec(Means), maps, LABELS, three_folds(LABELS)[:1])["0"]
    train = np.flatnonzero(np.arange(36) % 3 != 0)
    svc = SVC(kernel="linear").fit(maps[train].mean((2, 3)), LABELS[train])
    expected = svc.decision_function(maps[record.test_index].mean((2, 3)))
    np.testing.assert_allclose(record.logits[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(
        record.logits[0].argmax(1), svc.predict(maps[record.test_index].mean((2, 3)))
    )


def test_two_classes_in_training():
    maps = by_class(LABELS)
    train, test = np.flatnonzero(LABELS[:24] != 1), np.arange(24, 36)
    record = run(as_spec(Means), maps, LABELS, [Fold("f", train, test)])["f"]
    assert np.isfinite(record.logits).all()
    svc = SVC(kernel="linear").fit(maps[train].mean((2, 3)), LABELS[train])
    np.testing.assert_array_equal(record.logits[0].argmax(1), svc.predict(maps[test].mean((2, 3))))


class Contrary(Means):
    """Decision values that tie or say otherwise; `predict` counts."""

    def predict(self, features):
        return np.arange(len(features)) % 3

    def decision_function(self, features):
        values = np.zeros((len(features), 3))
        values[::2, 0] = 1
        return values


def test_predict_has_the_last_word():
    record = run(as_spec(Contrary), by_class(LABELS), LABELS, three_folds(LABELS)[:1])["0"]
    np.testing.assert_array_equal(record.logits[0].argmax(1), np.arange(12) % 3)


def test_a_classifier_that_cannot_be_built_is_refused_before_a_run(prepared_with):
    with pytest.raises(UsageError, match=r"model 'x' .*cannot be built or run: .*no luck"):
        prepared_with(as_spec(Failing), protocol="loso", db=("samm",))
    with pytest.raises(UsageError, match="Bi-WOOF cuts maps into 20 x 20"):
        prepared_with(bi_woof.SPECS[0], {"blocks": "20"}, protocol="cde")
    with pytest.raises(UsageError, match=r"LBP-TOP reads grey clips.*whole-28:scaled"):
        prepared_with(lbp_top.SPECS[0], protocol="cde")
