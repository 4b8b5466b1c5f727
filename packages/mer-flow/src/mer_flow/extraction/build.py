"""The pipeline that ties sheets, frames, faces, flow and store together; nothing else knows all of them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_flow.config import PipelineConfig
from mer_flow.databases import get_database
from mer_flow.databases.clips import ClipTask
from mer_flow.extraction.batched import run_batched
from mer_flow.extraction.extractor import pipeline_record, resolve
from mer_flow.extraction.sample import Keep, Outcome, extract_sample, prepare_worker
from mer_flow.samples import SampleTable
from mer_flow.store.writer import StoreWriter
from mer_flow.work.errors import SheetError, StoreMismatchError, UsageError
from mer_flow.work.executor import run_all
from mer_flow.work.progress import duration

#: Stages that count as kernels: decoding, face analysis, flow, head motion and strain, compression.
KERNELS = ("decode", "face", "flow", "stabilise", "compress")


@dataclass
class BuildSummary:
    """What one build did.

    Attributes:
        database: The database.
        store: The store's path.
        samples: Samples in the sheet, after `limit`.
        already: Samples that were committed before.
        built: Samples committed by this call.
        failed: `(sample_id, stage, reason)` of every sample that has no flow, earlier failures included.
        fallbacks: How many samples needed each fallback, this call only.
        seconds: Wall time of this call.
        workers: Worker processes.
        flow_process: Whether one more process computed the flow.
        stage_seconds: Seconds per stage, summed over workers.
        worker_seconds: Seconds from task start to task end, summed over workers.
        peak_mb: Largest peak resident memory of a worker, MB.
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
    worker_seconds: float = 0.0
    peak_mb: float = 0.0

    @property
    def kernel_fraction(self) -> float:
        """Share of the processes' time from first task to last commit that kernels took, in [0, 1]."""
        available = self.seconds * (self.workers + self.flow_process)
        return sum(self.stage_seconds[name] for name in KERNELS) / available if available else 0.0

    @property
    def slowest_stage(self) -> tuple[str, float]:
        """The stage that took longest and its share of all stages' time; empty where nothing was built."""
        whole = sum(self.stage_seconds.values())
        if not whole:
            return "", 0.0
        name, seconds = self.stage_seconds.most_common(1)[0]
        return name, seconds / whole

    def text(self) -> str:
        """Returns the summary for people: what was done, fallbacks counted, failures listed."""
        head = f"{self.database} -> {self.store}: {self.samples} samples, {self.already} were there"
        if self.built:
            rate = self.built / self.seconds
            head += f", {self.built} built in {duration(self.seconds)} ({rate:.2f}/s, {self.workers} workers"
            name, share = self.slowest_stage
            head += f", kernels {self.kernel_fraction:.0%} of their time, {name} {share:.0%} of that)"
        elif not self.failed:
            head += "; nothing to do, the store is complete for these parameters"
        else:
            head += ", nothing new built"
        lines = [head]
        lines += [f"  fallback {name}: {count} samples" for name, count in sorted(self.fallbacks.items())]
        if self.failed:
            lines.append(f"  {len(self.failed)} failed (recorded in the store; --retry-failed tries again):")
            lines += [f"    {sample_id} [{stage}] {reason}" for sample_id, stage, reason in self.failed]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns the summary for `--json`."""
        return {
            "database": self.database,
            "store": str(self.store),
            "samples": self.samples,
            "already": self.already,
            "built": self.built,
            "failed": [dict(zip(("sample_id", "stage", "reason"), row, strict=True)) for row in self.failed],
            "fallbacks": dict(self.fallbacks),
            "seconds": round(self.seconds, 3),
            "workers": self.workers,
            "flow_process": self.flow_process,
            "samples_per_second": round(self.built / self.seconds, 3) if self.seconds else None,
            "stage_seconds": {name: round(value, 3) for name, value in self.stage_seconds.items()},
            "kernel_fraction": round(self.kernel_fraction, 3),
            "peak_mb": round(self.peak_mb),
        }


def usable_cores() -> int:
    """Returns the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build_store(
    database: str,
    root: Path,
    store: Path,
    *,
    sheet: Path | None = None,
    release: str = "auto",
    config: PipelineConfig | None = None,
    keep: Keep | None = None,
    workers: int | None = None,
    limit: int | None = None,
    retry_failed: bool = False,
    flow_process: bool | None = None,
    on_start: Callable[[int, int], None] | None = None,
    on_sample: Callable[[Outcome], None] | None = None,
) -> BuildSummary:
    """Turns a database's sheet and frames into flow in a store.

    Samples that the store holds already are left alone, so an interrupted build continues and a finished one
    does nothing. A sample that fails is recorded with its stage and reason; the others go on.

    Args:
        database: Registered name, as in `samm`.
        root: The database's tree.
        store: The HDF5 file to make or extend.
        sheet: Annotation sheet; searched in the tree unless given.
        release: `auto` or the release to read (`raw`, `selected`, `cropped`, ...).
        config: Parameters of the pipeline; a store takes only samples of one parameter set.
        keep: What to keep besides flow.
        workers: Worker processes; one per usable core unless given.
        limit: Build the first so many samples of the sheet only; a later call adds the rest.
        retry_failed: Try recorded failures again.
        flow_process: Compute the flow in batches in one process of its own; None does so on CUDA. The store
            is the same.
        on_start: Called with (samples to do, samples already there).
        on_sample: Called with each outcome, in order of completion.

    Returns:
        What was done.

    Raises:
        SheetError: The sheet is missing, unreadable, of an unknown version or gives no sample.
        UsageError: The machine cannot meet the configuration, or a flow sequence would exceed the map.
        LayoutError: The root is missing or not a known release.
        StoreMismatchError: The store was built with other parameters.
        StoreBusyError: Another build writes this store.
        WorkerError: A worker was killed; what was committed is kept.
    """
    config = config or PipelineConfig()
    keep = keep or Keep()
    source = get_database(database)
    reading = source.read(root, sheet)
    if not len(reading.table):
        raise SheetError(
            f"{database}: none of the {reading.rows} row(s) of {reading.path} gives a sample. "
            f"`mer-flow samples --db {database} --sheet FILE` says why; use the authors' file."
        )
    table = reading.table if limit is None else SampleTable(list(reading.table)[:limit])
    locator = source.locate(root, release)
    if keep.sequence and not 4 <= keep.sequence_size <= config.align.size:
        raise UsageError(
            f"flow sequences can be 4 to {config.align.size} px wide, the size of the aligned face, "
            f"got {keep.sequence_size}"
        )
    workers = max(1, workers or usable_cores())

    start = time.monotonic()
    config = resolve(config)
    if flow_process is None:
        flow_process = config.flow.device == "cuda"
    summary = BuildSummary(database, store, len(table), workers=workers, flow_process=flow_process)
    with StoreWriter(store, store_pipeline(config, keep), keep.encoding()) as writer:
        done = writer.begin(database, reading.table)
        failed = set() if retry_failed else writer.failed(database)
        tasks = [
            ClipTask.of(locator, sample)
            for sample in table
            if sample.sample_id not in done and sample.sample_id not in failed
        ]
        summary.already = sum(sample.sample_id in done for sample in table)
        if on_start:
            on_start(len(tasks), summary.already)
        running = (
            run_batched(tasks, workers, config, keep)
            if flow_process
            else run_all(extract_sample, tasks, workers, prepare_worker, (config, keep))
        )
        with closing(running) as outcomes:
            for outcome in outcomes:
                _take(outcome, writer, summary)
                if on_sample:
                    on_sample(outcome)
        summary.failed = writer.failures(database)
        writer.finish()
    summary.seconds = time.monotonic() - start
    return summary


