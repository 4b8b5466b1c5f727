"""Folds of a classifier (`fit`, `predict`): fitted once, recorded as one epoch.

What it is fitted on are maps, or the features it made of them (`training.features`), once for all folds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mer_bench.errors import TrainingError
from mer_bench.protocols.folds import Fold
from mer_bench.training.features import build_classifier
from mer_bench.training.job import Job, TrainingData
from mer_bench.training.recorder import Course, fold_result
from mer_bench.training.result import FoldResult
from mer_flow.work.plugins import contained

_SMALLEST = 1e-12


def fit_fold(job: Job, data: TrainingData, fold: Fold) -> FoldResult:
    """Fit a classifier on a fold's training samples, then predict the others.

    It is given maps unflattened, or the features made of them.

    Returns:
        The record; its logits are log probabilities where the classifier has `predict_proba`, else decision
        values where it has `decision_function`, else 1 for the predicted class and 0.

    Raises:
        TrainingError: The classifier fails or predicts what is no class.
    """
    begin = time.perf_counter()
    classes = len(job.classes)
    train_maps, train_labels = data.maps[fold.train], data.labels[fold.train]
    with _numpy_seed(job.seed_of(fold.name)):
        try:
            with contained():
                classifier = build_classifier(job.spec, job.options, classes, data.shape)
                classifier.fit(train_maps, train_labels)
                train = _scores(classifier, train_maps, classes)
                held_out = _scores(classifier, data.maps[fold.test], classes)
                inner = _scores(classifier, data.maps[fold.inner], classes)
        except Exception as error:  # a plug-in may raise anything; the other folds go on
            raise TrainingError(
                f"fold '{fold.name}': classifier '{job.spec.name}' with options {dict(job.options)} "
                f"failed on input of shape {train_maps.shape}: {type(error).__name__}: {error}; "
                "it must offer fit(X, y) and predict(X)"
            ) from error
    right = train.argmax(1) == train_labels
    log_p = train - np.logaddexp.reduce(train, axis=1, keepdims=True)
    course = Course(
        held_out[None],
        inner[None],
        np.array([-log_p[np.arange(len(train)), train_labels].mean()], np.float32),
        np.array([right.mean()], np.float32),
        time.perf_counter() - begin,
    )
    return fold_result(job, data, fold, "classifier", course)


def _scores(classifier: Any, maps: np.ndarray, num_classes: int) -> np.ndarray:
    scores = np.zeros((len(maps), num_classes), np.float32)
    if len(maps) == 0:
        return scores
    if hasattr(classifier, "predict_proba"):
        probabilities = np.asarray(classifier.predict_proba(maps), np.float64)
        # scikit-learn leaves out classes that it never saw.
        seen = np.asarray(getattr(classifier, "classes_", np.arange(probabilities.shape[1])), np.int64)
        scores[:] = np.log(_SMALLEST)
        scores[:, seen] = np.log(np.maximum(probabilities, _SMALLEST))
        return scores
    predicted = np.asarray(classifier.predict(maps))
    if predicted.shape != (len(maps),):
        raise ValueError(f"predict gave shape {predicted.shape} for {len(maps)} maps")
    predicted = predicted.astype(np.int64)
    rows = np.arange(len(maps))
    values = _decision_values(classifier, maps)
    if values is None:
        scores[rows, predicted] = 1.0
        return scores
    scores[:] = values.min(1, keepdims=True) + np.log(_SMALLEST)
    scores[:, np.asarray(classifier.classes_, np.int64)] = values
    # `predict` has the last word, as where decision values tie or pairs of classes vote.
    other = scores.argmax(1) != predicted
    scores[rows[other], predicted[other]] = np.nextafter(scores[other].max(1), np.float32(np.inf))
    return scores


def _decision_values(classifier: Any, maps: np.ndarray) -> np.ndarray | None:
    """Return `(n, classes seen)` float64, or None where the classifier gives no value per class."""
    if not hasattr(classifier, "decision_function") or not hasattr(classifier, "classes_"):
        return None
    values = np.asarray(classifier.decision_function(maps), np.float64)
    if values.ndim == 1 and len(classifier.classes_) == 2:
        values = np.stack([-values, values], axis=1) / 2
    return values if values.shape == (len(maps), len(classifier.classes_)) else None


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which estimators fall back on, and put it back."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)
