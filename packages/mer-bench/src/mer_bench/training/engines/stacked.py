"""Folds stacked along an axis and trained by one vmapped step: the way for a GPU."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, pairwise

import torch

from mer_bench.errors import MerBenchError, TrainingError
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.device import device_of, torch_held
from mer_bench.training.engines.chunk import train_chunk
from mer_bench.training.engines.memory import fold_capacity
from mer_bench.training.failures import FoldFailures, is_out_of_memory
from mer_bench.training.graphs import Graphs, own_stream
from mer_bench.training.job import Job, Sink, TrainingData
from mer_bench.training.networks import StackedNetworks
from mer_bench.training.result import FoldResult
from mer_flow.work.plugins import contained

logger = logging.getLogger(__name__)


def run_stacked(job: Job, data: TrainingData, folds: Sequence[Fold], sink: Sink) -> None:
    """Train folds in chunks, the folds of a chunk together; the sink is told of a chunk when it is done.

    Raises:
        TrainingError: Folds failed, raised after the others were delivered; or the networks cannot be
            stacked, or the device cannot hold one of them.
    """
    failures = FoldFailures()
    device = device_of(job)
    try:
        with contained():
            limit = job.training.chunk or fold_capacity(job, data, max(len(fold.train) for fold in folds))
    except MerBenchError:
        raise
    except Exception as error:  # a plug-in's network may raise anything
        say = _memory_message if is_out_of_memory(error) else _failure_message
        raise TrainingError(say(job, folds[0], error)) from error
    waiting = deque(chunks_of(folds, job.network_recipe, limit))
    done, total = 0, len(folds) * job.epochs
    halved: list[str] = []
    with torch_held(job):
        while waiting:
            group = waiting.popleft()
            through = done

            def report(epochs: int, folds: int = len(group)) -> None:
                nonlocal through
                through += epochs * folds
                sink.progress(through, total)

            results = _train(job, data, group, halved, report)
            if results is None:
                # The error is gone by now, and with it the chunk's tensors, which its frames held.
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                logger.warning("%d stacked folds do not fit on %s; halving the chunk", len(group), device)
                halved[:] = [f"{len(group)} stacked folds did not fit on {device}; the chunk was halved"]
                pieces = [
                    chunks_of(chunk, job.network_recipe, len(group) // 2) for chunk in (group, *waiting)
                ]
                waiting = deque(chain.from_iterable(pieces))
                continue
            for result in results[0]:
                sink.fold(result)
            for name, message in results[1].items():
                failures.add(name, message)
            done += len(group) * job.epochs
            sink.progress(done, total)
    failures.raise_if_any(len(folds))


def _train(
    job: Job, data: TrainingData, group: Sequence[Fold], notes: Sequence[str], on_epoch: Callable[[int], None]
) -> tuple[list[FoldResult], dict[str, str]] | None:
    """Train a chunk; return None where it is too large for the device."""
    device = device_of(job)
    try:
        with contained(), own_stream(device):
            graphs = Graphs(capture=device.type == "cuda")
            graphs.notes += notes
            seeds = [job.seed_of(fold.name) for fold in group]
            networks = StackedNetworks(job, seeds, data.shape, graphs)
            return train_chunk(job, data, group, networks, on_epoch, graphs)
    except MerBenchError:
        raise
    except Exception as error:  # a plug-in's network may raise anything
        if not is_out_of_memory(error):
            raise TrainingError(_vmap_message(job, group, error)) from error
        if len(group) == 1:
            raise TrainingError(_memory_message(job, group[0], error)) from error
        return None


def chunks_of(folds: Sequence[Fold], recipe: Recipe, limit: int) -> list[list[Fold]]:
    """Cut folds into chunks of even size, none above a limit, the longest trainings first.

    The folds of a chunk take the same number of steps per epoch.
    """
    by_steps: dict[int, list[Fold]] = {}
    for fold in folds:
        by_steps.setdefault(recipe.steps_per_epoch(len(fold.train)), []).append(fold)
    chunks = []
    for steps in sorted(by_steps, reverse=True):
        group = by_steps[steps]
        pieces = -(-len(group) // max(1, limit))
        bounds = [round(i * len(group) / pieces) for i in range(pieces + 1)]
        chunks += [group[a:b] for a, b in pairwise(bounds)]
    return chunks


def _vmap_message(job: Job, folds: Sequence[Fold], error: BaseException) -> str:
    return (
        f"fold '{folds[0].name}' and {len(folds) - 1} stacked with it: "
        f"model '{job.spec.name}' failed under vmap: {type(error).__name__}: {error}; train with engine "
        "'local', or rid the network of Python control flow that depends on values"
    )


def _failure_message(job: Job, fold: Fold, error: BaseException) -> str:
    return (
        f"fold '{fold.name}': model '{job.spec.name}' with options {dict(job.options)} failed in training: "
        f"{type(error).__name__}: {error}; check the model against the input view"
    )


def _memory_message(job: Job, fold: Fold, error: BaseException) -> str:
    return (
        f"fold '{fold.name}': {device_of(job)} cannot hold even one fold of model '{job.spec.name}' "
        f"({error}); lower batch_size (now {job.network_recipe.batch_size}), choose a smaller variant, "
        "or train with device 'cpu'"
    )
