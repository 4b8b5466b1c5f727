"""What a check is given: a model, a variant small enough to train here, maps from the reference store."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mer_bench.errors import ConformanceError
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.protocols.splits import ProtocolOptions
from mer_bench.recipe import Recipe
from mer_bench.runs.data import BenchData, load_data
from mer_bench.training.demands import meet_recipe
from mer_bench.training.features import classifier_features
from mer_bench.training.network import build_network, fold_generators, training_output
from mer_bench.training.plan import Plan

CPU = torch.device("cpu")

#: Fields of a recipe that say how long and how fast, and not what is computed.
_SCALE = {
    *("name", "epochs", "batch_size", "shuffle", "amp", "clip_norm"),
    *("optimizer", "weight_decay", "momentum", "nesterov", "beta1", "beta2", "eps"),
    *("lr", "schedule", "final_lr", "step_epochs", "gamma", "warmup_epochs"),
}


class Subject:
    """One model under test, read, built and trained as a run does it.

    Args:
        spec: The model.
        store: A store made by `write_reference_store`.
        variant: The variant to build; None for the one with the fewest parameters.

    Attributes:
        spec: The model.
        store: The store.
    """

    def __init__(self, spec: ModelSpec, store: Path, variant: str | None = None) -> None:
        self.spec = spec
        self.store = store
        self._variant = variant
        self._data: dict[str, BenchData] = {}

    def of_variant(self, name: str) -> Subject:
        """Returns the same model with another variant to be trained; what was read is shared."""
        other = copy.copy(self)
        other.__dict__.pop("variant", None)
        other._variant = name
        return other

    def data_of(self, view: str) -> BenchData:
        """Reads one of the model's inputs.

        Args:
            view: As in `whole-28:scaled`.

        Returns:
            24 samples of three classes.

        Raises:
            UsageError: The view or its normalisation is unknown.
            DataError: The store cannot give it.
        """
        if view not in self._data:
            name, _, normalisation = view.partition(":")
            self._data[view] = load_data(
                self.store, self.spec, None, ProtocolOptions(), view=name, normalisation=normalisation
            )
        return self._data[view]

    @property
    def data(self) -> BenchData:
        """The input that the variant which is trained likes best."""
        return self.data_of(self.spec.inputs(self.variant)[0])

    @property
    def view(self) -> str:
        """Its name, as in `whole-28:scaled`."""
        return f"{self.data.view}:{self.data.normalisation}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one of its samples."""
        return self.shape_of(self.variant)

    def shape_of(self, variant: str) -> tuple[int, int, int]:
        """Returns `(C, H, W)` of a sample of the input that a variant likes best."""
        channels, height, width = self.data_of(self.spec.inputs(variant)[0]).maps.shape[1:]
        return channels, height, width

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Trainable parameters of every variant, with 3 classes, counted without memory.

        Raises:
            ConformanceError: A variant cannot be built on the meta device.
        """
        return {name: count_trainable(self.on_meta(name)) for name in self.spec.variants}

    @cached_property
    def features(self) -> np.ndarray:
        """What a classifier is fitted on: its features of every sample, or the maps where it makes none."""
        return classifier_features(self.spec, self.options, self.data.num_classes, self.data.maps, self.view)

    @cached_property
    def variant(self) -> str:
        """The variant that is trained: the one asked for, or that with the fewest parameters."""
        if self._variant is not None:
            return self._variant
        if self.spec.kind == "classifier":
            return self.spec.default_variant
        return min(self.sizes, key=lambda name: (self.sizes[name], name))

    @cached_property
    def ways_to_train(self) -> tuple[str, ...]:
        """The smallest variant of each way that the model's networks are called in training.

        A variant that is trained with labels or returns a penalty takes other paths through the engines than
        one that does not.

        Raises:
            ConformanceError: A variant cannot be built, or run in training, on the meta device.
        """
        smallest: dict[tuple[bool, bool], str] = {}
        for name in sorted(self.sizes, key=lambda name: (self.sizes[name], name)):
            network = self.on_meta(name).train()
            meet_recipe(network, self.recipe)
            maps, progress = (
                torch.zeros(4, *self.shape_of(name), device="meta"),
                torch.zeros((), device="meta"),
            )
            labels = torch.zeros(4, dtype=torch.int64, device="meta")
            try:
                with torch.no_grad():
                    output = training_output(network, maps, labels, progress)
            except Exception as error:  # a plug-in's network may raise anything
                raise ConformanceError(
                    f"variant '{name}' cannot run in training without memory (torch's meta device): "
                    f"{type(error).__name__}: {error}; nothing in forward may depend on a tensor's values, "
                    "or folds could not be stacked"
                ) from error
            way = (bool(getattr(network, "trains_with_labels", False)), isinstance(output, tuple))
            smallest.setdefault(way, name)
        return tuple(smallest.values())

    @property
    def options(self) -> dict[str, Any]:
        """The builder's options of the variant that is trained."""
        return dict(self.spec.variants[self.variant])

    @property
    def recipe(self) -> Recipe:
        """The model's own recipe at the scale of these samples; for a classifier one that nobody reads."""
        if self.spec.kind == "classifier":
            return Recipe(name="none", epochs=1)
        return self.recipe_named(self.spec.default_recipe)

    def recipe_named(self, name: str) -> Recipe:
        """Returns one of the model's recipes at that scale: two epochs of batches of 8, in full precision."""
        return self.spec.recipes[name].changed(epochs=2, batch_size=8, warmup_epochs=0, amp="off")

    @property
    def kinds_of_recipe(self) -> tuple[str, ...]:
        """One recipe of each kind, the default first: recipes that differ in rates and lengths are alike."""
        names = sorted(self.spec.recipes, key=lambda name: name != self.spec.default_recipe)
        kinds: dict[str, str] = {}
        for name in names:
            values = self.spec.recipes[name].record()
            kind = {key: value for key, value in values.items() if key not in _SCALE}
            kinds.setdefault(str(kind), name)
        return tuple(kinds.values())

    def on_meta(self, variant: str, num_classes: int = 3) -> nn.Module:
        """Builds a variant without memory.

        Args:
            variant: Its name.
            num_classes: Width of the logits.

        Returns:
            The network, on the meta device.

        Raises:
            ConformanceError: It cannot be built there.
        """
        channels, height, _ = self.shape_of(variant)
        options = dict(self.spec.variants[variant])
        try:
            with torch.device("meta"):
                network = self.spec.build(
                    num_classes=num_classes, in_channels=channels, map_size=height, **options
                )
        except Exception as error:  # a plug-in's builder may raise anything
            raise ConformanceError(
                f"variant '{variant}' cannot be built without memory (torch's meta device) for "
                f"{self.spec.inputs(variant)[0]}, "
                f"maps of {self.shape_of(variant)}: {type(error).__name__}: {error}; "
                "a builder may not need a tensor's values"
            ) from error
        if not isinstance(network, nn.Module):
            raise ConformanceError(
                f"the builder returned {type(network).__name__}, expected an nn.Module; "
                "or register it with kind='classifier'"
            )
        return network

    def build(self, seed: int = 0, num_classes: int = 3, stacked: bool = False) -> nn.Module:
        """Builds the trained variant as a fold does, its dropout drawing from the fold's own stream.

        Args:
            seed: The fold's seed.
            num_classes: Width of the logits.
            stacked: Whether it is going to be stacked.

        Returns:
            The network, in training mode.
        """
        with fold_generators(seed, CPU):
            network = build_network(self.spec, self.options, num_classes, self.shape, CPU, stacked)
        meet_recipe(network, self.recipe)
        return network

    def samples(self, count: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Picks samples of the preferred input.

        Args:
            count: How many, at most 24.
            seed: Decides which.

        Returns:
            Maps `(count, C, H, W)` float32 and labels `(count,)` int64, every class among them.
        """
        order = np.random.default_rng(seed).permutation(len(self.data.maps))
        # One of each class first, so that no pick lacks one.
        first = [int(order[self.data.population.labels[order] == k][0]) for k in range(self.data.num_classes)]
        rows = [*first, *(int(i) for i in order if i not in first)][:count]
        return torch.from_numpy(self.data.maps[rows]), torch.from_numpy(self.data.population.labels[rows])

    def folds(self) -> list[Fold]:
        """Two folds of unequal length: stacked batches are padded, and one fold leaves one sample over."""
        rows = np.arange(len(self.data.maps))
        return [Fold("first", rows[6:], rows[:6]), Fold("second", rows[:17], rows[17:])]

    def plan(self, recipe: Recipe | None = None, seed: int = 0) -> Plan:
        """Returns what an engine is told of the training."""
        return Plan(
            self.spec, self.options, self.data.num_classes, recipe or self.recipe, "conformance", seed,
            "cpu", self.view, False, classes=self.data.population.classes,
        )  # fmt: skip


def count_trainable(network: nn.Module) -> int:
    """Counts the values that an optimiser updates."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
