"""Apex spotting over a database, and how far it lies from sheets that have apexes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mer_flow.config import SPOTTERS, PipelineConfig
from mer_flow.databases import get_database
from mer_flow.databases.clips import ClipTask
from mer_flow.extraction.build import usable_cores
from mer_flow.extraction.clip_apex import spot_methods
from mer_flow.extraction.extractor import Extractor, prepare_worker
from mer_flow.samples import UNKNOWN_FRAME
from mer_flow.work.errors import MerFlowError
from mer_flow.work.executor import run_all
from mer_flow.work.suggest import unknown


@dataclass(frozen=True, slots=True)
class SpottedSample:
    """The apexes that the spotters found for one sample.

    Attributes:
        sample_id: The sample.
        onset: The sheet's onset.
        apex: The sheet's apex; `UNKNOWN_FRAME` where it has none.
        offset: The sheet's offset.
        found: Spotter -> frame number, as the sheet counts.
        failure: Why the sample could not be spotted; empty where it could.
    """

    sample_id: str
    onset: int
    apex: int
    offset: int
    found: dict[str, int]
    failure: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the row for `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SpotterScore:
    """How far one spotter lies from the sheet.

    Attributes:
        method: The spotter.
        samples: Samples compared.
        mean_error: Mean absolute error, frames.
        median_error: Median absolute error, frames.
        relative_error: Mean absolute error as part of the clip's length.
        bias: Mean signed error, frames; positive is late.
    """

    method: str
    samples: int
    mean_error: float
    median_error: float
    relative_error: float
    bias: float


def spot_database(
    database: str,
    root: Path,
    methods: Sequence[str] = SPOTTERS,
    *,
    sheet: Path | None = None,
    release: str = "auto",
    config: PipelineConfig | None = None,
    workers: int | None = None,
    limit: int | None = None,
    only_with_apex: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_sample: Callable[[SpottedSample], None] | None = None,
) -> list[SpottedSample]:
    """Runs apex spotters over a database's clips.

    Args:
        database: Registered name.
        root: Its tree.
        methods: Spotters to run.
        sheet: Annotation sheet; searched in the tree unless given.
        release: `auto` or the release to read.
        config: Parameters of the pipeline.
        workers: Worker processes; one per usable core unless given.
        limit: The first so many samples only.
        only_with_apex: Skip samples whose sheet has no apex.
        on_start: Called with the number of samples.
        on_sample: Called with each sample, in order of completion.

    Returns:
        One row per sample, in the sheet's order; a sample that fails carries its reason.

    Raises:
        UsageError: An unknown database or spotter.
        SheetError: The sheet is missing or unreadable.
        LayoutError: The tree is no known release.
    """
    for method in methods:
        if method not in SPOTTERS:
            raise unknown("apex spotter", method, SPOTTERS)
    source = get_database(database)
    reading = source.read(root, sheet)
    locator = source.locate(root, release)
    samples = [s for s in reading.table if not only_with_apex or s.apex != UNKNOWN_FRAME][:limit]
    if on_start:
        on_start(len(samples))
    tasks = [ClipTask.of(locator, sample) for sample in samples]
    found: dict[str, SpottedSample] = {}
    arguments = (config or PipelineConfig(), tuple(methods))
    with closing(run_all(_spot_one, tasks, workers or usable_cores(), _prepare, arguments)) as rows:
        for row in rows:
            found[row.sample_id] = row
            if on_sample:
                on_sample(row)
    return [found[sample.sample_id] for sample in samples]


def score(rows: Sequence[SpottedSample]) -> list[SpotterScore]:
    """Compares spotted apexes with the sheet's.

    Args:
        rows: What `spot_database` returned; rows without an apex or with a failure do not count.

    Returns:
        One score per spotter, best first.

    >>> early = SpottedSample("a", 10, 15, 20, {"midpoint": 13})
    >>> late = SpottedSample("b", 0, 4, 9, {"midpoint": 5})
    >>> score([early, late])[0].mean_error
    1.5
    """
    compared = [row for row in rows if row.apex != UNKNOWN_FRAME and not row.failure]
    scores = []
    for method in dict.fromkeys(name for row in compared for name in row.found):
        errors = np.array([row.found[method] - row.apex for row in compared], dtype=np.float64)
        lengths = np.array([max(1, row.offset - row.onset + 1) for row in compared])
        scores.append(
            SpotterScore(
                method,
                len(compared),
                float(np.abs(errors).mean()),
                float(np.median(np.abs(errors))),
                float((np.abs(errors) / lengths).mean()),
                float(errors.mean()),
            )
        )
    return sorted(scores, key=lambda item: item.mean_error)


_settings: tuple[Extractor, tuple[str, ...]] | None = None


def _prepare(config: PipelineConfig, methods: tuple[str, ...]) -> None:
    global _settings
    _settings = prepare_worker(config), methods


def _spot_one(task: ClipTask) -> SpottedSample:
    assert _settings is not None
    engine, methods = _settings
    sample = task.sample
    found: dict[str, int] = {}
    failure = ""
    try:
        clip = task.open(engine.config.frames.nearest_limit)
        found = spot_methods(clip, methods, engine, engine.find_face(clip.read_onset(), task.cropped))
    except MerFlowError as error:
        failure = str(error)
    return SpottedSample(sample.sample_id, sample.onset, sample.apex, sample.offset, found, failure)
