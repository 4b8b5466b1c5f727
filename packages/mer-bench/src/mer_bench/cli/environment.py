"""What `mer-bench check` looks at: facts and problems, one sentence each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mer_bench.errors import MerBenchError
from mer_bench.models.registry import Registry
from mer_bench.protocols.composite import MEGC2019, composite_deviations
from mer_bench.runs.data import STORE_VARIABLE, find_store, read_population
from mer_bench.runs.origin import source_commit, versions
from mer_bench.settings import RunSettings
from mer_flow.work.errors import MerFlowError
from mer_flow.work.executor import usable_cores


def look_around(given: Path | None, scheme: str) -> tuple[list[str], list[str]]:
    """Return facts and problems of the environment, the plug-ins and a store.

    Args:
        given: The store; None means the environment's, or none.
        scheme: Label scheme.
    """
    registry = Registry()
    facts = [*_environment(), f"{len(registry.names)} models: {', '.join(registry.names)}"]
    problems = [str(failure) for failure in registry.failures]
    problems += [
        f"model '{name}' is registered by {', '.join(packages)}; uninstall all but one"
        for name, packages in registry.duplicates.items()
    ]
    if given is None and not os.environ.get(STORE_VARIABLE):
        return [*facts, f"no store to check (--store FILE or {STORE_VARIABLE})"], problems
    try:
        for fact in _store(find_store(given), registry, scheme):
            facts.append(fact)
    except (MerBenchError, MerFlowError) as error:
        problems.append(str(error))
    return facts, problems


def _environment() -> Iterator[str]:
    import torch

    commit = source_commit()
    found = [f"{name} {value}" for name, value in versions("").items() if name != "model"]
    found += [f"commit {commit[:12]}{'+' if commit.endswith('+') else ''}"] if commit else []
    yield ", ".join(found)
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(devices):
        properties = torch.cuda.get_device_properties(index)
        yield f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not devices:
        yield "no CUDA device: training runs on the CPU"
    yield f"{usable_cores()} CPU cores to use"


def _store(path: Path, registry: Registry, scheme: str) -> Iterator[str]:
    """Say what a store holds and which models it can feed."""
    from mer_flow.store.reader import FlowStore
    from mer_flow.views import missing_ingredient

    with FlowStore(path) as store:
        held = ", ".join(f"{database} {len(store.samples(database))}" for database in store.databases)
        yield f"store {path}: {held or 'empty'} samples"
        for database in store.databases:
            try:
                people = read_population(path, RunSettings(protocol="kfold", db=(database,), scheme=scheme))
            except MerBenchError as error:
                yield f"{database}, {scheme}: {error}"
                continue
            counts, subjects = "/".join(map(str, people.counts())), len(np.unique(people.subjects))
            yield f"{database}, {scheme}: {len(people.labels)} samples ({counts}) of {subjects} subjects"
        for entry in registry:
            missing = {v: missing_ingredient(store, *v.split(":")) for v in entry.spec.views}
            readable = [view for view, reason in missing.items() if reason is None]
            why = f"cannot be fed: {' '.join(filter(None, missing.values()))}"
            yield f"{entry.spec.name} {f'reads {readable[0]}' if readable else why}"
        if set(MEGC2019) <= set(store.databases) and scheme == "megc3":
            people = read_population(path, RunSettings(protocol="cde", scheme=scheme))
            deviations = composite_deviations(people) or ("this is the MEGC2019 composite",)
            yield from (f"cde: {text}" for text in deviations)
