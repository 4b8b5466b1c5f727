"""What every engine is told: the training to be done, its data, and who is told of the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mer_bench.errors import UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe
from mer_bench.settings import TrainingSettings
from mer_bench.training.result import FoldResult


@dataclass(frozen=True)
class Job:
    """One seed's training. It can be pickled where its model can.

    Attributes:
        spec: The model.
        options: Options of its builder.
        recipe: How to train; None for a classifier.
        training: Where and by which engine.
        classes: Names of the classes, in the order of the labels.
        protocol: The protocol's name; part of every fold's seed.
        seed: The run's seed.
        view: The input as `view:normalisation`, as in `whole-28:minmax-255`; a recipe with flips needs it, as
            how a mirrored u is stored depends on it. Empty where it is not known.
    """

    spec: ModelSpec
    options: Mapping[str, Any]
    recipe: Recipe | None
    training: TrainingSettings
    classes: tuple[str, ...]
    protocol: str
    seed: int
    view: str = ""

    @property
    def network_recipe(self) -> Recipe:
        """How to train a network.

        Raises:
            UsageError: There is no recipe.
        """
        if self.recipe is None:
            raise UsageError(f"model '{self.spec.name}' is a network, and cannot be trained without a recipe")
        return self.recipe

    @property
    def epochs(self) -> int:
        """Epochs a fold takes; a classifier is fitted in one."""
        return 1 if self.spec.kind == "classifier" else self.network_recipe.epochs

    def seed_of(self, fold: str) -> int:
        """Return the 63-bit seed of the fold of this name."""
        from mer_bench.training.seeding import fold_seed

        return fold_seed(self.seed, self.protocol, fold)


@dataclass(frozen=True)
class TrainingData:
    """A run's data, which the folds index.

    Attributes:
        maps: `(N, C, H, W)` float32; once prepared, `(N, D)` for a classifier that makes features of them.
        labels: `(N,)` int64 in `0 .. classes - 1`.
        map_shape: `(C, H, W)` of the maps that a classifier's input was made of; None before.
    """

    maps: np.ndarray
    labels: np.ndarray
    map_shape: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of the maps."""
        channels, height, width = self.map_shape or self.maps.shape[1:]
        return channels, height, width


class Sink(Protocol):
    """Who is told of the results, in the calling process."""

    def fold(self, result: FoldResult) -> None:
        """Take a fold's record, as soon as it is done. What this raises ends the run."""

    def progress(self, done: int, total: int) -> None:
        """Take how many fold-epochs are done, of how many."""
