"""The pipeline that ties sheets, frames, faces, flow and store together; nothing else knows all of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mer_flow.config import PipelineConfig
from mer_flow.databases import get_database
from mer_flow.databases.clips import Clips, ClipTask
from mer_flow.databases.layout import resolve_root
from mer_flow.databases.source import Source
from mer_flow.extraction.batched import run_batched
from mer_flow.extraction.extractor import pipeline_record, resolve
from mer_flow.extraction.sample import Keep, Outcome, extract_sample, outcome_of
from mer_flow.store.schema import differing_keys
from mer_flow.store.verify import damaged
from mer_flow.store.writer import StoreWriter, begun_pipeline
from mer_flow.work.errors import SheetError, StoreMismatchError, UsageError
from mer_flow.work.executor import LocalProcesses, run_all, usable_cores
from mer_flow.work.progress import Progress, duration
from mer_flow.work.settings import layered
from mer_flow.work.suggest import unknown
from mer_flow.work.where import Where

#: Stages that count as kernels: decoding, face analysis, flow, head motion and strain, compression.
KERNELS = ("decode", "face", "flow", "stabilise", "compress")


@dataclass(frozen=True)
class BuildOptions:
    """How a build is run; the store is the same.

    Attributes:
        workers: Worker processes; None for one per usable core.
        limit: Build the first so many samples of the sheet only; a later call adds the rest.
        retry_failed: Try recorded failures again.
        repair: Verify the store first, and compute anew what of this database is damaged.
        flow_process: Compute the flow in batches in one process of its own; None does so on CUDA, unless on
            a cluster.
        where: Where clips are worked on.
    """

    workers: int | None = None
    limit: int | None = None
    retry_failed: bool = False
    repair: bool = False
    flow_process: bool | None = None
    where: Where = field(default_factory=Where)


@dataclass
class BuildSummary:
    """What one build did.

    Attributes:
        samples: Samples in the sheet, after `limit`.
        already: Samples that were committed before.
        built: Samples committed by this call.
        failed: `(sample_id, stage, reason)` of every sample that has no flow, earlier failures included.
        fallbacks: How many samples needed each fallback, this call only.
        seconds: Wall time of this call.
        flow_process: Whether one more process computed the flow.
        stage_seconds: Seconds per stage, summed over workers.
        peak_mb: Largest peak resident memory of a worker, MB.
        warnings: Library versions other than the store's first build had.
    """

    database: str
    store: Path
    samples: int
    already: int = 0
    built: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    fallbacks: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    workers: int = 1
    flow_process: bool = False
    stage_seconds: Counter[str] = field(default_factory=Counter)
    peak_mb: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def kernel_fraction(self) -> float:
        """Share of the processes' time from first task to last commit that kernels took, in [0, 1]."""
        available = self.seconds * (self.workers + self.flow_process)
        return sum(self.stage_seconds[name] for name in KERNELS) / available if available else 0.0

    def text(self) -> str:
        """Return the summary for people: what was done, fallbacks counted, failures listed."""
        head = f"{self.database} -> {self.store}: {self.samples} samples, {self.already} were there"
        if self.built:
            rate = self.built / self.seconds
            ((slowest, seconds),) = self.stage_seconds.most_common(1)
            head += (
                f", {self.built} built in {duration(self.seconds)} ({rate:.2f}/s, {self.workers} workers, "
                f"kernels {self.kernel_fraction:.0%} of their time, "
                f"{slowest} {seconds / sum(self.stage_seconds.values()):.0%} of that)"
            )
        elif not self.failed:
            head += "; nothing to do, the store is complete for these parameters"
        else:
            head += ", nothing new built"
        lines = [head, *(f"  warning: {warning}" for warning in self.warnings)]
        lines += [f"  fallback {name}: {count} samples" for name, count in sorted(self.fallbacks.items())]
        if self.failed:
            lines.append(f"  {len(self.failed)} failed (recorded in the store; --retry-failed tries again):")
            lines += [f"    {sample_id} [{stage}] {reason}" for sample_id, stage, reason in self.failed]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary for `--json`."""
        return asdict(self) | {
            "store": str(self.store),
            "failed": [dict(zip(("sample_id", "stage", "reason"), row, strict=True)) for row in self.failed],
            "fallbacks": dict(self.fallbacks),
            "seconds": round(self.seconds, 3),
            "samples_per_second": round(self.built / self.seconds, 3) if self.seconds else None,
            "stage_seconds": {name: round(value, 3) for name, value in self.stage_seconds.items()},
            "kernel_fraction": round(self.kernel_fraction, 3),
            "peak_mb": round(self.peak_mb),
        }

    def take(self, outcome: Outcome, writer: StoreWriter) -> None:
        """Commit one outcome, or record why it gave no flow."""
        self.stage_seconds.update(outcome.seconds)
        self.peak_mb = max(self.peak_mb, outcome.peak_mb)
        if outcome.payload is None:
            writer.fail(outcome.sample_id, outcome.stage, outcome.reason)
            return
        try:
            writer.commit(outcome.sample_id, outcome.payload)
        except StoreMismatchError as error:  # a sample unlike the others: one grey clip among coloured
            writer.fail(outcome.sample_id, "store", str(error))
            return
        self.built += 1
        self.fallbacks.update(outcome.fallbacks)


def build_store(
    source: Source,
    store: Path,
    config: PipelineConfig | None = None,
    keep: Keep | None = None,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
) -> BuildSummary:
    """Turn a database's sheet and frames into flow in a store.

    Samples that the store holds already are left alone, so an interrupted build continues and a finished one
    does nothing. A sample that fails, or that workers die over, is recorded with its stage and reason; the
    others go on.

    Args:
        source: The copy of the database.
        store: The HDF5 file to make or extend.
        config: Parameters of the pipeline; a store takes only samples of one parameter set.
        keep: What to keep besides flow.
        options: How to run it.
        progress: Told of every sample.

    Raises:
        SheetError: The sheet is missing, unreadable, of an unknown version or gives no sample.
        UsageError: The machine cannot meet the configuration, or a flow sequence would exceed the map.
        LayoutError: The root is missing or not a known release.
        MissingDependencyError: A library is absent or broken.
        ModelFileError: A model file is missing or wrong.
        StoreMismatchError: The store was built with other parameters.
        StoreError: The store is to be repaired, and its file is damaged as a whole.
        StoreBusyError: Another build writes this store.
    """
    config, keep, options = config or PipelineConfig(), keep or Keep(), options or BuildOptions()
    progress = progress or Progress("build", quiet=True)
    root = resolve_root(source.database, source.root)
    database = get_database(source.database)
    reading = database.read(root, source.sheet)
    if not len(reading.table):
        raise SheetError(
            f"{source.database}: none of the {reading.rows} row(s) of {reading.path} gives a sample. "
            f"`mer-flow samples --db {source.database} --sheet FILE` says why; use the authors' file."
        )
    samples = list(reading.table)[: options.limit]
    locator = database.locate(root, source.release)
    if keep.sequence and not 4 <= keep.sequence_size <= config.align.size:
        raise UsageError(
            f"flow sequences can be 4 to {config.align.size} px wide, the size of the aligned face, "
            f"got {keep.sequence_size}"
        )
    start = time.monotonic()
    config = resolve(config)
    batched = options.flow_process
    if batched is None:
        batched = config.flow.device == "cuda" and not options.where.on_dask
    workers = options.workers or usable_cores()
    summary = BuildSummary(source.database, store, len(samples), workers=workers, flow_process=batched)
    bad = damaged(store, source.database) if options.repair and store.exists() else set()
    with StoreWriter(store, store_pipeline(config, keep), keep.encoding(), bad) as writer:
        summary.warnings = writer.warnings
        done = writer.begin(source.database, reading.table)
        left_out = done if options.retry_failed else done | writer.failed(source.database)
        tasks = [ClipTask.of(locator, sample) for sample in samples if sample.sample_id not in left_out]
        summary.already = sum(sample.sample_id in done for sample in samples)
        progress.expect(len(tasks), summary.already)
        with closing(_extracted(tasks, config, keep, summary, Clips(root, options.where))) as outcomes:
            for outcome in outcomes:
                summary.take(outcome, writer)
                count = f", {summary.workers} workers" if options.where.on_dask else ""
                progress.advance(note=outcome.sample_id + count)
        summary.failed = writer.failures(source.database)
        writer.finish()
    summary.seconds = time.monotonic() - start
    return summary


def build(
    database: str,
    root: Path | str | None = None,
    store: Path | str = "flows.h5",
    *,
    sheet: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    keep: Mapping[str, Any] | None = None,
    **options: Any,
) -> BuildSummary:
    """Turn a database's sheet and frames into flow in a store, as `mer-flow build` does.

    What is not said is done as in the store's first build. Progress goes to standard error.

    Args:
        database: Registered name, as in `samm`.
        root: Its tree; None for the environment's or the config file's.
        store: The HDF5 file to make or extend.
        sheet: Annotation sheet; None to search for it in the tree.
        settings: Parameters of the pipeline, as in `{"flow.tau": 0.2}`.
        keep: What to keep besides flow: fields of `Keep`, as in `{"faces": True}`.
        **options: Fields of `BuildOptions`, as in `workers=4`.

    Raises:
        UsageError: A setting or an option is unknown or wrong.
        MerFlowError: As of `build_store`.
    """
    for name in options:
        if name not in BuildOptions.__dataclass_fields__:
            raise unknown("option of a build", name, BuildOptions.__dataclass_fields__)
    tree, workbook = (Path(given) if given else None for given in (root, sheet))
    source = Source(database, tree, workbook)
    config, kept, _ = inherit(Path(store), layered(settings or {}), keep or {})
    with Progress(f"build {database}") as progress:
        return build_store(source, Path(store), config, kept, BuildOptions(**options), progress)


def _extracted(
    tasks: Sequence[ClipTask], config: PipelineConfig, keep: Keep, how: BuildSummary, clips: Clips
) -> Generator[Outcome, None, None]:
    if not tasks:
        return
    if how.flow_process:
        with LocalProcesses(min(how.workers, len(tasks))) as pool:
            yield from run_batched(pool, tasks, config, keep)
        return
    with clips.executor(min(how.workers, len(tasks))) as executor:
        extract = partial(extract_sample, config=config, keep=keep)
        for task, future in run_all(executor, extract, tasks):
            how.workers = getattr(executor, "workers", how.workers)
            yield outcome_of(task.sample.sample_id, future)


def store_pipeline(config: PipelineConfig, keep: Keep) -> dict[str, Any]:
    """Return everything a store records about its making: parameters, library versions, what is kept.

    Two stores whose records agree in what `deciding` keeps of them hold comparable maps.
    """
    record = pipeline_record(config)
    return {
        "map_kind": {"kind": "computed", "map_size": config.align.size, "values": "px"},
        "config": record["config"],
        "versions": record["versions"],
        "keep": keep.model_dump(),
    }


def inherit(
    store: Path, config: Mapping[str, Any], keep: Mapping[str, Any]
) -> tuple[PipelineConfig, Keep, dict[str, Any]]:
    """Complete settings by those that a store, or an unfinished build of it, was begun with.

    Args:
        store: The HDF5 file; it need not exist.
        config: Section -> key -> value, of what is asked for.
        keep: Fields of `Keep` that are asked for.

    Returns:
        The settings, and dotted key -> value of what the store gave instead of the default.

    Raises:
        UsageError: A setting is unknown or wrong.
        StoreError: The store cannot be read.
    """
    begun, told = begun_pipeline(store), {"config": config, "keep": keep}
    if "config" not in begun or "keep" not in begun:  # nothing there, or imported maps
        return PipelineConfig(**config), Keep(**keep), {}
    default = {"config": resolve(PipelineConfig()).to_dict(), "keep": Keep().model_dump()}
    settings = layered({name: begun[name] for name in told}, told)
    taken = {key: value for key, _, value in differing_keys(layered(default, told), settings)}
    return PipelineConfig(**settings["config"]), Keep(**settings["keep"]), taken
