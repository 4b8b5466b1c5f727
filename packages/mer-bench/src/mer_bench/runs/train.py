"""From a request to a run: all is resolved and checked first, then only the missing folds are trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.errors import TrainingError, UsageError
from mer_bench.models.registry import Registered
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import FoldSet
from mer_bench.protocols.splits import get_protocol
from mer_bench.recipe import Recipe
from mer_bench.runs.data import BenchData, DataCache, load_data
from mer_bench.runs.directory import RunDirectory, RunStatus
from mer_bench.runs.manifest import build_manifest
from mer_bench.settings import Request, Resolved, RunSettings, resolve
from mer_bench.training.result import FoldResult

if TYPE_CHECKING:
    from torch import nn

#: Called with (seed, fold-epochs done, their total) while folds are trained.
OnProgress = Callable[[int, int, int], None]

#: Where a manifest says how a CPU trained folds first under engine `auto`: `stacked`, or `single` ones.
_PINNED = "cpu_folds"

#: What a classifier's training is told, and does not read.
_NO_RECIPE = Recipe(name="none", epochs=1)


@dataclass(frozen=True)
class Prepared:
    """A run, resolved and checked; nothing has been trained or written.

    Attributes:
        registered: The model and its package.
        settings: The run's settings.
        resolved: The model's options and recipe.
        data: Maps and labels.
        folds: The fold set.
        parameters: Trainable parameters as built; None for a classifier.
        manifest: What the run directory will say.
    """

    registered: Registered
    settings: RunSettings
    resolved: Resolved
    data: BenchData
    folds: FoldSet
    parameters: int | None
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What one call of `execute` did.

    Attributes:
        run: The run directory.
        status: Its state afterwards, for the seeds asked for.
        trained: Folds trained by this call.
        kept: Folds that were there already.
        set_aside: Damaged records that were renamed and trained again.
        failures: Why folds failed, one entry per seed with failures.
        seconds: Wall time.
    """

    run: RunDirectory
    status: RunStatus
    trained: int
    kept: int
    set_aside: tuple[Path, ...]
    failures: tuple[str, ...]
    seconds: float


def prepare(
    registered: Registered, request: Request, store: Path, cache: DataCache | None = None
) -> Prepared:
    """Resolves a request against a model and a store, and checks all that can be checked before training.

    Args:
        registered: The model.
        request: The settings.
        store: Path of the store.
        cache: Where other models' data are kept, to be shared.

    Returns:
        The run, ready to be executed.

    Raises:
        UsageError: A setting is unknown or out of range.
        DataError: The store lacks what the protocol or the model needs.
        ProtocolError: The samples cannot be cut into these folds.
    """
    resolved = resolve(registered.spec, request)
    run = request.run
    data = load_data(
        store,
        registered.spec,
        run.protocol,
        run.protocol_options(),
        scheme=run.scheme,
        view=run.view,
        normalisation=run.normalisation,
        variant=resolved.variant,
        cache=cache,
    )
    return prepare_data(registered, request, data, resolved)


def prepare_data(
    registered: Registered, request: Request, data: BenchData, resolved: Resolved | None = None
) -> Prepared:
    """As `prepare`, for data that are in memory already."""
    resolved = resolved or resolve(registered.spec, request)
    run = request.run
    if run.shuffle_labels is not None:
        data = data.shuffled(run.shuffle_labels)
    folds = get_protocol(run.protocol, run.protocol_options()).cut(data.population)
    _check_training(registered.spec, run, resolved, data)
    parameters = count_parameters(registered.spec, resolved, data)
    manifest = build_manifest(registered, run, resolved, data, folds, parameters)
    return Prepared(registered, run, resolved, data, folds, parameters, manifest)


def _check_training(spec: ModelSpec, run: RunSettings, resolved: Resolved, data: BenchData) -> None:
    from mer_bench.training.folds import check_request

    check_request(
        spec,
        resolved.recipe or _NO_RECIPE,
        device=run.device,
        engine=run.engine,
        workers=run.workers,
        chunk=run.chunk,
        view=f"{data.view}:{data.normalisation}",
        num_classes=data.num_classes,
        precision=run.precision,
    )


