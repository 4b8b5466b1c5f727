"""A small stacked training for the tests of the engine."""

import numpy as np
import torch
from torch import nn

from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.folds import run_folds
from mer_bench.training.plan import Plan
from mer_bench.training.stacked_network import StackedNetwork
from mer_bench.training.stacked_observer import StackedObserver
from mer_bench.training.stacked_samples import StackedSamples
from mer_bench.training.stacked_trainer import StackedTrainer

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, batch_size=20, lr=0.003)


class Normed(nn.Module):
    """Batch normalisation and dropout: the layers that keep a state or draw."""

    def __init__(self, num_classes, in_channels, map_size):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
            nn.Flatten(), nn.Linear(4 * (map_size - 2) ** 2, num_classes),
        )  # fmt: skip

    def forward(self, maps):
        return self.body(maps)


def as_spec(build, recipe=RECIPE):
    return ModelSpec(
        "normed", "Normed", build, "network", ("whole-6:raw",), "none", "baseline",
        recipes={"r": recipe}, default_recipe="r",
    )  # fmt: skip


def make(recipe=RECIPE, spec=None, options=None, side=6, compiled=False, notes=None):
    """A trainer and an observer of two folds of unequal size, with two steps per epoch each."""
    generator = np.random.default_rng(0)
    subjects = np.repeat(np.arange(3), [3, 9, 28])
    maps = torch.from_numpy(generator.standard_normal((40, 3, side, side)).astype(np.float32))
    labels = torch.from_numpy(generator.integers(0, 3, 40))
    folds = [Fold(f"s{k}", np.flatnonzero(subjects != k), np.flatnonzero(subjects == k)) for k in range(2)]
    plan = Plan(
        spec or as_spec(Normed), options or {}, 3, recipe, "p", 0, "cpu", "whole-6:raw", False,
        compiled=compiled,
    )  # fmt: skip
    network = StackedNetwork(plan, [plan.seed_of(f) for f in folds], (3, side, side), CPU, notes)
    samples = StackedSamples(maps, labels, folds, 3)
    augmenter = Augmenter.from_recipe(recipe, "whole-6:raw")
    trainer = StackedTrainer(network, samples, recipe, augmenter, notes, on_device=True)
    return trainer, StackedObserver(network, maps, folds, recipe.epochs, 3)


def assert_stacked_agrees(spec, options, recipe, maps, count=2):
    """Some folds of a model, each trained alone and all stacked, record the same logits."""
    labels, owner = (np.arange(len(maps)) % 3).astype(np.int64), np.arange(len(maps)) % 5
    folds = [Fold(f"s{k}", np.flatnonzero(owner != k), np.flatnonzero(owner == k)) for k in range(count)]
    records = {"serial": {}, "stacked": {}}
    for engine, found in records.items():
        run_folds(
            spec, options, maps, labels, 3, folds, recipe, protocol="p", seed=0, device="cpu", engine=engine,
            on_fold=lambda r, found=found: found.__setitem__(r.fold, r.logits),
        )  # fmt: skip
    assert len(records["serial"]) == count
    for name, logits in records["serial"].items():
        np.testing.assert_allclose(records["stacked"][name], logits, rtol=1e-4, atol=1e-4)


def train(trainer, observer, epochs):
    for _ in range(epochs):
        trainer.epoch()
        observer.observe()
