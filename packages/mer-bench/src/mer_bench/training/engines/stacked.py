"""Folds stacked along an axis and trained by one vmapped step: the way for a GPU."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor

from mer_bench.errors import MerBenchError, TrainingError
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.engines.graphs import GraphNotes, graph_pool, own_stream
from mer_bench.training.network import build_network, fold_generators
from mer_bench.training.plan import (
    FoldFailures,
    OnFold,
    OnProgress,
    Plan,
    fold_notes,
    is_out_of_memory,
    loss_error,
)
from mer_bench.training.precision import matrix_precision
from mer_bench.training.result import FoldResult
from mer_bench.training.single import determinism
from mer_bench.training.stacked_network import StackedNetwork, activation_bytes
from mer_bench.training.stacked_observer import StackedObserver
from mer_bench.training.stacked_samples import StackedSamples
from mer_bench.training.stacked_trainer import StackedTrainer

logger = logging.getLogger(__name__)

# Beside what the backward pass keeps: gradients of activations and the kernels' own workspace.
_ACTIVATION_FACTOR = 2.0

# Epochs between two looks at the losses. A look waits for the device, and lets it run dry for a moment.
_LOOK_EVERY = {"cpu": 1, "cuda": 25}


def run_stacked(
    plan: Plan,
    maps: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    chunk: int | None,
    on_fold: OnFold,
    on_progress: OnProgress | None,
) -> None:
    """Train folds in chunks, the folds of a chunk together.

    Args:
        plan: The run's training.
        maps: `(N, C, H, W)` float32; put on the device whole.
        labels: `(N,)` int64.
        folds: The folds.
        chunk: Most folds stacked at once; None for as many as memory holds.
        on_fold: Called with each fold's record when its chunk is done.
        on_progress: Called with epochs done over all folds, and their total.

    Raises:
        TrainingError: If folds failed, or the device cannot hold one of them; raised after the others were
            delivered.
    """
    failures = FoldFailures()
    device = torch.device(plan.device)
    on_device = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32)).to(device)
    labels_on_device = torch.from_numpy(labels).to(device)
    most = max(len(fold.train) for fold in folds)
    try:
        limit = chunk or fold_capacity(plan, on_device, most)
    except MerBenchError:
        raise
    except Exception as error:  # a plug-in's network may raise anything
        say = _memory_message if is_out_of_memory(error) else _failure_message
        raise TrainingError(say(plan, folds[0], error)) from error
    waiting = deque(chunks_of(folds, plan.recipe, limit))
    done, total = 0, len(folds) * plan.epochs
    halved: list[str] = []
    with determinism(plan.deterministic), matrix_precision(plan.precision, plan.device):
        while waiting:
            group = waiting.popleft()

            def report(epochs: int, group: Sequence[Fold] = group, done: int = done) -> None:
                if on_progress is not None:
                    on_progress(done + epochs * len(group), total)

            results: list[FoldResult] | None = None
            try:
                with own_stream(device):
                    results = _train_chunk(plan, on_device, labels_on_device, group, failures, halved, report)
            except MerBenchError:
                raise
            except Exception as error:  # a plug-in's network may raise anything
                if not is_out_of_memory(error):
                    raise TrainingError(_vmap_message(plan, group, error)) from error
                if len(group) == 1:
                    raise TrainingError(_memory_message(plan, group[0], error)) from error
            if results is None:
                # Only here is the error gone, and with it the chunk's tensors, which its frames held.
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                logger.warning("%d stacked folds do not fit on %s; halving the chunk", len(group), device)
                halved[:] = [f"{len(group)} stacked folds did not fit on {device}; the chunk was halved"]
                pieces = [chunks_of(chunk, plan.recipe, len(group) // 2) for chunk in (group, *waiting)]
                waiting = deque(chain.from_iterable(pieces))
                continue
            done += len(group) * plan.epochs
            for result in results:
                on_fold(result)
    failures.raise_if_any(len(folds))


def chunks_of(folds: Sequence[Fold], recipe: Recipe, limit: int) -> list[list[Fold]]:
    """Cut folds into chunks of even size, folds of a chunk taking the same number of steps per epoch.

    Args:
        folds: The folds.
        recipe: How to train.
        limit: Most folds in a chunk.

    Returns:
        The chunks, the longest trainings first.
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


