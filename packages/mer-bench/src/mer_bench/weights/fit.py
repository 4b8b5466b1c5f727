"""One network trained on every sample and kept, for use on new clips; scores come from `execute` alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mer_bench.errors import RunError, UsageError
from mer_bench.models.registry import Registered
from mer_bench.resolve import Resolved, resolve
from mer_bench.runs.data import BenchData, load_data
from mer_bench.runs.origin import versions
from mer_bench.runs.together import open_cluster
from mer_bench.runs.train import job_of, try_model
from mer_bench.settings import Request
from mer_bench.weights.card import model_card
from mer_bench.weights.checkpoint import Metadata, read_checkpoint, record_of, write_checkpoint
from mer_flow.store.schema import differing_keys
from mer_flow.work.files import new_folder
from mer_flow.work.where import Where

if TYPE_CHECKING:
    from mer_bench.training.job import Job, TrainingData
    from mer_bench.training.whole import Trained

#: Samples on which a checkpoint that was read back must answer as the network that was trained, and how much
#: of their size its logits may differ, as where memory lies in another order.
_PROBED, _TOLERANCE = 8, 1e-5


@dataclass(frozen=True)
class Fitted:
    """A checkpoint and what went into it.

    Attributes:
        resolved: The model's options and recipe.
        data: What it was trained on, all of it.
        metadata: What the checkpoint says of its training.
        train_accuracy: On the training samples, in the last epoch.
        seconds: Wall time of training.
    """

    resolved: Resolved
    data: BenchData
    metadata: Metadata
    train_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Fitting:
    """How a network is trained to be kept.

    Attributes:
        seed: Decides weights, shuffling and augmentation.
        where: Where it is trained.
        run: A finished run of the same recipe, whose honest score the checkpoint cites.
    """

    seed: int = 0
    where: Where | None = None
    run: Path | None = None


def fit(
    registered: Registered,
    request: Request,
    store: Path,
    out: Path,
    fitting: Fitting | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Train a model on all labelled samples of a store and write its checkpoint.

    It is read back and compared before it is there: what was kept can be used.

    Args:
        registered: The model.
        request: Its settings; of those of a protocol only `db` counts.
        store: Path of the store.
        out: A new folder; it exists only once the checkpoint is whole.
        fitting: Seed, place, and a run to cite.
        on_epoch: Called with (epochs done, their total); on a cluster, when it is done.

    Raises:
        UsageError: A setting is unknown, the model cannot be kept, or the run is of another configuration.
        DataError: The store lacks what the model needs.
        TrainingError: The network fails or diverges.
        RunError: The run is incomplete, or the checkpoint cannot be written.
    """
    from mer_bench.training.job import TrainingData

    fitting = fitting or Fitting()
    spec = registered.spec
    request = replace(request, run=request.run.changed(protocol=""))
    resolved = resolve(spec, request)
    if resolved.recipe is None:
        raise UsageError(
            f"model '{spec.name}' is a classifier and has no weights file: its only file form is a pickle, "
            "which runs code when it is read; `mer-bench run` fits and scores it"
        )
    data = load_data(store, spec, request.run)
    job = replace(job_of(spec, request, resolved, data), protocol="fit", seed=fitting.seed)
    try_model(job, data)
    score = _score(fitting.run, job, data) if fitting.run else None
    try:
        with new_folder(out) as folder:
            training = TrainingData(data.maps, data.population.labels)
            trained = _train(job, training, registered, fitting, on_epoch)
            metadata = _metadata(registered.package, resolved, job, data)
            metadata.training["train_accuracy"] = trained.train_accuracy
            metadata.training["score"] = score
            record = record_of(registered, resolved.options, data.maps.shape[1:], metadata)
            network = trained.network.cpu()
            write_checkpoint(folder, network, record, model_card(spec, record))
            with torch.no_grad():
                maps = torch.from_numpy(data.maps[:_PROBED])
                kept = read_checkpoint(folder, registered=registered).network(maps)
                difference = float((kept - network(maps)).abs().max())
            if difference > _TOLERANCE * max(1.0, float(kept.abs().max())):
                raise RunError(
                    f"model '{spec.name}' cannot be kept: read back, it answers otherwise than as trained; "
                    "keep what decides its logits in parameters or buffers"
                )
    except OSError as error:
        raise RunError(f"checkpoint {out} cannot be written: {error.strerror or error}") from error
    return Fitted(resolved, data, metadata, trained.train_accuracy, trained.seconds)


