"""Training on every sample at once, for a network to keep. Nothing is held out, so nothing can be scored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mer_bench.protocols.splits import Fold
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.network import build_network, fold_generators
from mer_bench.training.plan import Plan, loss_error
from mer_bench.training.precision import matrix_precision
from mer_bench.training.samples import TrainingSamples, check_data
from mer_bench.training.single import determinism, named_failures, one_thread
from mer_bench.training.trainer import FoldTrainer


@dataclass(frozen=True)
class Trained:
    """A network and how its training ended.

    Attributes:
        network: On the plan's device, in evaluation mode.
        train_loss: Mean over the samples of the last epoch, as they were trained on.
        train_accuracy: Likewise, in [0, 1].
        seconds: Wall time.
    """

    network: nn.Module
    train_loss: float
    train_accuracy: float
    seconds: float


def train_whole(
    plan: Plan, maps: np.ndarray, labels: np.ndarray, on_epoch: Callable[[int, int], None] | None = None
) -> Trained:
    """Train one network on every sample, as a fold is trained.

    Args:
        plan: The training; its model is a network.
        maps: `(N, C, H, W)` float32.
        labels: `(N,)` int64.
        on_epoch: Called with (epochs done, their total).

    Returns:
        The network of the last epoch.

    Raises:
        DataError: If maps are not finite or labels out of range.
        TrainingError: If the loss is not finite or the network fails.
    """
    check_data(maps, labels, plan.num_classes, ())
    begin = time.perf_counter()
    device = torch.device(plan.device)
    everything = Fold("all samples", np.arange(len(labels)), np.empty(0, np.int64))
    seed = plan.seed_of(everything)
    shape = (maps.shape[1], maps.shape[2], maps.shape[3])
    with (
        one_thread(plan.device),
        determinism(plan.deterministic),
        matrix_precision(plan.precision, plan.device),
        named_failures(plan, everything.name, shape),
        fold_generators(seed, device),
    ):
        network = build_network(plan.spec, plan.options, plan.num_classes, shape, device, stacked=False)
        samples = TrainingSamples.of_fold(maps, labels, everything, plan.num_classes, device)
        augmenter = Augmenter.from_recipe(plan.recipe, plan.view)
        trainer = FoldTrainer(network, samples, plan.recipe, seed, augmenter)
        for epoch in range(1, plan.epochs + 1):
            stats = trainer.epoch()
            if not np.isfinite(stats.loss):
                raise loss_error(everything.name, epoch, stats.loss, plan.recipe)
            if on_epoch is not None:
                on_epoch(epoch, plan.epochs)
    return Trained(network.eval(), stats.loss, stats.accuracy, time.perf_counter() - begin)
