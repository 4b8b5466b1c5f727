"""Features of a classifier: made once per sample of a run, before the first fold, and shared by every fold.

A classifier that has `features(maps, view)` is asked for them before it is fitted, one sample at a time: it
sees no label and no other sample, so nothing of a held-out sample can reach another's features. What it then
fits and predicts are rows of the `(N, D)` array.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from mer_bench.errors import MerBenchError, TrainingError, UsageError
from mer_bench.models.spec import ModelSpec
from mer_flow.work.plugins import contained
from mer_flow.work.progress import PLAIN_INTERVAL, duration

logger = logging.getLogger(__name__)


def build_classifier(
    spec: ModelSpec, options: Mapping[str, Any], num_classes: int, shape: tuple[int, ...]
) -> Any:
    """Build a classifier for maps of shape `(C, H, W)`; it is not fitted."""
    channels, height, _ = shape
    return spec.build(num_classes=num_classes, in_channels=channels, map_size=height, **options)


def classifier_features(
    spec: ModelSpec, options: Mapping[str, Any], num_classes: int, maps: np.ndarray, view: str
) -> np.ndarray:
    """Make what a classifier is fitted on.

    Args:
        spec: The model.
        options: Options of its builder.
        num_classes: How many classes.
        maps: `(N, C, H, W)` float32.
        view: The input as `view:normalisation`; empty where the caller does not know.

    Returns:
        `(N, D)` float32 features; the maps themselves for a classifier without a `features` step.

    Raises:
        UsageError: The model does not take this input.
        TrainingError: Its `features` fails, or gives a sample other features after it has seen the rest.
    """
    try:
        with contained():
            classifier = build_classifier(spec, options, num_classes, maps.shape[1:])
    except MerBenchError:
        raise
    except Exception as error:  # a plug-in may raise anything
        raise TrainingError(
            f"classifier '{spec.name}' with options {dict(options)} cannot be built for maps of shape "
            f"{maps.shape[1:]}: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(classifier, "features"):
        return maps
    begin = last = time.monotonic()
    first = _of_sample(classifier, spec, maps, 0, view)
    features = np.empty((len(maps), len(first)), np.float32)
    for i in range(len(maps)):
        row = first if i == 0 else _of_sample(classifier, spec, maps, i, view)
        if len(row) != features.shape[1]:
            raise TrainingError(
                f"classifier '{spec.name}': features gave {len(row)} values for sample {i} of the run's data "
                f"and {features.shape[1]} for sample 0; every sample needs the same"
            )
        features[i] = row
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL and i + 1 < len(maps):
            last = now
            left = (now - begin) / (i + 1) * (len(maps) - i - 1)
            logger.info("features of %d samples: %d done, %s left", len(maps), i + 1, duration(left))
    if not np.array_equal(_of_sample(classifier, spec, maps, 0, view), first):
        raise TrainingError(
            f"classifier '{spec.name}': features of sample 0 are others after the remaining samples than "
            "before; they must depend on nothing but the sample (no state, no chance), or held-out samples "
            "would leak into training"
        )
    logger.info("features of %d samples: %d values each, %.1f s", *features.shape, time.monotonic() - begin)
    return features


def try_classifier(
    spec: ModelSpec, options: Mapping[str, Any], num_classes: int, maps: np.ndarray, view: str
) -> None:
    """Build a classifier once and try its features on the first sample, before a run begins.

    Args:
        spec: The model.
        options: Options of its builder.
        num_classes: How many classes.
        maps: `(N, C, H, W)` float32.
        view: The input as `view:normalisation`.

    Raises:
        UsageError: It cannot be built with these options, or cannot read this input.
    """
    what = f"model '{spec.name}' with options {dict(options)} on maps {view} of shape {maps.shape[1:]}"
    try:
        with contained():
            classifier = build_classifier(spec, options, num_classes, maps.shape[1:])
        if hasattr(classifier, "features") and len(maps):
            _of_sample(classifier, spec, maps, 0, view)
    except UsageError:
        raise
    except Exception as error:  # whatever a stranger's classifier raises
        raise UsageError(f"{what} cannot be built or run: {error}") from error


def _of_sample(classifier: Any, spec: ModelSpec, maps: np.ndarray, index: int, view: str) -> np.ndarray:
    """Return `(D,)` float32, the features of one sample."""
    try:
        # A copy: nothing that it does to its sample may reach the run's data.
        with contained():
            row = np.asarray(classifier.features(maps[index : index + 1].copy(), view), np.float32)
    except MerBenchError:
        raise
    except Exception as error:  # a plug-in may raise anything
        raise TrainingError(
            f"classifier '{spec.name}': features of sample {index} of the run's data failed on maps of shape "
            f"{maps.shape[1:]}: {type(error).__name__}: {error}"
        ) from error
    if row.ndim != 2 or len(row) != 1 or not np.isfinite(row).all():
        bad = f"shape {row.shape}" if row.ndim != 2 or len(row) != 1 else "values that are not finite"
        raise TrainingError(
            f"classifier '{spec.name}': features of sample {index} of the run's data have {bad}; "
            "expected finite values of shape (1, D) for one sample"
        )
    return row[0]
