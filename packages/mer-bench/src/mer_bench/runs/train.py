"""From a request to a run: all is resolved and checked first, then only the missing folds are trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.errors import TrainingError, UsageError
from mer_bench.models.registry import Registered
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Fold, FoldSet
from mer_bench.resolve import Resolved, resolve
from mer_bench.runs.data import BenchData, DataCache, load_data
from mer_bench.runs.directory import RunDirectory, RunStatus, writing
from mer_bench.runs.manifest import RunManifest, build_manifest
from mer_bench.runs.part import Part, Shard
from mer_bench.settings import Request
from mer_bench.training.result import FoldResult
from mer_flow.work.executor import local_executor, usable_cores
from mer_flow.work.plugins import contained

if TYPE_CHECKING:
    from torch import nn

    from mer_bench.training.job import Job

#: Seconds that building a network and trying it once may take; of 115 million parameters it takes one.
BUILD_LIMIT = 60.0

#: Called with (fold-epochs done, their total) over every fold to be trained, of all seeds.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prepared:
    """A run, resolved and checked, its job that of the first seed; nothing has been trained or written."""

    job: Job
    data: BenchData
    folds: FoldSet
    manifest: RunManifest


@dataclass(frozen=True)
class Outcome:
    """What one call of `execute` did.

    Attributes:
        status: The run's state afterwards, for the seeds asked for.
        trained: Folds trained by this call.
        kept: Folds that were there already.
        set_aside: Damaged records that were renamed and trained again.
        failures: Why folds failed, one entry per seed with failures.
        seconds: Wall time.
        whole: Whether all that this call was to train is there.
    """

    run: RunDirectory
    status: RunStatus
    trained: int
    kept: int
    set_aside: tuple[Path, ...]
    failures: tuple[str, ...]
    seconds: float
    whole: bool = True


def prepare(
    registered: Registered, request: Request, stores: Path | Sequence[Path], cache: DataCache | None = None
) -> Prepared:
    """Resolve a request against a model and its store or stores, and check all that can be before training.

    Raises:
        UsageError: A setting is unknown or out of range.
        DataError: The store lacks what the protocol or the model needs.
        ProtocolError: The samples cannot be cut into these folds.
    """
    resolve(registered.spec, request)  # what is wrong with the settings is said before the store is read
    return prepare_data(registered, request, load_data(stores, registered.spec, request.run, cache))


def prepare_data(registered: Registered, request: Request, data: BenchData) -> Prepared:
    """As `prepare`, for data that are in memory already."""
    resolved, run = resolve(registered.spec, request), request.run
    if run.shuffle_labels is not None:
        data = data.shuffled(run.shuffle_labels)
    folds = run.splitter().cut(data.population)
    job = job_of(registered.spec, request, resolved, data)
    network, parameters = try_model(job, data), None
    if network is not None:
        parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    manifest = build_manifest(registered, request, resolved, data, folds, parameters)
    return Prepared(job, data, folds, manifest)


def job_of(spec: ModelSpec, request: Request, resolved: Resolved, data: BenchData) -> Job:
    """Return what training is told, for the first seed."""
    from mer_bench.training.job import Job

    run, model = request.run, (spec, resolved.options, resolved.recipe)
    return Job(*model, request.training, data.population.classes, run.protocol, run.seeds[0], data.input)


def try_model(job: Job, data: BenchData) -> nn.Module | None:
    """Check a job, build its model once and try it on the data's shape; return it where it is a network.

    Raises:
        UsageError: The training cannot be met, the model cannot be built with these options or read maps of
            this shape, it is the same at every call, or the recipe asks for what it does not have.
    """
    from mer_bench.training.folds import check_job

    check_job(job)
    if job.recipe is None:
        from mer_bench.training.features import try_classifier

        try_classifier(job.spec, job.options, len(job.classes), data.maps, job.view)
        return None
    from mer_bench.training.demands import meet_recipe
    from mer_bench.training.optim import check_layer_depths

    network = try_network(job.spec, job.options, data)
    again = try_network(job.spec, job.options, data)
    if {*map(id, network.parameters())} & {*map(id, again.parameters())}:
        raise UsageError(
            f"model '{job.spec.name}' gives the same weights at every call, and would carry them from fold "
            "to fold; make every layer anew inside the function"
        )
    check_layer_depths(network, job.recipe)
    meet_recipe(network, job.recipe)
    return network


def try_network(spec: ModelSpec, options: Mapping[str, Any], data: BenchData) -> nn.Module:
    """Build a network once, without memory where it allows, try it on the data's shape, and return it.

    Raises:
        UsageError: It cannot be built with these options, or cannot read maps of this shape.
    """
    import torch

    from mer_bench.training.network import bounded

    channels, height, _ = data.maps.shape[1:]
    what = f"model '{spec.name}' with options {dict(options)} on maps {data.input}"
    error: Exception | None = None
    for device in ("meta", "cpu"):
        try:
            with contained(BUILD_LIMIT), torch.device(device), torch.random.fork_rng(devices=[]):
                with bounded():
                    network = spec.build(
                        num_classes=data.num_classes, in_channels=channels, map_size=height, **options
                    )
                with torch.no_grad():
                    logits = network.eval()(torch.zeros(2, *data.maps.shape[1:]))
        except UsageError as refused:
            error = refused
            break
        except Exception as caught:  # whatever a stranger's network raises
            error = caught
            if device == "meta" and _needs_values(caught):
                continue
            break
        shape = tuple(getattr(logits, "shape", ()))
        if shape != (2, data.num_classes):
            raise UsageError(
                f"{what} gives logits of shape {shape} for 2 samples, expected (2, {data.num_classes})"
            )
        tried: nn.Module = network
        return tried
    said = str(error).partition("\n")[0]  # torch adds the frames of its own code
    raise UsageError(f"{what} of shape {data.maps.shape[1:]} cannot be built or run: {said}") from error


def _needs_values(error: Exception) -> bool:
    """Whether a network failed as tensors of the device `meta` have no values; torch's messages say so."""
    return isinstance(error, NotImplementedError) or "meta" in str(error).lower()


