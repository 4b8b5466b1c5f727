"""Checks of training, through the engines that runs use: memorising, repeating, stacking."""

from __future__ import annotations

import time

import numpy as np
import torch

from mer_bench.conformance.subject import CPU, Subject
from mer_bench.errors import ConformanceError
from mer_bench.protocols.folds import Fold
from mer_bench.training.job import TrainingData
from mer_bench.training.network import build_network, fold_generators
from mer_bench.training.networks import OneNetwork
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.trainer import Trainer

#: Right predictions among 16 that count as memorised.
MEMORISED = 15
#: Learning rates tried in turn, each for so many steps, all within so many seconds of processor time.
RATES = (1e-3, 1e-2, 1e-4)
STEPS = 150
SECONDS = 120.0

#: Stacked and single training sum in another order; in two epochs that makes so much of what an epoch changes
#: in the logits, beside their rounding.
STACKED_TOLERANCE = 1e-3
TOLERANCE = 1e-6


def memorises(subject: Subject) -> str:
    """The trainer brings 16 samples to 15 right predictions at least, labels dealt at random.

    The loss is that of the model's recipe; optimiser and learning rate are AdamW's, as published rates are
    for hundreds of epochs.
    """
    begin, best, maps = time.process_time(), 0, subject.data.maps[:16]
    labels = np.random.default_rng(0).permutation(np.arange(16) % subject.classes)
    data, fold = TrainingData(maps, labels), Fold("sixteen", np.arange(16), np.arange(0))
    for rate in RATES:
        recipe = subject.recipe.changed(
            epochs=STEPS, batch_size=16, optimizer="adamw", lr=rate, schedule="constant", weight_decay=0.0,
            label_smoothing=0.0, flip=0.0, shift=0, noise=0.0, clip_norm=1.0, balanced=False, layer_decay=1.0,
            mixup=0.0, supcon=0.0, ema=0.0, gain=0.0,
        )  # fmt: skip
        with fold_generators(0, CPU):
            network = build_network(subject.spec, subject.options, subject.classes, subject.shape, CPU, False)
            networks = OneNetwork(network, 0, recipe)
            samples = TrainingSamples(data, [fold], subject.classes, networks)
            trainer = Trainer(networks, samples, recipe, None)
            for step in range(1, STEPS + 1):
                trainer.epoch()
                # Dropout keeps the accuracy in training low, so that of evaluation counts.
                if step % 10 == 0:
                    right = int(
                        (networks.predict(torch.from_numpy(maps[None]))[0].argmax(1).numpy() == labels).sum()
                    )
                    best = max(best, right)
                    if right >= MEMORISED:
                        loss = trainer.history()[0][-1, 0]
                        return f"{right} of 16 after {step} steps at {rate:g}, loss {loss:.2g}"
                if time.process_time() - begin > SECONDS:
                    break
    raise ConformanceError(
        f"variant '{subject.variant}' gets at most {best} of 16 training samples right, within {STEPS} steps "
        f"each at learning rates {', '.join(f'{rate:g}' for rate in RATES)} and {SECONDS:.0f} s of processor "
        "time; something keeps it from learning"
    )


def repeats_itself(subject: Subject) -> str:
    """The same seed gives the same logits to the last bit, epoch by epoch; another seed gives others."""
    first, again, other = (subject.train(subject.job(seed=seed)) for seed in (0, 0, 1))
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
    """An epoch of each recipe runs through the engine and leaves finite logits."""
    for name in subject.spec.recipes:
        for record in subject.train(subject.job(subject.recipe_named(name).changed(epochs=1))).values():
            if not np.isfinite(record.logits).all():
                raise ConformanceError(f"recipe '{name}': after an epoch logits are not finite")
    return ", ".join(subject.spec.recipes)


def trains_stacked(subject: Subject) -> str:
    """Folds trained at once agree with folds trained one by one, dropout and short batches included."""
    seen = []
    # Plain SGD stands in for the recipe's optimiser: Adam turns a gradient that is rounding alone, as that of
    # a bias before a batch normalisation, into whole steps.
    for kind in subject.kinds_of_recipe:
        recipe = subject.recipe_named(kind).changed(
            optimizer="sgd", momentum=0.0, lr=1e-2, schedule="constant", clip_norm=1.0, weight_decay=0.0
        )
        alone, stacked = (subject.train(subject.job(recipe, engine)) for engine in ("local", "stacked"))
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
