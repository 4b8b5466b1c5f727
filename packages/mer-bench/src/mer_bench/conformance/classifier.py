"""Checks of a classifier: what it predicts, alone and in company, and whether it repeats itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from mer_bench.conformance.network import TOLERANCE
from mer_bench.conformance.subject import Subject
from mer_bench.conformance.training import MEMORISED, train
from mer_bench.errors import ConformanceError
from mer_bench.training.features import build_classifier


def predicts_classes(subject: Subject) -> str:
    """Fitted, it gives one class per map, and probabilities that sum to one where it gives any.

    Raises:
        ConformanceError: An output has another shape or range, or the two disagree.
    """
    inputs, labels = subject.features, subject.data.population.labels
    fitted = _fit(subject, inputs[:18], labels[:18])
    predicted = np.asarray(fitted.predict(inputs[18:]))
    if predicted.shape != (6,) or not np.isin(predicted, np.arange(subject.data.num_classes)).all():
        raise ConformanceError(
            f"predict gives {predicted!r} for 6 maps, expected classes 0 to {subject.data.num_classes - 1}"
        )
    if not hasattr(fitted, "predict_proba"):
        return "classes"
    chances = np.asarray(fitted.predict_proba(inputs[18:]))
    if chances.ndim != 2 or len(chances) != 6 or not np.allclose(chances.sum(1), 1, atol=1e-6):
        raise ConformanceError(
            f"predict_proba gives {chances.shape} with rows summing to {chances.sum(1).round(3)}"
        )
    return "classes and probabilities"


def fits(subject: Subject) -> str:
    """Fitted to 16 samples, it gets 15 of them right at least; a baseline need not.

    Raises:
        ConformanceError: It gets fewer.
    """
    inputs, labels = subject.features[:16], subject.data.population.labels[:16]
    right = int((np.asarray(_fit(subject, inputs, labels).predict(inputs)) == labels).sum())
    if right < MEMORISED and subject.spec.exactness != "baseline":
        raise ConformanceError(f"fitted to 16 samples of three clear classes, it gets {right} of them right")
    return f"{right} of 16"


def predicts_each_alone(subject: Subject) -> str:
    """A map's prediction does not depend on the maps that are predicted with it.

    Raises:
        ConformanceError: It does.
    """
    inputs, labels = subject.features, subject.data.population.labels
    fitted = _fit(subject, inputs[:18], labels[:18])
    together = _scores(fitted, inputs[18:])
    alone = np.concatenate([_scores(fitted, one[None]) for one in inputs[18:]])
    mirrored = _scores(fitted, inputs[:17:-1])[::-1]
    for other, company in ((alone, "alone"), (mirrored, "in another order")):
        worst = float(np.abs(together - other).max())
        if worst > TOLERANCE:
            raise ConformanceError(
                f"predictions {company} differ by {worst:.1e}; compute features per sample"
            )
    return "alone and in another order"


def repeats_itself(subject: Subject) -> str:
    """Fitted twice to the same folds it predicts the same, through the bench's own engine.

    Raises:
        ConformanceError: It does not; `random_state` or numpy's global generator has to be used.
    """
    first, again = (train(subject, subject.recipe, "serial", 0) for _ in range(2))
    for name, record in first.items():
        if not np.array_equal(record.logits, again[name].logits):
            raise ConformanceError(
                f"fold '{name}' is predicted otherwise the second time; draw from numpy's global generator, "
                "which the bench seeds per fold, or from a fixed random_state"
            )
    return f"{len(first)} folds"


def misses_a_class(subject: Subject) -> str:
    """Fitted without samples of a class it still predicts, and never that class.

    Raises:
        ConformanceError: It predicts the class that it never saw.
    """
    inputs, labels = subject.features, subject.data.population.labels
    seen = labels != 1
    predicted = np.asarray(_fit(subject, inputs[seen], labels[seen]).predict(inputs))
    if (predicted == 1).any():
        raise ConformanceError("it predicts class 1 without having seen a sample of it")
    return "classes 0 and 2 of 3"


def describes_each_alone(subject: Subject) -> str:
    """Where it makes features, those of a map do not depend on the maps beside it, and repeat themselves.

    Raises:
        ConformanceError: They do.
        TrainingError: They have another shape or are not finite.
    """
    classifier = _build(subject)
    if not hasattr(classifier, "features"):
        return "it makes none"
    maps = subject.data.maps[:4]
    together = np.asarray(classifier.features(maps.copy(), subject.view))
    # Made one by one, by another instance.
    alone = subject.features[:4]
    if together.shape != alone.shape or np.abs(together - alone).max() > TOLERANCE:
        raise ConformanceError("features of four maps together and one by one differ; make them per sample")
    return f"{alone.shape[1]:,} values"


def _build(subject: Subject) -> Any:
    return build_classifier(subject.spec, subject.options, subject.data.num_classes, subject.shape)


def _fit(subject: Subject, inputs: np.ndarray, labels: np.ndarray) -> Any:
    classifier = _build(subject)
    classifier.fit(inputs, labels)
    return classifier


def _scores(fitted: Any, inputs: np.ndarray) -> np.ndarray:
    for name in ("predict_proba", "decision_function"):
        if hasattr(fitted, name):
            return np.asarray(getattr(fitted, name)(inputs))
    return np.asarray(fitted.predict(inputs), np.float64)
