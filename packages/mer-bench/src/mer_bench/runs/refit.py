"""The networks of a finished run, trained once more: a run keeps what they said and not their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from mer_bench.errors import RunError, UsageError
from mer_bench.models.registry import Registry
from mer_bench.protocols.folds import Fold
from mer_bench.runs.data import BenchData, load_data
from mer_bench.runs.directory import RunDirectory
from mer_bench.training.job import Job, TrainingData
from mer_bench.training.whole import train_whole


@dataclass(frozen=True)
class Refitted:
    """A fold's network, trained again from its seed.

    Attributes:
        fold: Its held-out samples are rows of the data.
        network: Of the last epoch, in evaluation mode.
        difference: Largest difference of its logits of the held-out samples from the recorded ones; NaN where
            the recipe reads them in another way (flip averaging, prior).
    """

    fold: Fold
    network: nn.Module
    difference: float


def data_of(run: RunDirectory, store: Path | None = None) -> BenchData:
    """Read again what a run was trained on.

    Args:
        run: A run that was trained, on one store.
        store: Where it lies now; where the run found it unless given.

    Raises:
        UsageError: The run was made of others, or reads several stores.
        RunError: The store holds other maps or labels than the run was trained on.
        DataError: The store is not there.
    """
    manifest = run.manifest
    if manifest.derived is not None or manifest.joined_stores:
        raise UsageError(
            f"{run.path} was made of other runs or of several stores; name a run that was trained"
        )
    identity = manifest.identity
    settings = manifest.settings.changed(view=identity.view, normalisation=identity.normalisation)
    data = load_data(store or Path(manifest.store), Registry().find(manifest.model).spec, settings)
    if identity.shuffle_labels is not None:
        data = data.shuffled(identity.shuffle_labels)
    if data.digest() != identity.data:
        raise RunError(
            f"{run.path}: {data.store} gives other maps or labels than the run was trained on; "
            "give the store of that time with --store"
        )
    return data


def refit(run: RunDirectory, data: BenchData, seed: int, folds: Sequence[str]) -> Iterator[Refitted]:
    """Train folds of a run again, as they were trained.

    Args:
        run: The run.
        data: From `data_of`.
        seed: One of its seeds.
        folds: Names of folds.

    Raises:
        RunError: A fold has no record to compare with.
        UsageError: The model is no network.
        TrainingError: A network fails.
    """
    manifest = run.manifest
    identity = manifest.identity
    model = Registry().find(manifest.model).spec, identity.options, identity.recipe
    job = Job(*model, manifest.training, manifest.classes, manifest.protocol, seed, data.input)
    recipe = job.network_recipe
    rows = {row.name: row for row in manifest.folds}
    training = TrainingData(data.maps, data.population.labels)
    for name in folds:
        row = rows[name]
        fold = Fold(name, *(np.array(part, np.int64) for part in (row.train, row.test, row.inner)))
        recorded = run.read(seed, name).logits[-1]
        network = train_whole(job, training, fold=fold).network
        difference = float("nan")
        if not (recipe.flip_average or recipe.prior):
            difference = float(np.abs(_logits(network, data.maps[fold.test]) - recorded).max())
        yield Refitted(fold, network, difference)


def _logits(network: nn.Module, maps: np.ndarray) -> np.ndarray:
    import torch

    like = next(network.parameters())
    with torch.inference_mode():
        found: np.ndarray = network(torch.from_numpy(maps).to(like)).float().cpu().numpy()
    return found
