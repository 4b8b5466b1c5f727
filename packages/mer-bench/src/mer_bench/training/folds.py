"""`run_folds`: every fold of a protocol trained by the engine that suits the machine."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mer_bench.errors import TrainingError, UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.engines.choice import choose_cpu_engine
from mer_bench.training.engines.processes import run_in_processes
from mer_bench.training.engines.stacked import run_stacked
from mer_bench.training.features import classifier_features
from mer_bench.training.losses import check_class_weights
from mer_bench.training.plan import FoldFailures, OnFold, OnProgress, Plan
from mer_bench.training.precision import matrix_precision, resolve_precision
from mer_bench.training.result import FoldResult
from mer_bench.training.samples import check_data
from mer_bench.training.seeding import fold_seed
from mer_bench.training.single import determinism, one_thread, train_fold

__all__ = ["ENGINES", "fold_seed", "resolve_device", "run_folds"]

logger = logging.getLogger(__name__)

_PROGRESS_EVERY = 0.25

ENGINES = ("auto", "stacked", "processes", "serial")


def resolve_device(device: str) -> str:
    """Turn `auto` into a device that is there.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:k`.

    Returns:
        `cpu`, `cuda` or `cuda:k`; `auto` gives `cuda` where there is one.

    Raises:
        UsageError: If the device is unknown or absent.

    >>> resolve_device("cpu")
    'cpu'
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise UsageError(f"device '{device}' is not one of auto, cpu, cuda, cuda:<number>")
    if kind == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= there:
            raise UsageError(
                f"device '{device}' is not there: torch sees {there} CUDA devices; use --device cpu"
            )
    return device


def available_cores() -> int:
    """Cores this process may use.

    Returns:
        At least 1; the affinity mask where the system has one.
    """
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def run_folds(
    spec: ModelSpec,
    options: Mapping[str, Any],
    maps: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    folds: Sequence[Fold],
    recipe: Recipe,
    *,
    protocol: str,
    seed: int,
    device: str = "auto",
    engine: str = "auto",
    workers: int | None = None,
    chunk: int | None = None,
    deterministic: bool = False,
    precision: str = "auto",
    compiled: bool = False,
    view: str | None = None,
    classes: Sequence[str] = (),
    stacking: bool = True,
    features: np.ndarray | None = None,
    on_fold: OnFold,
    on_progress: OnProgress | None = None,
) -> None:
    """Train every fold and deliver its record.

    A fold's result depends on (seed, protocol, fold name), its samples and the device; not on the other
    folds, their order, the chunk or the number of workers: bit for bit in `serial` and `processes`, within
    rounding in `stacked`.

    Args:
        spec: The model.
        options: Options of its builder.
        maps: `(N, C, H, W)` float32.
        labels: `(N,)` int64 in `0 .. num_classes - 1`.
        num_classes: Number of classes.
        folds: The folds; names unique, parts disjoint.
        recipe: How to train; not used by a classifier.
        protocol: The protocol's name; part of each fold's seed.
        seed: The run's seed.
        device: `auto`, `cpu`, `cuda` or `cuda:k`.
        engine: `serial` (one fold at a time), `processes` (folds over processes, CPU only), `stacked` (many
            folds in one step) or `auto`: stacked on CUDA, the faster of processes and stacked on a CPU, by a
            short measurement.
        workers: Processes of `processes`; None for one per core.
        chunk: Folds stacked at once; None for as many as memory holds.
        deterministic: Hold torch to deterministic algorithms (slower on CUDA).
        precision: How a GPU multiplies float32 matrices: `float32`, `tf32` or `auto`, TF32 where it knows it.
        compiled: Train stacked folds through `torch.compile`: its kernels move less memory, and take a minute
            or two to make, which pays for large networks and long trainings on a GPU.
        view: The input as `view:normalisation`, as in `whole-28:minmax-255`; a recipe with flips needs it, as
            how a mirrored u is stored depends on it.
        classes: Names of the classes, for the records' notes; numbers where there are none.
        stacking: Whether `auto` may choose `stacked` on a CPU; `serial` and `processes` agree bit for bit.
        features: What `classifier_features` made of the maps, where a caller has it already.
        on_fold: Called with each fold's record as soon as it is there, in the calling process. What it raises
            ends the run.
        on_progress: Called with (epochs done over all folds, their total), a few times per second at most.

    Raises:
        DataError: If maps are not finite or folds do not fit the data.
        UsageError: If device, engine or recipe cannot be met.
        TrainingError: If folds failed; raised after the others were delivered, naming each.
    """
    device = check_request(
        spec, recipe, device=device, engine=engine, workers=workers, chunk=chunk, view=view,
        num_classes=num_classes, precision=precision,
    )  # fmt: skip
    plan = Plan(
        spec, dict(options), num_classes, recipe, protocol, seed, device, view, deterministic, tuple(classes),
        precision=resolve_precision(precision, device), compiled=compiled,
    )  # fmt: skip
    labels = np.asarray(labels, dtype=np.int64)
    check_data(maps, labels, num_classes, folds)
    if not folds:
        return
    if spec.kind == "classifier":
        plan = replace(plan, map_shape=maps.shape[1:])
        maps = classifier_features(spec, options, num_classes, maps, view) if features is None else features

    def deliver(result: FoldResult) -> None:
        for note in result.notes:
            logger.warning("fold '%s': %s", result.fold, note)
        on_fold(result)

    size = min(workers or available_cores(), len(folds))
    chosen = _choose(plan, engine, maps, labels, folds, size, stacking)
    progress = _sparingly(on_progress)
    if chosen == "processes":
        run_in_processes(plan, maps, labels, folds, size, deliver, progress)
    elif chosen == "stacked":
        run_stacked(plan, maps, labels, folds, chunk, deliver, progress)
    else:
        _run_serially(plan, maps, labels, folds, deliver, progress)


def check_request(
    spec: ModelSpec,
    recipe: Recipe,
    *,
    device: str,
    engine: str,
    workers: int | None,
    chunk: int | None,
    view: str | None,
    num_classes: int,
    precision: str = "auto",
) -> str:
    """Refuse what `run_folds` cannot do, before there are data or a run.

    Args:
        spec: The model.
        recipe: How to train.
        device: As in `run_folds`, like all that follow.
        engine: See there.
        workers: See there.
        chunk: See there.
        view: See there.
        num_classes: See there.
        precision: See there.

    Returns:
        The device, `auto` resolved.

    Raises:
        UsageError: If device, engine or recipe cannot be met.
    """
    found = resolve_device(device)
    if engine not in ENGINES:
        raise UsageError(f"engine '{engine}' is not one of {', '.join(ENGINES)}")
    for name, value in (("workers", workers), ("chunk", chunk)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    for name in ("epochs", "batch_size"):
        if getattr(recipe, name) < 1:
            raise UsageError(
                f"recipe '{recipe.name}': {name} must be at least 1, got {getattr(recipe, name)}"
            )
    if engine == "processes" and found != "cpu" and spec.kind == "network":
        raise UsageError(
            f"engine 'processes' is for the CPU, not {found}; use engine 'stacked' or device 'cpu'"
        )
    resolve_precision(precision, found)
    check_class_weights(recipe, num_classes)
    Augmenter.from_recipe(recipe, view)
    return found


def _choose(
    plan: Plan,
    engine: str,
    maps: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    size: int,
    stacking: bool,
) -> str:
    if plan.spec.kind == "classifier":
        return "processes" if engine == "processes" else "serial"
    if engine != "auto":
        return engine
    if plan.device != "cpu":
        return "stacked"
    return choose_cpu_engine(plan, maps, labels, folds, size, stacking)


def _sparingly(on_progress: OnProgress | None) -> OnProgress | None:
    """Pass on a few calls per second, and always the last."""
    if on_progress is None:
        return None
    last = float("-inf")

    def call(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= _PROGRESS_EVERY:
            last = now
            on_progress(done, total)

    return call


def _run_serially(
    plan: Plan,
    maps: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    on_fold: Callable[[FoldResult], None],
    on_progress: OnProgress | None,
) -> None:
    failures = FoldFailures()
    total = len(folds) * plan.epochs
    with (
        one_thread(plan.device),
        determinism(plan.deterministic),
        matrix_precision(plan.precision, plan.device),
    ):
        for place, fold in enumerate(folds):
            before = place * plan.epochs

            def report(epochs: int, before: int = before) -> None:
                if on_progress is not None:
                    on_progress(before + epochs, total)

            try:
                result = train_fold(plan, maps, labels, fold, "serial", report)
            except TrainingError as error:
                failures.add(fold.name, str(error))
                continue
            on_fold(result)
    failures.raise_if_any(len(folds))
