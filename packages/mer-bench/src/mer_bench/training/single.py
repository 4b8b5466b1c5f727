"""One fold by itself: trainer on one side, observer on the other.

The network is handed across after each epoch, and nothing is handed back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from mer_bench.errors import MerBenchError, TrainingError
from mer_bench.protocols.folds import Fold
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.classifier import fit_fold
from mer_bench.training.network import build_network, fold_generators
from mer_bench.training.observer import Observer
from mer_bench.training.plan import Plan, fold_notes, is_out_of_memory, loss_error
from mer_bench.training.result import FoldResult
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.trainer import FoldTrainer


def train_fold(
    plan: Plan, maps: np.ndarray, labels: np.ndarray, fold: Fold, engine: str, on_epoch: Callable[[int], None]
) -> FoldResult:
    """Train one fold and record what it says of its held-out samples.

    Args:
        plan: The run's training.
        maps: `(N, C, H, W)` float32.
        labels: `(N,)` int64.
        fold: The fold.
        engine: What the result names as its engine.
        on_epoch: Called with the number of epochs done, after each.

    Returns:
        The fold's record.

    Raises:
        TrainingError: If the loss is not finite or the network fails; the message names fold, epoch and
            remedy.
    """
    if plan.spec.kind == "classifier":
        result = fit_fold(plan, maps, labels, fold)
        on_epoch(1)
        return result
    shape = (maps.shape[1], maps.shape[2], maps.shape[3])
    with (
        named_failures(plan, fold.name, shape),
        fold_generators(plan.seed_of(fold), torch.device(plan.device)),
    ):
        return _train_network(plan, maps, labels, fold, engine, on_epoch)


@contextmanager
def named_failures(plan: Plan, fold: str, shape: tuple[int, int, int]) -> Iterator[None]:
    """Turn whatever a network raises in training into an error that names fold, cause and remedy.

    Args:
        plan: The training.
        fold: The fold's name.
        shape: `(C, H, W)` of the maps.

    Yields:
        Nothing.

    Raises:
        TrainingError: In place of any error that is not ours.
    """
    try:
        yield
    except (MerBenchError, BrokenPipeError, ConnectionResetError):
        # A broken pipe is a worker's to its parent: nobody waits for the result.
        raise
    except Exception as error:  # a plug-in's network may raise anything; the other folds go on
        if is_out_of_memory(error):
            raise TrainingError(
                f"fold '{fold}': {plan.device} ran out of memory ({error}); lower batch_size (now "
                f"{plan.recipe.batch_size}), choose a smaller variant, use fewer workers, or another device"
            ) from error
        raise TrainingError(
            f"fold '{fold}': model '{plan.spec.name}' with options {dict(plan.options)} "
            f"failed on batches of up to {plan.recipe.batch_size} maps of shape {shape}: "
            f"{type(error).__name__}: {error}; check the model against the input view"
        ) from error


def _train_network(
    plan: Plan, maps: np.ndarray, labels: np.ndarray, fold: Fold, engine: str, on_epoch: Callable[[int], None]
) -> FoldResult:
    begin = time.perf_counter()
    device = torch.device(plan.device)
    shape = (maps.shape[1], maps.shape[2], maps.shape[3])
    network = build_network(plan.spec, plan.options, plan.num_classes, shape, device, stacked=False)
    samples = TrainingSamples.of_fold(maps, labels, fold, plan.num_classes, device)
    augmenter = Augmenter.from_recipe(plan.recipe, plan.view)
    trainer = FoldTrainer(network, samples, plan.recipe, plan.seed_of(fold), augmenter)
    observer = Observer(maps, fold, plan.epochs, plan.num_classes, device)
    losses, accuracies = np.zeros(plan.epochs, np.float32), np.zeros(plan.epochs, np.float32)
    for epoch in range(plan.epochs):
        stats = trainer.epoch()
        losses[epoch], accuracies[epoch] = stats.loss, stats.accuracy
        if not np.isfinite(stats.loss):
            raise loss_error(fold.name, epoch + 1, stats.loss, plan.recipe)
        observer.observe(network)
        on_epoch(epoch + 1)
    held_out, inner = observer.logits()
    return FoldResult(
        fold=fold.name,
        seed=plan.seed,
        test_index=np.asarray(fold.test, np.int64),
        logits=held_out,
        inner_index=np.asarray(fold.inner, np.int64),
        inner_logits=inner,
        train_loss=losses,
        train_accuracy=accuracies,
        seconds=time.perf_counter() - begin,
        engine=engine,
        device=plan.device_name,
        notes=fold_notes(samples.counts.cpu().numpy(), plan.classes),
    )


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Let torch use one thread, so that a fold's sums are added in the same order everywhere.

    Args:
        device: Nothing is changed unless it is `cpu`.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Hold torch to deterministic algorithms, and let go afterwards.

    Args:
        wanted: Nothing is changed unless it is true.

    Yields:
        Nothing.
    """
    if not wanted:
        yield
        return
    # cuBLAS repeats itself only with a workspace of fixed size, and reads this once.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
