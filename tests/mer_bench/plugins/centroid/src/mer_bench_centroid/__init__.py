"""Two models that mer-bench does not ship, as a third party would write them."""

from __future__ import annotations

import numpy as np

from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe


class NearestCentroid:
    """Predicts the class whose mean training map is nearest; scikit-learn's `fit` and `predict`."""

    def __init__(self, num_classes: int, shrink: float):
        self.num_classes, self.shrink = num_classes, shrink

    def fit(self, maps: np.ndarray, labels: np.ndarray) -> NearestCentroid:
        flat = maps.reshape(len(maps), -1)
        overall = flat.mean(0)
        self.means = np.full((self.num_classes, flat.shape[1]), np.inf)
        for label in np.unique(labels):
            mean = flat[labels == label].mean(0)
            self.means[label] = (1 - self.shrink) * mean + self.shrink * overall
        return self

    def predict(self, maps: np.ndarray) -> np.ndarray:
        flat = maps.reshape(len(maps), -1)
        return ((flat[:, None] - self.means[None]) ** 2).sum(2).argmin(1)


def build_centroid(
    num_classes: int, in_channels: int = 3, map_size: int = 28, shrink: float = 0.0
) -> NearestCentroid:
    return NearestCentroid(num_classes, shrink)


def build_linear(num_classes: int, in_channels: int = 3, map_size: int = 28, bias: bool = True):
    # Imported here, so that listing the models does not load torch.
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * map_size**2, num_classes, bias=bias))


SPECS = (
    ModelSpec(
        name="centroid",
        title="Nearest centroid",
        build=build_centroid,
        kind="classifier",
        views=("whole-28:scaled", "whole-28:minmax"),
        citation="A third party's example.",
        licence="Apache-2.0; no weights.",
        exactness="exact",
        variants={"default": {}, "shrunk": {"shrink": 0.3}},
    ),
    ModelSpec(
        name="linear",
        title="One linear layer",
        build=build_linear,
        kind="network",
        views=("whole-28:scaled", "whole-28:minmax"),
        recipes={"short": Recipe(name="short", epochs=5, batch_size=16, lr=0.01)},
        default_recipe="short",
        citation="A third party's example.",
        licence="Apache-2.0; no weights.",
        parameters=3 * 28 * 28 * 3 + 3,
        exactness="exact",
    ),
)
