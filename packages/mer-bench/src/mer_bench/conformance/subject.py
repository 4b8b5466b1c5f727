"""What a check is given: a model, a variant small enough to train here, maps from the reference store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mer_bench.errors import ConformanceError
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.runs.data import BenchData, load_data
from mer_bench.settings import RunSettings, TrainingSettings
from mer_bench.training.demands import meet_recipe
from mer_bench.training.folds import prepare_data, run_folds
from mer_bench.training.job import Job, TrainingData
from mer_bench.training.network import build_network, fold_generators, training_output
from mer_bench.training.result import FoldResult

CPU = torch.device("cpu")

#: Fields of a recipe that say how long and how fast, and not what is computed.
_SCALE = {
    *("name", "epochs", "batch_size", "shuffle", "amp", "clip_norm", "prior"),
    *("optimizer", "weight_decay", "momentum", "nesterov", "beta1", "beta2", "eps"),
    *("lr", "schedule", "final_lr", "step_epochs", "gamma", "warmup_epochs"),
}


class Subject:
    """One model under test, read, built and trained as a run does it.

    Args:
        spec: The model.
        store: A store made by `write_reference_store`.
        variant: The variant to train; None for the one with the fewest parameters.
    """

    def __init__(self, spec: ModelSpec, store: Path, variant: str | None = None) -> None:
        self.spec = spec
        self.store = store
        self._variant = variant
        self._data: dict[str, BenchData] = {}

    def of_variant(self, name: str) -> Subject:
        """Return the same model with another variant to be trained; what was read is shared."""
        other = Subject(self.spec, self.store, name)
        other._data = self._data
        return other

    def data_of(self, view: str) -> BenchData:
        """Read 24 samples of three classes through an input, as in `whole-28:scaled`.

        Raises:
            UsageError: The view or its normalisation is unknown.
            DataError: The store cannot give it.
        """
        if view not in self._data:
            name, _, normalisation = view.partition(":")
            run = RunSettings(view=name, normalisation=normalisation)
            self._data[view] = load_data(self.store, self.spec, run)
        return self._data[view]

    @property
    def data(self) -> BenchData:
        """The input that the variant which is trained likes best."""
        return self.data_of(self.spec.inputs(self.variant)[0])

    @property
    def labels(self) -> np.ndarray:
        """`(24,)` int64."""
        return self.data.population.labels

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.data.num_classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one sample."""
        return self.shape_of(self.variant)

    def shape_of(self, variant: str) -> tuple[int, int, int]:
        """Return `(C, H, W)` of a sample of the input that a variant likes best."""
        channels, height, width = self.data_of(self.spec.inputs(variant)[0]).maps.shape[1:]
        return channels, height, width

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Trainable parameters of every variant, with 3 classes, counted without memory."""
        return {name: count_trainable(self.on_meta(name)) for name in self.spec.variants}

    @cached_property
    def features(self) -> np.ndarray:
        """What a classifier is fitted on: its features of every sample, or the maps where it makes none."""
        return prepare_data(self.job(), TrainingData(self.data.maps, self.labels)).maps

    @cached_property
    def variant(self) -> str:
        """The variant that is trained: the one asked for, or that with the fewest parameters."""
        if self._variant is not None:
            return self._variant
        return self.spec.default_variant if self.spec.kind == "classifier" else self._by_size[0]

    @property
    def _by_size(self) -> list[str]:
        return sorted(self.sizes, key=lambda name: (self.sizes[name], name))

    @cached_property
    def ways_to_train(self) -> tuple[str, ...]:
        """The smallest variant of each way that the model's networks are called in training.

        A variant that is trained with labels or returns a penalty takes other paths through the engines than
        one that does not.
        """
        smallest: dict[tuple[bool, bool], str] = {}
        for name in self._by_size:
            network = self.on_meta(name).train()
            meet_recipe(network, self.recipe)
            try:
                with torch.no_grad(), torch.device("meta"):
                    labels = torch.zeros(4, dtype=torch.int64)
                    maps = torch.zeros(4, *self.shape_of(name))
                    output = training_output(network, maps, labels, torch.zeros(()))
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
        """The network's own recipe at the scale of these samples."""
        return self.recipe_named(self.spec.default_recipe)

    def recipe_named(self, name: str) -> Recipe:
        """Return one of the model's recipes at that scale: two epochs of batches of 8, in full precision."""
        return self.spec.recipes[name].changed(epochs=2, batch_size=8, warmup_epochs=0, amp="off")

    @property
    def kinds_of_recipe(self) -> tuple[str, ...]:
        """One recipe of each kind, the default first: recipes that differ in rates and lengths are alike."""
        kinds: dict[str, str] = {}
        for name in sorted(self.spec.recipes, key=lambda name: name != self.spec.default_recipe):
            kinds.setdefault(str(self.spec.recipes[name].model_dump(exclude=_SCALE)), name)
        return tuple(kinds.values())

    def on_meta(self, variant: str) -> nn.Module:
        """Build a variant for 3 classes without memory, on torch's meta device.

        Raises:
            ConformanceError: It cannot be built there.
        """
        channels, height, _ = self.shape_of(variant)
        options = self.spec.variants[variant]
        try:
            with torch.device("meta"):
                network = self.spec.build(num_classes=3, in_channels=channels, map_size=height, **options)
        except Exception as error:  # a plug-in's builder may raise anything
            raise ConformanceError(
                f"variant '{variant}' cannot be built without memory (torch's meta device) for "
                f"{self.spec.inputs(variant)[0]}, maps of {self.shape_of(variant)}: "
                f"{type(error).__name__}: {error}; a builder may not need a tensor's values"
            ) from error
        if not isinstance(network, nn.Module):
            raise ConformanceError(
                f"the builder returned {type(network).__name__}, expected an nn.Module; "
                "or register it with kind='classifier'"
            )
        return network

    def build(self, seed: int = 0, num_classes: int = 3) -> nn.Module:
        """Build the trained variant as a fold does, its dropout drawing from the fold's own stream."""
        with fold_generators(seed, CPU):
            network = build_network(self.spec, self.options, num_classes, self.shape, CPU, stacked=False)
        meet_recipe(network, self.recipe)
        return network

    def samples(self, count: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Pick maps `(count, C, H, W)` float32 and labels `(count,)` int64, every class among them."""
        order = np.random.default_rng(seed).permutation(len(self.labels))
        # One of each class first, so that no pick lacks one.
        first = [order[self.labels[order] == k][0] for k in range(self.classes)]
        rows = np.array([*first, *(i for i in order if i not in first)])[:count]
        return torch.from_numpy(self.data.maps[rows]), torch.from_numpy(self.labels[rows])

    def job(
        self, recipe: Recipe | None = None, engine: Literal["local", "stacked"] = "local", seed: int = 0
    ) -> Job:
        """Return what an engine is told of the training, in this process."""
        if recipe is None and self.spec.kind == "network":
            recipe = self.recipe
        training = TrainingSettings(device="cpu", engine=engine, workers=1)
        classes, view = self.data.population.classes, self.data.input
        return Job(self.spec, self.options, recipe, training, classes, "conformance", seed, view)

    def train(self, job: Job) -> dict[str, FoldResult]:
        """Return the records of two folds, trained through the bench's own `run_folds`.

        They are of unequal length, so that stacked batches are padded and one fold leaves one sample over.
        """
        rows, kept = np.arange(len(self.labels)), _Kept()
        folds = [Fold("first", rows[6:], rows[:6]), Fold("second", rows[:17], rows[17:])]
        run_folds(job, TrainingData(self.data.maps, self.labels), folds, None, kept)
        return kept.records


class _Kept:
    """A sink that keeps the records."""

    def __init__(self) -> None:
        self.records: dict[str, FoldResult] = {}

    def fold(self, result: FoldResult) -> None:
        self.records[result.fold] = result

    def progress(self, done: int, total: int) -> None:
        pass


def count_trainable(network: nn.Module) -> int:
    """Count the values that an optimiser updates."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
