"""`run_folds`: every fold of a protocol trained by the engine that suits the device."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from mer_bench.errors import UsageError
from mer_bench.protocols.folds import Fold
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.device import engine_of, resolve_device, resolve_precision
from mer_bench.training.engines.local import run_local
from mer_bench.training.engines.stacked import run_stacked
from mer_bench.training.features import classifier_features
from mer_bench.training.job import Job, Sink, TrainingData
from mer_bench.training.losses import check_class_weights
from mer_bench.training.result import FoldResult
from mer_bench.training.samples import check_data
from mer_flow.work.executor import InThisProcess, local_executor

__all__ = ["check_job", "engine_of", "prepare_data", "resolve_device", "run_folds"]

logger = logging.getLogger(__name__)


def check_job(job: Job) -> None:
    """Refuse what cannot be done, before there are data or a run.

    Raises:
        UsageError: Device, engine, precision or recipe cannot be met.
    """
    settings = job.training
    device = resolve_device(settings.device)
    resolve_precision(settings.precision, device)
    if job.spec.kind == "classifier":
        return
    if device != "cpu" and settings.engine == "local" and settings.workers != 1:
        raise UsageError(
            f"engine 'local' spreads folds over processes on the CPU, not on {device}; use engine 'stacked', "
            "or one process: --workers 1"
        )
    check_class_weights(job.network_recipe, len(job.classes))
    Augmenter.from_recipe(job.network_recipe, job.view)
    Augmenter.mirror(job.network_recipe, job.view)


def prepare_data(job: Job, data: TrainingData) -> TrainingData:
    """Make what a classifier is fitted on, once for every fold and seed; a network's data stay as they are.

    Of the job only model, classes and view count.

    Raises:
        UsageError: The classifier does not take this input.
        TrainingError: Its features fail or cannot be trusted.
    """
    if job.spec.kind == "network" or data.map_shape is not None:
        return data
    features = classifier_features(job.spec, job.options, len(job.classes), data.maps, job.view)
    return TrainingData(features, data.labels, data.shape)


def run_folds(
    job: Job, data: TrainingData, folds: Sequence[Fold], executor: Executor | None, sink: Sink
) -> None:
    """Train every fold and deliver its record.

    A fold's result depends on (seed, protocol, fold name), its samples and the device; not on the other
    folds, their order, the chunk or the number of workers: bit for bit in engine `local`, within rounding in
    `stacked`.

    Args:
        job: The training.
        data: The run's data; a classifier's may be prepared already.
        folds: The folds; names unique, parts disjoint.
        executor: Where the folds of engine `local` are trained; None for processes of this machine, as many
            as the settings say. Not used by engine `stacked`, nor by a classifier unless the settings name
            engine `local`: most are fitted sooner than a process starts.
        sink: Told of results and progress.

    Raises:
        DataError: Maps are not finite or folds do not fit the data.
        UsageError: Device, engine or recipe cannot be met.
        TrainingError: Folds failed; raised after the others were delivered, naming each.
    """
    check_job(job)
    data = replace(data, labels=np.asarray(data.labels, np.int64))
    check_data(data, len(job.classes), folds)
    if not folds:
        return
    data, sink = prepare_data(job, data), _Noting(sink)
    if engine_of(job) == "stacked":
        run_stacked(job, data, folds, sink)
    elif job.spec.kind == "classifier" and job.training.engine != "local":
        run_local(job, data, folds, InThisProcess(), sink)
    elif executor is not None:
        run_local(job, data, folds, executor, sink)
    else:
        with local_executor(job.training.workers) as own:
            run_local(job, data, folds, own, sink)


class _Noting:
    """A sink that has the log say what a reader of a fold's score should know."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.progress = sink.progress

    def fold(self, result: FoldResult) -> None:
        for note in result.notes:
            logger.warning("fold '%s': %s", result.fold, note)
        self._sink.fold(result)
