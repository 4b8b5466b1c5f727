"""What the tests of training share: small networks, data whose samples are named, one way to train them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.settings import TrainingSettings
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.folds import run_folds
from mer_bench.training.graphs import Graphs
from mer_bench.training.job import Job, TrainingData
from mer_bench.training.networks import StackedNetworks
from mer_bench.training.reading import Reading
from mer_bench.training.recorder import Recorder
from mer_bench.training.result import FoldResult
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.trainer import Trainer

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=3, batch_size=16, lr=0.003)
SIDE = 6
#: Both ways to train run the same float32 arithmetic with sums in another order; over the few steps taken in
#: these tests logits of size one stay within this.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


class Normed(nn.Module):
    """BN on maps and on features, with and without momentum, dropout as asked.

    No layer before a batch normalisation has a bias: its gradient is zero but for rounding, which Adam scales
    up to whole steps.
    """

    def __init__(self, num_classes: int, in_channels: int, map_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 5, 3, bias=False), nn.BatchNorm2d(5, momentum=None), nn.ReLU(),
            nn.Dropout2d(dropout), nn.Flatten(), nn.Linear(5 * (map_size - 2) ** 2, 8, bias=False),
            nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, num_classes),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        return self.body(maps)


class Dropping(Normed):
    """Drops half: every layer whose randomness or statistics could leak between folds."""

    def __init__(self, num_classes: int, in_channels: int, map_size: int) -> None:
        super().__init__(num_classes, in_channels, map_size, dropout=0.5)


class Poisoned(Normed):
    """Gives NaN in training once sample 0 is there, which folds s0 and s1 are trained without."""

    def forward(self, maps: Tensor) -> Tensor:
        poison = (maps[:, 0, 0, 0] == 0).any() & torch.tensor(self.training, device=maps.device)
        return super().forward(maps) * torch.where(poison, torch.nan, 1.0)


def as_spec(build: Callable[..., nn.Module]) -> ModelSpec:
    return ModelSpec(
        "small", "Small", build, "network", ("whole-6:raw",), "none", "baseline",
        recipes={"r": RECIPE}, default_recipe="r",
    )  # fmt: skip


def data(side: int = SIDE) -> tuple[TrainingData, list[Fold]]:
    """Subjects of 3, 5, 9, 1 and 22 samples: trainings of unequal length, and unequal steps per epoch.

    Sample k is named by its first pixel, k / 10; fold s1 has inner samples.
    """
    generator = np.random.default_rng(0)
    subjects = np.repeat(np.arange(5), [3, 5, 9, 1, 22])
    maps = generator.standard_normal((40, 3, side, side)).astype(np.float32)
    maps[:, 0, 0, 0] = np.arange(40, dtype=np.float32) / 10
    labels = generator.integers(0, 3, 40)
    folds = [Fold(f"s{k}", np.flatnonzero(subjects != k), np.flatnonzero(subjects == k)) for k in range(5)]
    folds[1] = replace(folds[1], train=folds[1].train[3:], inner=folds[1].train[:3])
    return TrainingData(maps, labels), folds


def job_of(
    model: ModelSpec | Callable[..., nn.Module],
    recipe: Recipe = RECIPE,
    options: dict[str, Any] | None = None,
    **training: Any,
) -> Job:
    """A job with three classes; `training` goes to the settings, with one worker on the CPU unless told."""
    spec = model if isinstance(model, ModelSpec) else as_spec(model)
    settings = TrainingSettings(**{"device": "cpu", "workers": 1, **training})
    return Job(spec, options or {}, recipe, settings, ("0", "1", "2"), "p", 0, "whole-6:raw")


class Kept(dict[str, FoldResult]):
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def fold(self, result: FoldResult) -> None:
        self[result.fold] = result

    def progress(self, done: int, total: int) -> None:
        self.calls.append((done, total))


def run(
    job: Job,
    folds: Sequence[Fold] | None = None,
    maps: np.ndarray | None = None,
    executor: Executor | None = None,
    sink: Any = None,
) -> Kept:
    """Train on `data()`, its maps replaced where some are given."""
    given, all_folds = data()
    kept = Kept() if sink is None else sink
    run_folds(
        job, replace(given, maps=given.maps if maps is None else maps), folds or all_folds, executor, kept
    )
    return kept


def assert_same(a: dict[str, FoldResult], b: dict[str, FoldResult]) -> None:
    """The same records to the last bit."""
    assert a.keys() == b.keys() and a
    for name in a:
        for field in (
            "logits", "inner_logits", "train_loss", "train_accuracy", "test_index", "inner_index", "seed",
        ):  # fmt: skip
            assert np.array_equal(getattr(a[name], field), getattr(b[name], field)), (name, field)


def assert_agree(a: dict[str, FoldResult], b: dict[str, FoldResult], **tolerance: float) -> None:
    """The same records, numbers within a tolerance."""
    assert a.keys() == b.keys() and a
    for name in a:
        for field in ("logits", "inner_logits", "train_loss"):
            ours, theirs = getattr(a[name], field), getattr(b[name], field)
            np.testing.assert_allclose(ours, theirs, **(tolerance or TOLERANCE))
        assert np.array_equal(a[name].test_index, b[name].test_index)
        # A sample or two may lie on the border.
        np.testing.assert_allclose(a[name].train_accuracy, b[name].train_accuracy, atol=0.12)


def stacked(job: Job, side: int = SIDE, graphs: Graphs | None = None) -> tuple[Trainer, Recorder]:
    """A trainer and a recorder of folds s1 and s2, of unequal size, with two steps per epoch each."""
    given, folds = data(side)
    folds = folds[1:3]
    recipe = job.network_recipe
    networks = StackedNetworks(job, [job.seed_of(f.name) for f in folds], (3, side, side), graphs)
    samples = TrainingSamples(given, folds, 3, networks)
    trainer = Trainer(networks, samples, recipe, Augmenter.from_recipe(recipe, job.view), graphs)
    reading = Reading.of_recipe(recipe, job.view, samples.counts)
    return trainer, Recorder(networks, given, folds, recipe.epochs, 3, graphs, reading)


def train(trainer: Trainer, recorder: Recorder, epochs: int) -> None:
    for _ in range(epochs):
        trainer.epoch()
        recorder.observe()