def _train(
    job: Job,
    training: TrainingData,
    registered: Registered,
    fitting: Fitting,
    on_epoch: Callable[[int, int], None] | None,
) -> Trained:
    from mer_bench.training.whole import train_whole, train_whole_on

    if fitting.where is not None and fitting.where.on_dask:
        with open_cluster(fitting.where, [registered.package]) as executor:
            return train_whole_on(executor, job, training)
    return train_whole(job, training, on_epoch)


def _score(path: Path, job: Job, data: BenchData) -> dict[str, Any]:
    """Return the scores of a finished run of the same configuration, as plain values."""
    from mer_bench.runs.directory import RunDirectory
    from mer_bench.scores.summary import summarise

    run = RunDirectory(path)
    identity = run.manifest.identity
    there = {
        "model": identity.model,
        "options": identity.options,
        "recipe": identity.recipe and identity.recipe.record(),
        "input": identity.input,
        "scheme": identity.scheme,
        "shuffle_labels": identity.shuffle_labels,
    }
    here = {
        "model": job.spec.name,
        "options": dict(job.options),
        "recipe": job.network_recipe.record(),
        "input": data.input,
        "scheme": data.population.scheme,
        "shuffle_labels": None,
    }
    for name, found, asked in differing_keys(there, here):
        raise UsageError(
            f"run {path} cannot be cited: its {name} is {found!r}, here it is {asked!r}; "
            "run and fit with the same model, options, recipe, view and scheme"
        )
    summary = summarise(run)
    shown = dict.fromkeys((summary.headline, *(n for n in ("oracle",) if n in summary.selections)))
    return {
        "run": path.name,
        "protocol": run.manifest.protocol,
        "headline": summary.headline,
        "seeds": len(summary.seeds),
        "samples": summary.samples,
        "subjects": summary.subjects,
        "selections": {
            name: {key: figure.mean for key, figure in summary.selections[name]["Full"].figures.items()}
            for name in shown
        },
    }


def _metadata(package: str, resolved: Resolved, job: Job, data: BenchData) -> Metadata:
    from mer_bench.training.device import resolve_device
    from mer_flow.databases.registry import database_licence
    from mer_flow.store.reader import FlowStore

    with FlowStore(Path(data.store)) as store:
        pipeline, pipeline_hash = store.pipeline, store.pipeline_hash
    population = data.population
    databases = dict(sorted(Counter(population.databases.tolist()).items()))
    training = {
        "trained_on": "every sample below; none was held out, so no score belongs to these weights",
        "databases": databases,
        "data_licences": {name: database_licence(name) for name in databases},
        "samples": len(population.labels),
        "subjects": len(set(population.subjects.tolist())),
        "subject_names": sorted(set(population.subjects.tolist())),
        "per_class": dict(zip(population.classes, population.counts().tolist(), strict=True)),
        "model": job.spec.name,
        "variant": resolved.variant,
        "recipe": job.network_recipe.record(),
        "seed": job.seed,
        "device": resolve_device(job.training.device),
        "store_digest": data.store_digest,
        "versions": versions(package),
    }
    return Metadata(
        classes=population.classes,
        scheme=population.scheme,
        view=data.view,
        normalisation=data.normalisation,
        pipeline=pipeline,
        pipeline_hash=pipeline_hash,
        training=training,
    )
