"""Apex spotting over a database, and how far it lies from sheets that have apexes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from mer_flow.config import SPOTTERS, PipelineConfig
from mer_flow.databases import get_database
from mer_flow.databases.clips import Clips, ClipTask
from mer_flow.databases.layout import resolve_root
from mer_flow.databases.source import Source
from mer_flow.extraction.apex import spot_clip
from mer_flow.extraction.extractor import worker_extractor
from mer_flow.samples import UNKNOWN_FRAME
from mer_flow.work.errors import MerFlowError, WorkerError
from mer_flow.work.executor import run_all, usable_cores
from mer_flow.work.progress import Progress
from mer_flow.work.suggest import unknown
from mer_flow.work.where import Where


@dataclass(frozen=True, slots=True)
class SpottedSample:
    """The apexes that the spotters found for one sample; frames are numbered as in its sheet.

    Attributes:
        apex: The sheet's; `UNKNOWN_FRAME` where it has none.
        found: Spotter -> frame number.
        failure: Why the sample could not be spotted; empty where it could.
    """

    sample_id: str
    onset: int
    apex: int
    offset: int
    found: dict[str, int]
    failure: str = ""


@dataclass(frozen=True, slots=True)
class SpotterScore:
    """How far one spotter lies from the sheet.

    Attributes:
        samples: How many were compared.
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
    source: Source,
    methods: Sequence[str] = SPOTTERS,
    workers: int | None = None,
    limit: int | None = None,
    only_with_apex: bool = False,
    progress: Progress | None = None,
    where: Where | None = None,
) -> list[SpottedSample]:
    """Run apex spotters over a database's clips.

    Args:
        source: The copy of the database.
        methods: Some of `SPOTTERS`.
        workers: Worker processes; one per usable core unless given.
        limit: The first so many samples only.
        only_with_apex: Skip samples whose sheet has no apex.
        progress: Told of every sample.
        where: Where clips are worked on.

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
    root = resolve_root(source.database, source.root)
    database = get_database(source.database)
    table = database.read(root, source.sheet).table
    locator = database.locate(root, source.release)
    samples = [s for s in table if not only_with_apex or s.apex != UNKNOWN_FRAME][:limit]
    progress = progress or Progress("spot", quiet=True)
    progress.expect(len(samples))
    tasks = [ClipTask.of(locator, sample) for sample in samples]
    spot = partial(_spot_one, methods=tuple(methods))
    found: dict[str, SpottedSample] = {}
    clips = Clips(root, where or Where())
    with clips.executor(workers or usable_cores()) as pool, closing(run_all(pool, spot, tasks)) as running:
        for task, future in running:
            sample_id = task.sample.sample_id
            try:
                found[sample_id] = future.result()
            except WorkerError as error:
                found[sample_id] = _row(task, {}, str(error))
            progress.advance(note=sample_id)
    return [found[sample.sample_id] for sample in samples]


def _spot_one(task: ClipTask, methods: tuple[str, ...]) -> SpottedSample:
    engine = worker_extractor(PipelineConfig(), flow=False)
    try:
        clip = task.open(engine.config.frames.nearest_limit)
        face = engine.find_face(clip.read_onset(), task.cropped, clip.others())
        return _row(task, spot_clip(clip, methods, engine, face))
    except MerFlowError as error:
        return _row(task, {}, str(error))


def _row(task: ClipTask, found: dict[str, int], failure: str = "") -> SpottedSample:
    sample = task.sample
    return SpottedSample(sample.sample_id, sample.onset, sample.apex, sample.offset, found, failure)


def score(rows: Sequence[SpottedSample]) -> list[SpotterScore]:
    """Compare spotted apexes with the sheet's.

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
    lengths = np.array([max(1, row.offset - row.onset + 1) for row in compared])
    scores = []
    for method in dict.fromkeys(name for row in compared for name in row.found):
        errors = np.array([row.found[method] - row.apex for row in compared], dtype=np.float64)
        apart = np.abs(errors)
        figures = (apart.mean(), np.median(apart), (apart / lengths).mean(), errors.mean())
        scores.append(SpotterScore(method, len(compared), *map(float, figures)))
    return sorted(scores, key=lambda item: item.mean_error)