def count_parameters(spec: ModelSpec, resolved: Resolved, data: BenchData) -> int | None:
    """Counts a network's trainable parameters, trying it on the data's shape.

    Args:
        spec: The model.
        resolved: Its builder's options, and the recipe.
        data: What it is to read.

    Returns:
        The number of trainable parameters; None for a classifier, which is only tried.

    Raises:
        UsageError: It cannot be built with these options, cannot read maps of this shape, or the recipe asks
            for what it does not have.
    """
    if resolved.recipe is None:
        from mer_bench.training.features import try_classifier

        view = f"{data.view}:{data.normalisation}"
        try_classifier(spec, resolved.options, data.num_classes, data.maps, view)
        return None
    from mer_bench.training.demands import meet_recipe
    from mer_bench.training.optim import check_layer_depths

    network = try_network(spec, resolved.options, data)
    check_layer_depths(network, resolved.recipe)
    meet_recipe(network, resolved.recipe)
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def try_network(spec: ModelSpec, options: Mapping[str, Any], data: BenchData) -> nn.Module:
    """Builds a network once, without memory where it allows, and tries it on the data's shape.

    Args:
        spec: The model.
        options: Its builder's options.
        data: What it is to read.

    Returns:
        The network, not to be trained.

    Raises:
        UsageError: It cannot be built with these options, or cannot read maps of this shape.
    """
    import torch

    channels, height, _ = data.maps.shape[1:]
    what = f"model '{spec.name}' with options {dict(options)} on maps {data.view}:{data.normalisation}"
    error: Exception | None = None
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), torch.random.fork_rng(devices=[]):
                network = spec.build(
                    num_classes=data.num_classes, in_channels=channels, map_size=height, **options
                )
                with torch.no_grad():
                    logits = network.eval()(torch.zeros(2, *data.maps.shape[1:]))
        except Exception as caught:  # whatever a stranger's network raises
            error = caught
            continue
        shape = tuple(getattr(logits, "shape", ()))
        if shape != (2, data.num_classes):
            raise UsageError(
                f"{what} gives logits of shape {shape} for 2 samples, expected (2, {data.num_classes})"
            )
        tried: nn.Module = network
        return tried
    raise UsageError(f"{what} of shape {data.maps.shape[1:]} cannot be built or run: {error}") from error


def _engine(settings: RunSettings, began: str) -> str:
    from mer_bench.training.folds import resolve_device

    again = settings.engine == "auto" and began == "stacked" and resolve_device(settings.device) == "cpu"
    return "stacked" if again else settings.engine


def execute(
    prepared: Prepared, out: Path, *, limit: int | None = None, on_progress: OnProgress | None = None
) -> Outcome:
    """Trains the folds that have no sound record yet, and records each as soon as it is done.

    Args:
        prepared: The run.
        out: Folder of all runs.
        limit: Train no more than the first so many folds of the set; the run stays incomplete.
        on_progress: Told how far each seed's training has come.

    Returns:
        What was done; failed folds are listed in it, the others are kept.

    Raises:
        UsageError: `limit` is below 1.
        RunError: Another process writes this run, it is of another configuration, or the disk is full.
    """
    from mer_bench.training.features import classifier_features
    from mer_bench.training.folds import run_folds

    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    begin = time.monotonic()
    settings, spec = prepared.settings, prepared.registered.spec
    data, options = prepared.data, prepared.resolved.options
    view = f"{data.view}:{data.normalisation}"
    features = None
    run = RunDirectory.create_or_resume(out, prepared.manifest)
    run.versions = prepared.manifest["versions"]
    wanted = prepared.folds.folds[:limit]
    trained = kept = 0
    failures: list[str] = []
    set_aside: list[Path] = []

    # What a CPU's engines compute differs by rounding between stacked folds and single ones, so the choice of
    # the first start holds for the whole run.
    began = run.manifest.get(_PINNED, "")

    def commit(result: FoldResult) -> None:
        nonlocal trained, began
        if settings.engine == "auto" and result.device == "cpu" and not began and spec.kind == "network":
            began = run.pin(_PINNED, "stacked" if result.engine == "stacked" else "single")
        run.write(result)
        trained += 1

    with run.lock():
        before = run.status(settings.seeds)
        for seed in settings.seeds:
            set_aside += [run.set_aside(seed, fold) for fold, _ in before.damaged[seed]]
            done = set(before.done[seed])
            missing = [fold for fold in wanted if fold.name not in done]
            kept += len(wanted) - len(missing)
            if not missing:
                continue

            def report(finished: int, total: int, seed: int = seed) -> None:
                if on_progress is not None:
                    on_progress(seed, finished, total)

            try:
                if spec.kind == "classifier" and features is None:  # the same for every seed
                    features = classifier_features(spec, options, data.num_classes, data.maps, view)
                run_folds(
                    spec,
                    options,
                    data.maps,
                    data.population.labels,
                    data.num_classes,
                    missing,
                    prepared.resolved.recipe or _NO_RECIPE,
                    protocol=settings.protocol,
                    seed=seed,
                    device=settings.device,
                    engine=_engine(settings, began),
                    workers=settings.workers,
                    chunk=settings.chunk,
                    stacking=not began,
                    classes=data.population.classes,
                    deterministic=settings.deterministic,
                    precision=settings.precision,
                    compiled=settings.compile,
                    view=view,
                    features=features,
                    on_fold=commit,
                    on_progress=report,
                )
            except TrainingError as error:
                failures.append(f"seed {seed}: {error}")
    status = run.status(settings.seeds)
    return Outcome(run, status, trained, kept, tuple(set_aside), tuple(failures), time.monotonic() - begin)
