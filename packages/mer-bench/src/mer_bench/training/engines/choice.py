"""Which engine a CPU should use: measured on real steps of the run at hand, not assumed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from mer_bench.protocols.folds import Fold
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.network import build_network, fold_generators
from mer_bench.training.plan import Plan
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.single import one_thread
from mer_bench.training.stacked_network import StackedNetwork
from mer_bench.training.stacked_samples import StackedSamples
from mer_bench.training.stacked_trainer import StackedTrainer
from mer_bench.training.trainer import FoldTrainer

logger = logging.getLogger(__name__)

# A worker process must import torch before it trains.
_STARTUP_SECONDS = 4.0
_TRIED_FOLDS = 4
_LONG_STEP = 2.0


def choose_cpu_engine(
    plan: Plan,
    maps: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    workers: int,
    stacking: bool = True,
) -> str:
    """Measure a step of the run in each engine and choose.

    Args:
        plan: The run's training, on a CPU.
        maps: `(N, C, H, W)` float32.
        labels: `(N,)` int64.
        folds: The folds.
        workers: Processes that `processes` would use.
        stacking: Whether `stacked` may be chosen.

    Returns:
        `serial` where everything is done before processes would have started, else the faster of `processes`
        (one step on one thread, shared by the workers) and `stacked` (a step of a few folds on every thread).
    """
    try:
        alone = _time_alone(plan, maps, labels, folds[0])
    except Exception as error:  # the folds meet it again, and say it with their names
        logger.warning("engine serial: a first step failed (%s: %s)", type(error).__name__, error)
        return "serial"
    steps = plan.epochs * sum(plan.recipe.steps_per_epoch(len(fold.train)) for fold in folds)
    if workers == 1 or alone * steps < _STARTUP_SECONDS:
        logger.info("engine serial: %d steps of %.1f ms on %d worker(s)", steps, 1e3 * alone, workers)
        return "serial"
    if not stacking:
        logger.info("engine processes: folds one at a time, as this run began")
        return "processes"
    spread = alone / workers
    if alone > _LONG_STEP:
        logger.info("engine processes: a step takes %.1f s alone, too long to try it stacked", alone)
        return "processes"
    try:
        stacked = _time_stacked(plan, maps, labels, folds[:_TRIED_FOLDS])
    except Exception as error:  # a plug-in's network may raise anything
        logger.warning("engine processes: model '%s' cannot be stacked (%s)", plan.spec.name, error)
        return "processes"
    chosen = "processes" if spread <= stacked else "stacked"
    logger.info(
        "engine %s: per fold and step, %d processes take %.2f ms, stacked folds %.2f ms",
        chosen, workers, 1e3 * spread, 1e3 * stacked,
    )  # fmt: skip
    return chosen


def _time_alone(plan: Plan, maps: np.ndarray, labels: np.ndarray, fold: Fold) -> float:
    device = torch.device("cpu")
    seed = plan.seed_of(fold)
    with one_thread("cpu"), fold_generators(seed, device):
        shape = (maps.shape[1], maps.shape[2], maps.shape[3])
        network = build_network(plan.spec, plan.options, plan.num_classes, shape, device, stacked=False)
        samples = TrainingSamples.of_fold(maps, labels, fold, plan.num_classes, device)
        trainer = FoldTrainer(
            network, samples, plan.recipe, seed, Augmenter.from_recipe(plan.recipe, plan.view)
        )
        rows = torch.arange(min(plan.recipe.batch_size, len(samples.labels)))
        return _time(lambda: trainer.step(rows))


def _time_stacked(plan: Plan, maps: np.ndarray, labels: np.ndarray, folds: Sequence[Fold]) -> float:
    device = torch.device("cpu")
    shape = (maps.shape[1], maps.shape[2], maps.shape[3])
    network = StackedNetwork(plan, [plan.seed_of(fold) for fold in folds], shape, device)
    samples = StackedSamples(
        torch.from_numpy(np.array(maps, np.float32)), torch.from_numpy(labels), folds, plan.num_classes
    )
    trainer = StackedTrainer(network, samples, plan.recipe, Augmenter.from_recipe(plan.recipe, plan.view))
    fewest = min(len(fold.train) for fold in folds)
    positions = torch.arange(min(plan.recipe.batch_size, fewest)).expand(len(folds), -1)
    return _time(lambda: trainer.step(positions)) / len(folds)


def _time(step: Callable[[], object]) -> float:
    """Seconds of one step: the least of a few, after a first that is left out unless it is long already."""
    taken = []
    for _ in range(4):
        begin = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begin)
        if taken[-1] > _LONG_STEP:
            return taken[-1]
    return min(taken[1:])
