"""What `mer-bench check` looks at; each function returns facts, or facts and problems, one sentence each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mer_bench.errors import MerBenchError
from mer_bench.models.registry import Registry
from mer_bench.protocols.composite import composite_deviations
from mer_bench.protocols.splits import ProtocolOptions
from mer_bench.runs.data import STORE_VARIABLE, find_store, read_population
from mer_bench.runs.manifest import source_commit, versions
from mer_flow.work.errors import MerFlowError


def check_environment() -> list[str]:
    """Returns versions, devices and threads."""
    import torch

    found = [f"{name} {value}" for name, value in versions("").items() if name != "model"]
    commit = source_commit()
    lines = [
        ", ".join(found) + (f", commit {commit[:12]}{'+' if commit.endswith('+') else ''}" if commit else "")
    ]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            lines.append(f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        lines.append("no CUDA device: training runs on the CPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines.append(f"{cores} CPU cores to use")
    return lines


def check_plugins() -> tuple[list[str], list[str]]:
    """Returns the registered models, and plug-ins that fail or claim a taken name."""
    registry = Registry()
    problems = [str(failure) for failure in registry.failures]
    problems += [
        f"model '{name}' is registered by {', '.join(packages)}; uninstall all but one"
        for name, packages in registry.duplicates.items()
    ]
    return [f"{len(registry.names)} models: {', '.join(registry.names)}"], problems


def check_store(given: Path | None, scheme: str) -> tuple[list[str], list[str]]:
    """Returns what a store holds and which models it can feed.

    Args:
        given: The store; None means the environment's, or none.
        scheme: Label scheme.
    """
    if given is None and not os.environ.get(STORE_VARIABLE):
        return [f"no store to check (--store FILE or {STORE_VARIABLE})"], []
    from mer_flow.store.reader import FlowStore
    from mer_flow.views import missing_ingredient

    lines, problems = [], []
    try:
        path = find_store(given)
        with FlowStore(path) as store:
            databases = tuple(store.databases)
            lines.append(
                f"store {path}: {', '.join(f'{d} {len(store.samples(d))}' for d in databases) or 'empty'} "
                "samples"
            )
            for database in databases:
                try:
                    population = read_population(
                        path, "kfold", ProtocolOptions(databases=(database,)), scheme
                    )
                except MerBenchError as error:
                    lines.append(f"{database}, {scheme}: {error}")
                    continue
                counts = "/".join(map(str, population.counts().tolist()))
                subjects = len(np.unique(population.subjects))
                lines.append(
                    f"{database}, {scheme}: "
                    f"{len(population.labels)} samples ({counts}) of {subjects} subjects"
                )
            for entry in Registry():
                reasons = []
                for name in entry.spec.views:
                    view, _, normalisation = name.partition(":")
                    reason = missing_ingredient(store, view, normalisation)
                    if reason is None:
                        lines.append(f"{entry.spec.name} reads {name}")
                        break
                    reasons.append(reason)
                else:
                    lines.append(f"{entry.spec.name} cannot be fed: {' '.join(reasons)}")
        if {"smic", "samm", "casme2"} <= set(databases) and scheme == "megc3":
            deviations = composite_deviations(read_population(path, "cde", ProtocolOptions(), scheme))
            lines += [f"cde: {text}" for text in deviations] or ["cde: this is the MEGC2019 composite"]
    except (MerBenchError, MerFlowError) as error:
        problems.append(str(error))
    return lines, problems
