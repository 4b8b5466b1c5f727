"""Training on every sample at once, for a network to keep. Nothing is held out, so nothing can be scored."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from mer_bench.protocols.folds import Fold
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.device import device_of, torch_held
from mer_bench.training.failures import loss_error, named_failures
from mer_bench.training.job import Job, TrainingData
from mer_bench.training.network import build_network, fold_generators
from mer_bench.training.networks import OneNetwork
from mer_bench.training.samples import TrainingSamples, check_data
from mer_bench.training.trainer import Trainer
from mer_flow.work.executor import run_all

if TYPE_CHECKING:
    from mer_flow.work.cluster import OnDask


@dataclass(frozen=True)
class Trained:
    """A network and how its training ended.

    Attributes:
        network: On the job's device, in evaluation mode.
        train_loss: Mean over the samples of the last epoch, as they were trained on.
        train_accuracy: Of the same epoch, in [0, 1].
        seconds: Wall time.
    """

    network: nn.Module
    train_loss: float
    train_accuracy: float
    seconds: float


def train_whole_on(executor: OnDask, job: Job, data: TrainingData) -> Trained:
    """Train as `train_whole`, on a worker of a cluster; the network comes back on the CPU.

    Raises:
        WorkerError: Workers died over it twice.
    """
    train = functools.partial(_train_for, job)
    ((_, future),) = run_all(executor, train, [executor.share(data)])
    return future.result()


def _train_for(job: Job, data: TrainingData) -> Trained:
    trained = train_whole(job, data)
    return replace(trained, network=trained.network.cpu())


def train_whole(
    job: Job,
    data: TrainingData,
    on_epoch: Callable[[int, int], None] | None = None,
    fold: Fold | None = None,
) -> Trained:
    """Train one network on every sample, as a fold is trained, and hand it out.

    Args:
        job: The training; its model is a network.
        data: The samples.
        on_epoch: Called with (epochs done, their total).
        fold: Train on its samples alone, with its seed: the network that a run scored and did not keep.

    Returns:
        The network of the last epoch.

    Raises:
        DataError: Maps are not finite or labels out of range.
        TrainingError: The loss is not finite or the network fails.
    """
    recipe, classes = job.network_recipe, len(job.classes)
    check_data(data, classes, ())
    begin = time.perf_counter()
    everything = fold or Fold("all samples", np.arange(len(data.labels)), np.empty(0, np.int64))
    device, seed = device_of(job), job.seed_of(everything.name)
    with (
        torch_held(job),
        named_failures(job, everything.name, data.shape),
        fold_generators(seed, device),
    ):
        network = build_network(job.spec, job.options, classes, data.shape, device, stacked=False)
        networks = OneNetwork(network, seed, recipe)
        samples = TrainingSamples(data, [everything], classes, networks)
        trainer = Trainer(networks, samples, recipe, Augmenter.from_recipe(recipe, job.view))
        for epoch in range(1, recipe.epochs + 1):
            trainer.epoch()
            loss, accuracy = (float(values[-1, 0]) for values in trainer.history())
            if not np.isfinite(loss):
                raise loss_error(everything.name, epoch, loss, recipe)
            if on_epoch is not None:
                on_epoch(epoch, recipe.epochs)
        networks.adopt_average()
    return Trained(network.eval(), loss, accuracy, time.perf_counter() - begin)
