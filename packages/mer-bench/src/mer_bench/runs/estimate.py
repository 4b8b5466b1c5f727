"""How long a training will take on a CPU, roughly, from its arithmetic alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mer_bench.runs.train import Prepared, try_network
from mer_flow.work.executor import usable_cores

if TYPE_CHECKING:
    from torch import nn

#: Forward and backward pass together, in forward passes.
_PASSES = 3.0
#: Seconds a step costs beside its arithmetic: the optimiser's and Python's share.
_PER_STEP = 2e-3


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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            F.conv2d(maps, kernels, padding=1)
            best = float("inf")
            for _ in range(3):
                begin = time.perf_counter()
                F.conv2d(maps, kernels, padding=1)
                best = min(best, time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)
    return operations / best


def estimate_seconds(prepared: Prepared, missing: int, rate: float) -> float | None:
    """Estimate how long the missing folds of a run will take on this CPU.

    Args:
        prepared: The run.
        missing: Folds to train, over all seeds.
        rate: Operations per second of one thread, as `cpu_rate` gives them.

    Returns:
        Seconds, within a factor of a few; None for a classifier, on another device, and where it cannot be
            told.
    """
    from mer_bench.training.device import resolve_device

    job, recipe = prepared.job, prepared.job.recipe
    if recipe is None or resolve_device(job.training.device) != "cpu":
        return None
    try:
        network = try_network(job.spec, job.options, prepared.data)
        flops = flops_per_sample(network, prepared.data.maps.shape[1:])
    except Exception:  # a stranger's network may run and not be counted; that is no reason to fail
        return None
    folds = prepared.folds.folds
    samples = sum(len(fold.train) for fold in folds) / len(folds)
    step_seconds = _PASSES * flops * samples / rate + _PER_STEP * -(-samples // recipe.batch_size)
    workers = min(job.training.workers or usable_cores(), max(missing, 1))
    return missing * recipe.epochs * step_seconds / workers
