"""How long a training will take on a CPU: from a few timed epochs, or for a large network by arithmetic."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mer_bench.errors import UsageError
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import MANIFEST
from mer_bench.runs.train import BUILD_LIMIT, Prepared, try_network
from mer_flow.work.executor import usable_cores
from mer_flow.work.plugins import contained

if TYPE_CHECKING:
    from torch import nn

    from mer_bench.recipe import Recipe

#: Forward and backward pass together, in forward passes.
_PASSES = 3.0
#: Seconds a step costs beside its arithmetic: the optimiser's and Python's share.
_PER_STEP = 2e-3
#: Seconds in which a worker process starts on an idle core: Python, PyTorch and this package are loaded.
_START = 5.0
#: An epoch that takes longer than this, in seconds, is not tried: its arithmetic tells enough.
_TRIED = 1.0
#: A training on a CPU above this, in seconds, is not begun without a yes.
LONG = 3600.0


def flops_per_sample(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Count the multiplications and additions of one forward pass over a map of shape `(C, H, W)`."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(network.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(2, *shape, device=device))
    return counter.get_total_flops() / 2


def cpu_rate() -> float:
    """Measure the operations per second of one thread, on convolutions of a small network's size."""
    import torch
    from torch.nn import functional as F

    maps, kernels = torch.ones(64, 16, 28, 28), torch.ones(16, 16, 3, 3)
    operations = 2 * 64 * 28 * 28 * 16 * 16 * 9
    with _one_thread(), torch.no_grad():
        F.conv2d(maps, kernels, padding=1)
        best = float("inf")
        for _ in range(3):
            begin = time.perf_counter()
            F.conv2d(maps, kernels, padding=1)
            best = min(best, time.perf_counter() - begin)
    return operations / best


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, as a fold is trained."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Enough(Exception):
    """Ends a training that was only to be timed."""


def timed_epoch(prepared: Prepared, epochs: int = 4) -> float | None:
    """Train a few epochs of a middling fold, as a worker would, and return the seconds of one.

    All that an epoch is counts: batches, optimiser, the record of the held-out samples. The first, in which
    libraries settle, is left out. None where it cannot be trained, which the training itself will tell.
    """
    from mer_bench.training.engines.local import train_fold
    from mer_bench.training.job import TrainingData

    folds = sorted(prepared.folds.folds, key=lambda fold: len(fold.train))
    ends: list[float] = []

    def tell(_: int) -> None:
        ends.append(time.perf_counter())
        if len(ends) > epochs:
            raise _Enough

    data = TrainingData(prepared.data.maps, prepared.data.population.labels)
    with _one_thread(), suppress(Exception), contained():
        train_fold(prepared.job, data, folds[len(folds) // 2], tell)
    return float(np.median(np.diff(ends))) if len(ends) > 1 else None


def crowding(workers: int) -> float:
    """Return how much slower each of several workers is than one alone, on a machine as busy as now."""
    cores, load = usable_cores(), os.getloadavg()[0]
    return max(cores, workers + load) / max(cores, 1 + load)


def startup(workers: int) -> float:
    """Return the seconds until several worker processes are ready, on a machine as busy as now."""
    return _START * max(1.0, (workers + os.getloadavg()[0]) / usable_cores()) if workers > 1 else 0.0


def estimate_seconds(prepared: Prepared, missing: int, rate: float) -> float | None:
    """Estimate how long the missing folds of a run will take on this CPU.

    Args:
        prepared: The run.
        missing: Folds to train, over all seeds.
        rate: Operations per second of one thread, as `cpu_rate` gives them.

    Returns:
        Seconds on a machine as busy as now, within a factor of two or so, of large networks of a few; None
            for a classifier, on another device, and where it cannot be told.
    """
    from mer_bench.training.device import resolve_device

    job, recipe = prepared.job, prepared.job.recipe
    if recipe is None or resolve_device(job.training.device) != "cpu":
        return None
    try:
        with contained():
            network = try_network(job.spec, job.options, prepared.data)
            flops = flops_per_sample(network, prepared.data.maps.shape[1:])
    except Exception:  # a stranger's network may run and not be counted; that is no reason to fail
        return None
    folds = prepared.folds.folds
    samples = sum(len(fold.train) for fold in folds) / len(folds)
    steps = -(-samples // recipe.batch_size)
    epoch = _PASSES * flops * samples / rate + steps * _PER_STEP
    if missing and epoch <= _TRIED:
        epoch = timed_epoch(prepared) or epoch
    workers = min(job.training.workers or usable_cores(), max(missing, 1))
    return startup(workers) + missing * recipe.epochs * epoch * crowding(workers) / workers


def missing_folds(prepared: Prepared, out: Path, limit: int | None = None) -> int:
    """Count the folds, over all seeds, that `execute` would train."""
    seeds, wanted = prepared.manifest.settings.seeds, prepared.folds.names[:limit]
    path = prepared.manifest.path(out)
    done = RunDirectory(path).status(seeds).done if (path / MANIFEST).exists() else {}
    return sum(name not in done.get(seed, ()) for seed in seeds for name in wanted)


def shorter(prepared: Prepared) -> str:
    """Name the model's smallest variant and the recipe of the fewest steps as options, and a GPU."""
    spec, manifest, recipe = prepared.job.spec, prepared.manifest, prepared.job.network_recipe
    smallest, shortest = _smallest(prepared), min(spec.recipes, key=lambda name: _steps(spec.recipes[name]))
    options = [f"--variant {smallest}"] if smallest != manifest.variant else []
    options += [f"--recipe {shortest}"] if _steps(spec.recipes[shortest]) < _steps(recipe) else []
    less = " ".join(options) or f"--set epochs={max(recipe.epochs // 10, 1)} (now {recipe.epochs})"
    return f"shorter: {less}, or a GPU (--device cuda)"


def _steps(recipe: Recipe) -> float:
    """Return the optimiser's steps per training sample; a small network's time goes with them."""
    return recipe.epochs / recipe.batch_size


def _smallest(prepared: Prepared) -> str:
    """Return the variant with the fewest parameters of those that can read the run's maps."""
    import torch

    spec, data, own = prepared.job.spec, prepared.data, prepared.manifest.variant
    channels, height, _ = data.maps.shape[1:]
    sizes = {own: prepared.manifest.parameters or 0}
    for name, options in spec.variants.items():
        if name in sizes:
            continue
        with suppress(Exception), contained(BUILD_LIMIT), torch.device("meta"):
            network = spec.build(
                num_classes=data.num_classes, in_channels=channels, map_size=height, **options
            )
            sizes[name] = sum(p.numel() for p in network.parameters())
    for name in sorted(sizes, key=sizes.__getitem__):
        with suppress(UsageError):
            if name != own:
                try_network(spec, spec.variants[name], data)
            return name
    return own
