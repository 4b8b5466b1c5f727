"""The majority class of the training fold: the floor under every score.

On the MEGC2019 composite it gives UF1 0.241 and UAR 0.333.
"""

from __future__ import annotations

import numpy as np

from mer_bench.models.spec import ModelSpec


class MajorityClass:
    """Predicts the most frequent training class; its probabilities are the training frequencies."""

    def __init__(self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28) -> None:
        self.num_classes = num_classes

    def fit(self, maps: np.ndarray, labels: np.ndarray) -> MajorityClass:
        """Count the classes of `(n,)` int64 labels; maps are not looked at."""
        counts = np.bincount(labels, minlength=self.num_classes)
        self.frequencies_ = counts / counts.sum()
        return self

    def predict(self, maps: np.ndarray) -> np.ndarray:
        """Predict the majority class for each of n maps, `(n,)` int64: the lowest among equals."""
        return np.full(len(maps), self.frequencies_.argmax(), np.int64)

    def predict_proba(self, maps: np.ndarray) -> np.ndarray:
        """Give the training frequencies for each of n maps, `(n, classes)` float64."""
        return np.tile(self.frequencies_, (len(maps), 1))


SPECS = (
    ModelSpec(
        name="majority",
        title="Majority class",
        build=MajorityClass,
        kind="classifier",
        views=("whole-28:minmax-255", "whole-28:minmax", "whole-28:scaled", "whole-28:raw"),
        citation="Baseline: the most frequent class of the training fold; it reads no map.",
        exactness="baseline",
        selects_on_test=False,
        licence="Nobody's code; there are no weights.",
    ),
)
