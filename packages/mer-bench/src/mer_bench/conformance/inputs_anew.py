"""The inputs of a run read anew from its stores: all at once, and each sample alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mer_bench.errors import ConformanceError
from mer_bench.models.registry import Registry
from mer_bench.runs.data import input_digest, load_data
from mer_bench.runs.manifest import PEOPLE, RunManifest


def compare_with_stores(manifest: RunManifest, stores: Sequence[Path]) -> str:
    """Read a run's inputs as it did, and each of its samples alone.

    A sample's map that is another when it is read alone depends on others, as by a normalisation over all.

    Args:
        manifest: The run.
        stores: The stores that it names, in its order.

    Raises:
        ConformanceError: Samples, subjects, labels or maps are not those that the run was trained on.
        DataError: The stores lack what the run was trained on.
    """
    from mer_flow.store.reader import FlowStore
    from mer_flow.views import ViewReader

    if manifest.derived is not None:
        return "made of other runs; audit each member with its store"
    identity = manifest.identity
    views = identity.view.replace("colours-", "whole-").split("+") if len(stores) > 1 else [identity.view]
    run = manifest.settings.changed(
        view=views[0].replace("colours-", "whole-"), normalisation=identity.normalisation
    )
    data = load_data(stores, Registry().find(manifest.model).spec, run)
    if identity.shuffle_labels is not None:
        data = data.shuffled(identity.shuffle_labels)
    for column in PEOPLE:
        if getattr(data.population, column).tolist() != [*getattr(manifest.samples, column)]:
            raise ConformanceError(f"the store has other {column} than the run was trained on")
    if data.digest() != identity.data:
        raise ConformanceError("the store's maps are not those that the run was trained on")
    if len(stores) > 1:
        return f"{len(data.maps)} samples with the labels, subjects and maps of the run"
    with FlowStore(stores[0]) as store:
        needed = sorted(set(data.population.databases.tolist()))
        reader = ViewReader(store, run.view, run.normalisation, scheme=run.scheme, databases=needed)
        order = np.argsort(reader.sample_ids, kind="stable")
        for row, place in enumerate(order):
            if input_digest(reader.read(np.array([place]))[0]) != input_digest(data.maps[row]):
                raise ConformanceError(
                    f"the map of {data.population.sample_ids[row]} is another when it is read alone: it "
                    "depends on other samples, so held-out ones reach training"
                )
    return f"{len(data.maps)} samples with the labels, subjects and maps of the run, each the same read alone"
