"""Estimators by import path: found, fitted on pixels, refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import UsageError
from mer_bench.models.registry import Registry
from mer_bench.models.spelling import Entry, parse_entry
from mer_bench.runs.train import execute, prepare
from mer_bench.settings import gather


def prepared(store: Path, *sets: str, model: str = "sklearn.svm.SVC"):
    request = gather(None, ["protocol=cde", f"model={model}", *sets], {})
    return prepare(Registry().find(request.run.model), request, store)


def test_a_run_of_a_support_vector_machine_is_one_like_any_other(small_store: Path, tmp_path: Path) -> None:
    found = prepared(small_store, "options.C=10", "options.gamma=scale")
    manifest = found.manifest
    assert manifest.identity.model == "sklearn.svm.SVC"
    assert manifest.identity.options == {"C": 10, "gamma": "scale"}
    assert manifest.package.startswith("scikit-learn ")
    outcome = execute(found, tmp_path)
    assert outcome.status.complete and outcome.trained == len(found.folds)
    other = prepared(small_store, "options.C=1", "options.gamma=scale")
    assert other.manifest.digest != manifest.digest


def test_what_it_is_fitted_on_are_pixels_and_what_it_offers_is_offered() -> None:
    spec = Registry().get("sklearn.linear_model.LogisticRegression")
    model = pickle.loads(pickle.dumps(spec)).build(num_classes=3, in_channels=3, map_size=4, C=2.0)
    maps = np.random.default_rng(0).normal(size=(9, 3, 4, 4)).astype(np.float32)
    features = model.features(maps, "whole-4:raw")
    assert features.shape == (9, 48) and np.array_equal(features[0], maps[0].ravel())
    model.fit(features, np.arange(9) % 3)
    assert model.predict_proba(features).shape == (9, 3) and model.classes_.tolist() == [0, 1, 2]
    svc = Registry().get("sklearn.svm.SVC").build(num_classes=3, in_channels=3, map_size=4)
    assert hasattr(svc, "decision_function") and not hasattr(svc, "predict_proba")


def test_modules_may_be_set_off_by_a_colon() -> None:
    assert parse_entry("sklearn.svm:SVC") == Entry("sklearn.svm.SVC")
    assert parse_entry("ahmsa:tiny") == Entry("ahmsa", "tiny")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("sklearn.svm.SVCC", "unknown class or function of sklearn.svm 'SVCC'; did you mean 'SVC'"),
        (
            "no.such.Thing",
            r"'no\.such\.Thing': no\.such cannot be imported \(ModuleNotFoundError.*PYTHONPATH",
        ),
        ("ststnett", "did you mean 'ststnet'"),
    ],
)
def test_what_cannot_be_found_is_said(path: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Registry().find(path)


def test_what_is_no_classifier_and_unknown_options_are_refused(small_store: Path) -> None:
    with pytest.raises(UsageError, match="makes a StandardScaler, which has no predict"):
        prepared(small_store, model="sklearn.preprocessing.StandardScaler")
    with pytest.raises(UsageError, match=r"sklearn\.svm\.SVC.*CC"):
        prepared(small_store, "options.CC=10")
