"""One network trained on every sample and kept, for use on new clips; scores come from `execute` alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.errors import RunError, UsageError
from mer_bench.models.registry import Registered
from mer_bench.runs.data import BenchData, load_data
from mer_bench.runs.manifest import versions
from mer_bench.runs.together import open_cluster
from mer_bench.runs.train import job_of, try_model
from mer_bench.settings import Request, Resolved, resolve
from mer_flow.work.files import new_folder
from mer_flow.work.where import Where

if TYPE_CHECKING:
    from mer_bench.training.job import Job


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
    metadata: Mapping[str, Any]
    train_accuracy: float
    seconds: float


def fit(
    registered: Registered,
    request: Request,
    store: Path,
    out: Path,
    seed: int = 0,
    on_epoch: Callable[[int, int], None] | None = None,
    where: Where | None = None,
) -> Fitted:
    """Train a model on all labelled samples of a store and have it saved.

    The network writes itself: `network.save_pretrained(folder, metadata)`, where metadata is a dict of plain
    values with `classes`, `scheme`, `view`, `normalisation`, `pipeline`, `pipeline_hash` and `training`.

    Args:
        registered: The model.
        request: Its settings; of those of a protocol only `db` counts.
        store: Path of the store.
        out: A new folder; it exists only once the checkpoint is whole.
        seed: Decides weights, shuffling and augmentation.
        on_epoch: Called with (epochs done, their total); on a cluster, when it is done.
        where: Where it is trained.

    Raises:
        UsageError: A setting is unknown, or the model cannot be kept.
        DataError: The store lacks what the model needs.
        TrainingError: The network fails or diverges.
        RunError: The checkpoint cannot be written.
    """
    from mer_bench.training.job import TrainingData
    from mer_bench.training.whole import train_whole, train_whole_on

    spec = registered.spec
    request = replace(request, run=request.run.changed(protocol=""))
    resolved = resolve(spec, request)
    if resolved.recipe is None:
        raise UsageError(f"model '{spec.name}' is a classifier; only networks can be trained to be kept")
    data = load_data(store, spec, request.run)
    job = replace(job_of(spec, request, resolved, data), protocol="fit", seed=seed)
    if not hasattr(try_model(job, data), "save_pretrained"):
        raise UsageError(
            f"model '{spec.name}' cannot be kept: its network has no save_pretrained(folder, metadata)"
        )
    try:
        with new_folder(out) as folder:
            training = TrainingData(data.maps, data.population.labels)
            if where is not None and where.on_dask:
                with open_cluster(where, [registered.package]) as executor:
                    trained = train_whole_on(executor, job, training)
            else:
                trained = train_whole(job, training, on_epoch)
            metadata = _metadata(registered.package, resolved, job, data)
            metadata["training"]["train_accuracy"] = trained.train_accuracy
            network: Any = trained.network
            try:
                network.save_pretrained(folder, metadata)
            except Exception as error:  # a stranger's writer may raise anything
                raise RunError(f"model '{spec.name}' could not save its network: {error}") from error
    except OSError as error:
        raise RunError(f"checkpoint {out} cannot be written: {error.strerror or error}") from error
    return Fitted(resolved, data, metadata, trained.train_accuracy, trained.seconds)


def _metadata(package: str, resolved: Resolved, job: Job, data: BenchData) -> dict[str, Any]:
    from mer_bench.training.device import resolve_device
    from mer_flow.store.reader import FlowStore

    with FlowStore(Path(data.store)) as store:
        pipeline, pipeline_hash = store.pipeline, store.pipeline_hash
    population = data.population
    assert job.recipe is not None
    training = {
        "trained_on": "every sample below; none was held out, so no score belongs to these weights",
        "databases": dict(sorted(Counter(population.databases.tolist()).items())),
        "samples": len(population.labels),
        "subjects": len(set(population.subjects.tolist())),
        "per_class": dict(zip(population.classes, population.counts().tolist(), strict=True)),
        "model": job.spec.name,
        "variant": resolved.variant,
        "recipe": job.recipe.record(),
        "seed": job.seed,
        "device": resolve_device(job.training.device),
        "store_digest": data.store_digest,
        "versions": versions(package),
    }
    return {
        "classes": list(population.classes),
        "scheme": population.scheme,
        "view": data.view,
        "normalisation": data.normalisation,
        "pipeline": json.loads(json.dumps(pipeline)),
        "pipeline_hash": pipeline_hash,
        "training": training,
    }