@dataclass
class Begun:
    """A run that this process writes.

    Attributes:
        missing: Seed to the folds that this call is to train.
        kept: Folds of this call that were there already.
        set_aside: Damaged records that were renamed.
        written: Records written so far.
    """

    prepared: Prepared
    run: RunDirectory
    missing: Mapping[int, Sequence[Fold]]
    kept: int
    set_aside: tuple[Path, ...]
    began: float
    written: int = 0

    def fold(self, result: FoldResult) -> None:
        """Write a record."""
        self.run.write(result)
        self.written += 1

    def outcome(self, failures: Sequence[str]) -> Outcome:
        """Say what was done."""
        status = self.run.status(self.prepared.manifest.settings.seeds)
        seconds = time.monotonic() - self.began
        whole = self.written == sum(map(len, self.missing.values()))
        did = self.written, self.kept, self.set_aside, tuple(failures)
        return Outcome(self.run, status, *did, seconds, whole)


@contextmanager
def begun(prepared: Prepared, out: Path, part: Part) -> Iterator[Begun]:
    """Open a run for this process, or for its shard, and see what is to be trained.

    Raises:
        RunError: Another process writes this run, it is of another configuration, or the disk is full.
    """
    began = time.monotonic()
    seeds = prepared.manifest.settings.seeds
    wanted = part.of(seeds, prepared.folds.folds)
    with writing(out, prepared.manifest, part.shard) as run:
        before = run.status(seeds)
        names = {seed: {fold.name for fold in folds} for seed, folds in wanted.items()}
        damaged = [(seed, fold) for seed in seeds for fold, _ in before.damaged[seed]]
        set_aside = [run.set_aside(*one) for one in damaged if part.shard is None or one[1] in names[one[0]]]
        missing = {seed: [f for f in wanted[seed] if f.name not in before.done[seed]] for seed in seeds}
        kept = sum(map(len, wanted.values())) - sum(map(len, missing.values()))
        yield Begun(prepared, run, missing, kept, tuple(set_aside), began)


def execute(
    prepared: Prepared,
    out: Path,
    limit: int | None = None,
    on_progress: OnProgress | None = None,
    shard: Shard | None = None,
) -> Outcome:
    """Train the folds that have no sound record yet, and record each as soon as it is done.

    Those that fail do not keep the others from being trained and recorded.

    Args:
        prepared: The run.
        out: Folder of all runs.
        limit: Train no more than the first so many folds of the set; the run stays incomplete.
        on_progress: Told how far the training has come.
        shard: Train this share of them only, beside other processes that train theirs.

    Raises:
        UsageError: `limit` is below 1.
        RunError: Another process writes this run, it is of another configuration, or the disk is full.
    """
    with begun(prepared, out, Part(limit, shard)) as run:
        missing = {seed: folds for seed, folds in run.missing.items() if folds}
        return run.outcome(_train(prepared, missing, _Records(run, on_progress)))


class _Records:
    """Where `run_folds` puts its results, for one seed after another."""

    def __init__(self, run: Begun, on_progress: OnProgress | None):
        self.fold, self.on_progress = run.fold, on_progress
        self.before = self.total = 0

    def progress(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(self.before + done, self.total)


def _train(prepared: Prepared, missing: Mapping[int, Sequence[Fold]], sink: _Records) -> list[str]:
    """Train the missing folds of each seed; return what failed."""
    from mer_bench.training import folds as trainer
    from mer_bench.training.job import TrainingData

    if not missing:
        return []
    job = prepared.job
    try:
        data = trainer.prepare_data(job, TrainingData(prepared.data.maps, prepared.data.population.labels))
    except TrainingError as error:
        return [str(error)]
    most = max(map(len, missing.values())) if trainer.engine_of(job) == "local" else 1
    sink.total = job.epochs * sum(map(len, missing.values()))
    failures = []
    with local_executor(min(job.training.workers or usable_cores(), most)) as executor:
        for seed, folds in missing.items():
            try:
                trainer.run_folds(replace(job, seed=seed), data, folds, executor, sink)
            except TrainingError as error:
                failures.append(f"seed {seed}: {error}")
            sink.before += job.epochs * len(folds)
    return failures
