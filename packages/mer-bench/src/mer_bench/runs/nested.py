"""Inner folds of every outer one: what candidates are chosen by never saw the held-out subject."""

from __future__ import annotations

from dataclasses import replace

from mer_bench.errors import ProtocolError
from mer_bench.models.registry import Registered
from mer_bench.protocols.folds import Fold, FoldSet, Population
from mer_bench.protocols.splits import ProtocolOptions, get_protocol
from mer_bench.resolve import resolve
from mer_bench.runs.manifest import build_manifest
from mer_bench.runs.train import Prepared
from mer_bench.settings import Request

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


def prepare_inner(prepared: Prepared, registered: Registered, request: Request, k: int) -> Prepared:
    """Prepare the inner folds of a candidate as a run of its own, for `execute`.

    Args:
        prepared: The candidate, on its outer folds.
        registered: Its model.
        request: Its settings.
        k: Inner folds of each outer one.
    """
    folds = inner_folds(prepared.folds, k, request.run.fold_seed)
    if prepared.job.recipe is None:  # so many fits of a classifier are worth the start of a process
        request = replace(request, training=request.training.changed(engine="local"))
    resolved = resolve(registered.spec, request)
    parameters = prepared.manifest.parameters
    manifest = build_manifest(registered, request, resolved, prepared.data, folds, parameters)
    return Prepared(replace(prepared.job, training=request.training), prepared.data, folds, manifest)
