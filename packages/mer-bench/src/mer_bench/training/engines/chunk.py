"""A chunk of folds trained side by side: trainer on one side, recorder on the other.

The networks are handed across after each epoch, and nothing is handed back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from mer_bench.protocols.folds import Fold
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.failures import loss_error
from mer_bench.training.graphs import Graphs
from mer_bench.training.job import Job, TrainingData
from mer_bench.training.networks import Networks
from mer_bench.training.reading import Reading
from mer_bench.training.recorder import Course, Recorder, fold_result
from mer_bench.training.result import FoldResult
from mer_bench.training.samples import TrainingSamples
from mer_bench.training.trainer import Trainer

# Epochs between two looks at the losses. A look waits for the device, and lets it run dry for a moment.
_LOOK_EVERY = {"cpu": 1, "cuda": 25}


def train_chunk(
    job: Job,
    data: TrainingData,
    folds: Sequence[Fold],
    networks: Networks,
    on_epoch: Callable[[int], None],
    graphs: Graphs | None = None,
) -> tuple[list[FoldResult], dict[str, str]]:
    """Train folds and record what their networks say of the held-out samples.

    Args:
        job: The training.
        data: The run's data.
        folds: The folds, which take the same number of steps per epoch.
        networks: Theirs, in the same order.
        on_epoch: Called with how many more epochs are done.
        graphs: Given where the folds are stacked: the chunk's CUDA graphs.

    Returns:
        The records, and by name why folds have none: their training loss was not finite.
    """
    begin = time.perf_counter()
    recipe, classes = job.network_recipe, len(job.classes)
    samples = TrainingSamples(data, folds, classes, networks)
    trainer = Trainer(networks, samples, recipe, Augmenter.from_recipe(recipe, job.view), graphs)
    reading = Reading.of_recipe(recipe, job.view, samples.counts)
    recorder = Recorder(networks, data, folds, recipe.epochs, classes, graphs, reading)
    failed: dict[str, str] = {}
    told = 0
    for epoch in range(1, recipe.epochs + 1):
        trainer.epoch()
        recorder.observe()
        if epoch % _LOOK_EVERY[networks.device.type] and epoch != recipe.epochs:
            continue
        losses, accuracies = trainer.history()
        for fold, course in zip(folds, losses.T, strict=True):
            # Its numbers stay its own: the other folds go on beside it.
            if fold.name not in failed and not np.isfinite(course).all():
                first = int(np.isfinite(course).argmin())
                failed[fold.name] = str(loss_error(fold.name, first + 1, float(course[first]), recipe))
        if len(failed) == len(folds):
            return [], failed
        on_epoch(epoch - told)
        told = epoch
    seconds = (time.perf_counter() - begin) / len(folds)
    results = [
        fold_result(
            job, data, fold, "local" if graphs is None else "stacked",
            Course(held_out, inner, losses[:, place].copy(), accuracies[:, place].copy(), seconds),
            graphs.notes if graphs else (),
        )
        for place, (fold, (held_out, inner)) in enumerate(zip(folds, recorder.logits(), strict=True))
        if fold.name not in failed
    ]  # fmt: skip
    return results, failed
