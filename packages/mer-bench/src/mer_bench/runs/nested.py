"""Inner folds of every outer one: what candidates are chosen by never saw the held-out subject."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mer_bench.errors import ProtocolError
from mer_bench.protocols.folds import Fold, FoldSet, Population
from mer_bench.protocols.splits import ProtocolOptions, get_protocol
from mer_bench.runs.data import DataCache
from mer_bench.runs.manifest import build_manifest
from mer_bench.runs.many import Planned
from mer_bench.runs.train import Prepared, prepare
from mer_bench.settings import resolve

_BETWEEN = "|"


def outer_of(inner: str) -> str:
    """Return the outer fold of an inner fold's name.

    >>> outer_of("samm/006|fold-1")
    'samm/006'
    """
    return inner.rpartition(_BETWEEN)[0]


def inner_folds(outer: FoldSet, k: int, seed: int = 0) -> FoldSet:
    """Cut the training samples of every fold into `k` folds of whole subjects, stratified by class.

    Args:
        outer: The folds of a run.
        k: How many inner folds each gets.
        seed: Decides them, together with the subjects that an outer fold trains on.

    Returns:
        `k` folds for each outer one; none has a sample of its outer fold's held-out subjects on either side.

    Raises:
        ProtocolError: An outer fold trains on fewer than `k` subjects.
    """
    splitter = get_protocol("kfold", ProtocolOptions(k=k, fold_seed=seed))
    everyone, folds = outer.population, []
    for fold in outer.folds:
        rows = fold.train
        columns = ("sample_ids", "subjects", "databases", "labels")
        part = Population(
            **{name: getattr(everyone, name)[rows] for name in columns},
            classes=everyone.classes,
            scheme=everyone.scheme,
        )
        try:
            cut = splitter.cut(part)
        except ProtocolError as error:
            raise ProtocolError(f"inner folds of '{fold.name}': {error}; lower --inner-k") from None
        folds += [
            Fold(f"{fold.name}{_BETWEEN}{inner.name}", rows[inner.train], rows[inner.test])
            for inner in cut.folds
        ]
    return FoldSet(outer.protocol, everyone, tuple(folds), covers=False)


def prepare_inner(planned: Planned, store: Path, k: int, cache: DataCache | None = None) -> Prepared:
    """Prepare the inner folds of a candidate as a run of its own, for `execute`.

    Args:
        planned: The candidate.
        store: The store.
        k: Inner folds of each outer one.
        cache: Where its data may be.
    """
    prepared, request = prepare(planned.registered, planned.request, store, cache), planned.request
    folds = inner_folds(prepared.folds, k, request.run.fold_seed)
    if prepared.job.recipe is None:  # so many fits of a classifier are worth the start of a process
        request = replace(request, training=request.training.changed(engine="local"))
    resolved = resolve(planned.registered.spec, request)
    parameters = prepared.manifest.parameters
    manifest = build_manifest(planned.registered, request, resolved, prepared.data, folds, parameters)
    return Prepared(replace(prepared.job, training=request.training), prepared.data, folds, manifest)
