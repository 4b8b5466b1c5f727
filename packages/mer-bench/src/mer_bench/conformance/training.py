"""Checks of training, through the engines that runs use: memorising, repeating, stacking."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from mer_bench.conformance.subject import CPU, Subject
from mer_bench.errors import ConformanceError
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.folds import run_folds
from mer_bench.training.network import build_network, fold_generators
from mer_bench.training.plan import Plan
from mer_bench.training.result import FoldResult
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.trainer import FoldTrainer

#: Right predictions among 16 that count as memorised.
MEMORISED = 15
#: Learning rates tried in turn, each for so many steps, all within so many seconds of processor time.
RATES = (1e-3, 1e-2, 1e-4)
STEPS = 150
SECONDS = 120.0

#: Stacked and serial training sum in another order; in two epochs that makes so much of what an epoch changes
#: in the logits, beside their rounding.
STACKED_TOLERANCE = 1e-3
TOLERANCE = 1e-6


def memorises(subject: Subject) -> str:
    """The trainer brings 16 samples to 15 right predictions at least, labels dealt at random.

    The loss is that of the model's recipe; optimiser and learning rate are AdamW's, as published rates are
    for hundreds of epochs.

    Raises:
        ConformanceError: It does not, at any of three learning rates.
    """
    begin, best = time.process_time(), 0
    maps = subject.data.maps[:16]
    labels = np.random.default_rng(0).permutation(np.arange(16) % subject.data.num_classes)
    fold = Fold("sixteen", np.arange(16), np.empty(0, np.int64))
    for rate in RATES:
        recipe = replace(
            subject.recipe, epochs=STEPS, batch_size=16, optimizer="adamw", lr=rate, schedule="constant",
            weight_decay=0.0, label_smoothing=0.0, flip=0.0, shift=0, noise=0.0, clip_norm=1.0,
            balanced=False, layer_decay=1.0,
        )  # fmt: skip
        with fold_generators(0, CPU):
            network = build_network(
                subject.spec, subject.options, subject.data.num_classes, subject.shape, CPU, False
            )
            samples = TrainingSamples.of_fold(maps, labels, fold, subject.data.num_classes, CPU)
            trainer = FoldTrainer(network, samples, recipe, 0, None)
            for step in range(1, STEPS + 1):
                stats = trainer.epoch()
                # Dropout keeps the accuracy in training low, so that of evaluation counts.
                if step % 10 == 0:
                    network.eval()
                    with torch.no_grad():
                        right = int((network(samples.maps).argmax(1) == samples.labels).sum())
                    best = max(best, right)
                    if right >= MEMORISED:
                        return f"{right} of 16 after {step} steps at {rate:g}, loss {stats.loss:.2g}"
                if time.process_time() - begin > SECONDS:
                    break
    raise ConformanceError(
        f"variant '{subject.variant}' gets at most {best} of 16 training samples right, within {STEPS} steps "
        f"each at learning rates {', '.join(f'{rate:g}' for rate in RATES)} and {SECONDS:.0f} s of processor "
        "time; something keeps it from learning"
    )


def repeats_itself(subject: Subject) -> str:
    """The same seed gives the same logits to the last bit, epoch by epoch; another seed gives others.

    Raises:
        ConformanceError: It is not so.
    """
    first, again, other = (train(subject, subject.recipe, "serial", seed) for seed in (0, 0, 1))
    for name, record in first.items():
        if not np.array_equal(record.logits, again[name].logits):
            raise ConformanceError(
                f"fold '{name}': seed 0 gives other logits the second time; "
                "draw from no generator but torch's global one, and that on building alone"
            )
        if np.array_equal(record.logits, other[name].logits):
            raise ConformanceError(f"fold '{name}': seeds 0 and 1 give the same logits")
    return f"{len(first)} folds, {subject.recipe.epochs} epochs"


def every_recipe_trains(subject: Subject) -> str:
    """An epoch of each recipe runs through the engine and leaves finite logits.

    Raises:
        TrainingError: The network fails or its loss is not finite.
        ConformanceError: Logits are not finite.
    """
    for name in subject.spec.recipes:
        recipe = subject.recipe_named(name).changed(epochs=1)
        for record in train(subject, recipe, "serial", 0).values():
            if not np.isfinite(record.logits).all():
                raise ConformanceError(f"recipe '{name}': after an epoch logits are not finite")
    return ", ".join(subject.spec.recipes)


def trains_stacked(subject: Subject) -> str:
    """Folds trained at once agree with folds trained one by one, dropout and short batches included.

    Plain SGD stands in for the recipe's optimiser: Adam turns a gradient that is rounding alone, as that of a
    bias before a batch normalisation, into whole steps.

    Raises:
        ConformanceError: Logits differ by more than rounding.
    """
    seen = []
    for kind in subject.kinds_of_recipe:
        recipe = replace(
            subject.recipe_named(kind), optimizer="sgd", momentum=0.0, lr=1e-2, schedule="constant",
            clip_norm=1.0, weight_decay=0.0,
        )  # fmt: skip
        alone, stacked = (train(subject, recipe, engine, 0) for engine in ("serial", "stacked"))
        worst = 0.0
        for name, record in alone.items():
            moved = float(np.abs(record.logits[-1] - record.logits[0]).max())
            rounding = TOLERANCE * max(1.0, float(np.abs(record.logits).max()))
            apart = float(np.abs(record.logits - stacked[name].logits).max())
            worst = max(worst, apart / max(moved, 1e-12))
            if apart > STACKED_TOLERANCE * moved + rounding or moved == 0:
                raise ConformanceError(
                    f"recipe '{kind}', fold '{name}': trained stacked and alone, logits differ by "
                    f"{apart:.1e}, where an epoch moves them by {moved:.1e}"
                )
        seen.append(f"{kind} within {worst:.0e} of what an epoch changes")
    return ", ".join(seen)


def train(subject: Subject, recipe: Recipe, engine: str, seed: int) -> dict[str, FoldResult]:
    """Runs the subject's folds through the bench's own `run_folds`.

    Args:
        subject: The model.
        recipe: How to train.
        engine: As `run_folds` takes it.
        seed: The run's seed.

    Returns:
        The record of each fold.
    """
    plan: Plan = subject.plan(recipe, seed)
    records: dict[str, FoldResult] = {}
    run_folds(
        subject.spec, plan.options, subject.data.maps, subject.data.population.labels, plan.num_classes,
        subject.folds(), recipe, protocol=plan.protocol, seed=seed, device="cpu", engine=engine,
        view=plan.view, classes=plan.classes,
        on_fold=lambda record: records.__setitem__(record.fold, record),
    )  # fmt: skip
    return records