def fold_capacity(plan: Plan, maps: Tensor, most_samples: int) -> int:
    """How many folds the device's free memory holds at once.

    Args:
        plan: The run's training.
        maps: `(N, C, H, W)` on the device.
        most_samples: Training samples of the largest fold.

    Returns:
        At least 1.
    """
    device = maps.device
    shape = (maps.shape[1], maps.shape[2], maps.shape[3])
    with fold_generators(0, device):
        network = build_network(plan.spec, plan.options, plan.num_classes, shape, device, stacked=True)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    batch = min(plan.recipe.batch_size, most_samples)
    # Weight, gradient and the optimiser's two moments; maps twice, as they are picked and augmented.
    need = 4 * weights + batch * (
        _ACTIVATION_FACTOR * activation_bytes(network, shape, device) + 2 * 4 * maps[0].numel()
    )
    del network
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free = 0.9 * torch.cuda.mem_get_info(device)[0]
    else:
        import psutil

        free = 0.5 * psutil.virtual_memory().available
    capacity = max(1, int(free / need))
    logger.info(
        "a stacked fold needs about %.0f MB; %.1f GB free on %s hold %d",
        need / 1e6,
        free / 1e9,
        device,
        capacity,
    )
    return capacity


def _train_chunk(
    plan: Plan,
    maps: Tensor,
    labels: Tensor,
    folds: list[Fold],
    failures: FoldFailures,
    noted: Sequence[str],
    on_epoch: Callable[[int], None],
) -> list[FoldResult]:
    begin = time.perf_counter()
    shape = (maps.shape[1], maps.shape[2], maps.shape[3])
    notes, pool = GraphNotes(), graph_pool(maps.device)
    network = StackedNetwork(plan, [plan.seed_of(fold) for fold in folds], shape, maps.device, notes)
    samples = StackedSamples(maps, labels, folds, plan.num_classes)
    augmenter = Augmenter.from_recipe(plan.recipe, plan.view)
    trainer = StackedTrainer(network, samples, plan.recipe, augmenter, notes, pool)
    observer = StackedObserver(network, maps, folds, plan.epochs, plan.num_classes, notes, pool)
    failed: dict[int, TrainingError] = {}
    for epoch in range(1, plan.epochs + 1):
        trainer.epoch()
        observer.observe()
        if epoch % _LOOK_EVERY[maps.device.type] and epoch != plan.epochs:
            continue
        losses, accuracies = trainer.history()
        for place, first in _first_bad(losses):
            # Its numbers stay its own: the other folds go on beside it.
            loss = float(losses[first, place])
            failed.setdefault(place, loss_error(folds[place].name, first + 1, loss, plan.recipe))
        if len(failed) == len(folds):
            break
        on_epoch(epoch)
    for place, error in failed.items():
        failures.add(folds[place].name, str(error))
    counts = samples.counts.cpu().numpy()
    seconds = (time.perf_counter() - begin) / len(folds)
    return [
        FoldResult(
            fold=fold.name,
            seed=plan.seed,
            test_index=np.asarray(fold.test, np.int64),
            logits=held_out,
            inner_index=np.asarray(fold.inner, np.int64),
            inner_logits=inner,
            train_loss=losses[:, place].copy(),
            train_accuracy=accuracies[:, place].copy(),
            seconds=seconds,
            engine="stacked",
            device=plan.device_name,
            notes=(*fold_notes(counts[place], plan.classes), *noted, *notes),
        )
        for place, (fold, (held_out, inner)) in enumerate(zip(folds, observer.logits(), strict=True))
        if place not in failed
    ]


def _first_bad(losses: np.ndarray) -> list[tuple[int, int]]:
    """Folds whose loss was not finite, each with the first epoch, from 0, that it happened in."""
    bad = ~np.isfinite(losses)
    return [(int(place), int(bad[:, place].argmax())) for place in np.flatnonzero(bad.any(0))]


def _vmap_message(plan: Plan, folds: Sequence[Fold], error: BaseException) -> str:
    return (
        f"fold '{folds[0].name}' and {len(folds) - 1} stacked with it: "
        f"model '{plan.spec.name}' failed under vmap: {type(error).__name__}: {error}; train with engine "
        "'serial' or 'processes', or rid the network of Python control flow that depends on values"
    )


def _failure_message(plan: Plan, fold: Fold, error: BaseException) -> str:
    return (
        f"fold '{fold.name}': model '{plan.spec.name}' with options {dict(plan.options)} failed in training: "
        f"{type(error).__name__}: {error}; check the model against the input view"
    )


def _memory_message(plan: Plan, fold: Fold, error: BaseException) -> str:
    return (
        f"fold '{fold.name}': {plan.device} cannot hold even one fold of model '{plan.spec.name}' ({error}); "
        f"lower batch_size (now {plan.recipe.batch_size}), choose a smaller variant, "
        "or train with device 'cpu'"
    )
