"""Checks of a classifier: what it predicts, alone and in company, and whether it repeats itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from mer_bench.conformance.network import TOLERANCE
from mer_bench.conformance.subject import Subject
from mer_bench.conformance.training import MEMORISED
from mer_bench.errors import ConformanceError
from mer_bench.training.features import build_classifier


def predicts_classes(subject: Subject) -> str:
    """Fitted, it gives one class per map, and probabilities that sum to one where it gives any."""
    inputs, fitted = subject.features[18:], _fitted(subject, slice(18))
    predicted = np.asarray(fitted.predict(inputs))
    if predicted.shape != (6,) or not np.isin(predicted, np.arange(subject.classes)).all():
        raise ConformanceError(
            f"predict gives {predicted!r} for 6 maps, expected classes 0 to {subject.classes - 1}"
        )
    if not hasattr(fitted, "predict_proba"):
        return "classes"
    chances = np.asarray(fitted.predict_proba(inputs))
    if chances.ndim != 2 or len(chances) != 6 or not np.allclose(chances.sum(1), 1, atol=1e-6):
        raise ConformanceError(
            f"predict_proba gives {chances.shape} with rows summing to {chances.sum(1).round(3)}"
        )
    return "classes and probabilities"


def fits(subject: Subject) -> str:
    """Fitted to 16 samples, it gets 15 of them right at least; a baseline need not."""
    predicted = np.asarray(_fitted(subject, slice(16)).predict(subject.features[:16]))
    right = int((predicted == subject.labels[:16]).sum())
    if right < MEMORISED and subject.spec.exactness != "baseline":
        raise ConformanceError(f"fitted to 16 samples of three clear classes, it gets {right} of them right")
    return f"{right} of 16"


def predicts_each_alone(subject: Subject) -> str:
    """A map's prediction does not depend on the maps that are predicted with it."""
    inputs, fitted = subject.features[18:], _fitted(subject, slice(18))
    together = _scores(fitted, inputs)
    alone = np.concatenate([_scores(fitted, one[None]) for one in inputs])
    mirrored = _scores(fitted, inputs[::-1])[::-1]
    for other, company in ((alone, "alone"), (mirrored, "in another order")):
        worst = float(np.abs(together - other).max())
        if worst > TOLERANCE:
            raise ConformanceError(
                f"predictions {company} differ by {worst:.1e}; compute features per sample"
            )
    return "alone and in another order"


def repeats_itself(subject: Subject) -> str:
    """Fitted twice to the same folds it predicts the same, through the bench's own engine."""
    first, again = (subject.train(subject.job()) for _ in range(2))
    for name, record in first.items():
        if not np.array_equal(record.logits, again[name].logits):
            raise ConformanceError(
                f"fold '{name}' is predicted otherwise the second time; draw from numpy's global generator, "
                "which the bench seeds per fold, or from a fixed random_state"
            )
    return f"{len(first)} folds"


def misses_a_class(subject: Subject) -> str:
    """Fitted without samples of a class it still predicts, and never that class."""
    predicted = np.asarray(_fitted(subject, subject.labels != 1).predict(subject.features))
    if (predicted == 1).any():
        raise ConformanceError("it predicts class 1 without having seen a sample of it")
    return "classes 0 and 2 of 3"


def describes_each_alone(subject: Subject) -> str:
    """Where it makes features, those of a map do not depend on the maps beside it, and repeat themselves."""
    classifier = _build(subject)
    if not hasattr(classifier, "features"):
        return "it makes none"
    job = subject.job()
    together = np.asarray(classifier.features(subject.data.maps[:4].copy(), job.view))
    # Made one by one, by another instance.
    alone = subject.features[:4]
    if together.shape != alone.shape or np.abs(together - alone).max() > TOLERANCE:
        raise ConformanceError("features of four maps together and one by one differ; make them per sample")
    return f"{alone.shape[1]:,} values"


def _build(subject: Subject) -> Any:
    return build_classifier(subject.spec, subject.options, subject.classes, subject.shape)


def _fitted(subject: Subject, rows: np.ndarray | slice) -> Any:
    classifier = _build(subject)
    classifier.fit(subject.features[rows], subject.labels[rows])
    return classifier


def _scores(fitted: Any, inputs: np.ndarray) -> np.ndarray:
    for name in ("predict_proba", "decision_function"):
        if hasattr(fitted, name):
            return np.asarray(getattr(fitted, name)(inputs))
    return np.asarray(fitted.predict(inputs), np.float64)