def _take(outcome: Outcome, writer: StoreWriter, summary: BuildSummary) -> None:
    """Commits one outcome, or records why it gave no flow."""
    summary.stage_seconds.update(outcome.seconds)
    summary.worker_seconds += outcome.wall
    summary.peak_mb = max(summary.peak_mb, outcome.peak_mb)
    if outcome.payload is None:
        writer.fail(outcome.sample_id, outcome.stage, outcome.reason)
        return
    try:
        writer.commit(outcome.sample_id, outcome.payload)
    except StoreMismatchError as error:  # a sample unlike the others, such as one grey clip among coloured
        writer.fail(outcome.sample_id, "store", str(error))
        return
    summary.built += 1
    summary.fallbacks.update(outcome.fallbacks)


def store_pipeline(config: PipelineConfig, keep: Keep) -> dict[str, Any]:
    """Returns everything a store records about its making: parameters, library versions, what is kept.

    Args:
        config: Parameters of the pipeline.
        keep: What a store keeps besides flow.

    Returns:
        JSON-able; two stores with equal records hold comparable maps.
    """
    record = pipeline_record(config)
    kind = {"kind": "computed", "map_size": config.align.size, "values": "px"}
    return {"map_kind": kind, "config": record["config"], "versions": record["versions"]} | keep.to_dict()
