"""What a site is made of: complete runs with what they said of every sample, and runs that are left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import softmax

from mer_bench.errors import MerBenchError
from mer_bench.report.tables import ranked
from mer_bench.runs.directory import RunDirectory
from mer_bench.scores.course import Course, course_of
from mer_bench.scores.selection import select
from mer_bench.scores.summary import RunSummary, complete_records, summarise_records
from mer_bench.training.result import FoldResult


@dataclass(frozen=True)
class LeftOut:
    """A run without scores, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """What a run said of one sample, under its headline.

    Attributes:
        says: The class that most seeds predict.
        right: How many seeds are right.
        seeds: Of how many.
        shares: `(C,)` float64, softmax of what the run gives, mean over seeds.
        truth: The true class.
    """

    says: int
    right: int
    seeds: int
    shares: np.ndarray
    truth: int

    @property
    def rate(self) -> float:
        """Share of the seeds that are right."""
        return self.right / self.seeds


class Entry:
    """A complete run.

    Attributes:
        key: Name of its page, unique in the site and safe in a path.
        label: Its title, with what tells it from others of the same title.
    """

    def __init__(self, run: RunDirectory, records: dict[int, list[FoldResult]]):
        self.run, self.records = run, records
        self.summary: RunSummary = summarise_records(run, records)
        self.key = self.label = ""

    @property
    def path(self) -> str:
        """Its directory."""
        return self.summary.path

    @property
    def is_control(self) -> bool:
        """Whether the labels were permuted."""
        return self.summary.is_control

    @cached_property
    def labels(self) -> np.ndarray:
        """`(N,)` int64, in the rows of the run's samples."""
        return self.run.column("labels")

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Sample ids of the rows."""
        return self.run.manifest.samples.sample_ids

    @cached_property
    def course(self) -> Course | None:
        """How it went with the epochs; None where there is but one."""
        return course_of(self.records, self.labels) if self.summary.epochs > 1 else None

    @cached_property
    def tested(self) -> np.ndarray:
        """`(M,)` int64, the tested rows, ascending."""
        return self._headline[0]

    @cached_property
    def predicted(self) -> np.ndarray:
        """`(K, M)` int64 under the headline, rows in the order of seeds."""
        return self._headline[1].argmax(2)

    @cached_property
    def _headline(self) -> tuple[np.ndarray, np.ndarray]:
        tail = self.run.manifest.settings.tail_epochs
        picked = [select(folds, self.labels, self.summary.headline, tail) for folds in self.records.values()]
        return picked[0].index, np.stack([one.scores for one in picked])

    @cached_property
    def answers(self) -> dict[str, Answer]:
        """What it said, by sample id."""
        index, scores = self._headline
        shares = softmax(scores, axis=2).mean(0)
        found = {}
        for column, row in enumerate(index):
            said, truth = self.predicted[:, column], int(self.labels[row])
            counts = np.bincount(said, minlength=scores.shape[2])
            best = int(np.lexsort((shares[column], counts))[-1])
            right = int((said == truth).sum())
            found[self.ids[row]] = Answer(best, right, len(said), shares[column], truth)
        return found


def read_entries(
    paths: Iterable[Path], seeds: Sequence[int] | None = None
) -> tuple[list[Entry], list[LeftOut]]:
    """Read runs, the best first within those that were tested alike; what cannot be scored is left out.

    Args:
        paths: Run directories.
        seeds: Seeds to take; all by default.
    """
    entries, left_out = [], []
    for path in paths:
        try:
            run = RunDirectory(path)
            entries.append(Entry(run, complete_records(run, seeds)))
        except MerBenchError as error:
            left_out.append(LeftOut(str(path), str(error)))
    place = {id(s): at for at, s in enumerate(ranked([entry.summary for entry in entries]))}
    entries.sort(key=lambda entry: place[id(entry.summary)])
    names = [entry.run.path.resolve().name for entry in entries]
    for entry, key, label in zip(entries, slugs(names), _labels(entries), strict=True):
        entry.key, entry.label = key, label
    return entries, left_out


def _labels(entries: Sequence[Entry]) -> list[str]:
    """Return titles that differ: with the input, the store or the digest where two are the same."""
    found = [entry.summary.title for entry in entries]
    for further in (
        [entry.run.manifest.identity.input for entry in entries],
        [Path(entry.run.manifest.store).name for entry in entries],
        [entry.run.manifest.digest[:6] for entry in entries],
    ):
        counts = Counter(found)
        found = [f"{t}, {more}" if counts[t] > 1 else t for t, more in zip(found, further, strict=True)]
    return found


def slugs(names: Sequence[str]) -> list[str]:
    """Return names for files: safe in a path and an address, and different even where case is not told.

    >>> slugs(["smic/s1/a", "smic s1 a", "../x"])
    ['smic-s1-a', 'smic-s1-a-2', 'x']
    """
    taken: set[str] = set()
    found = []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:100] or "unnamed"
        slug, number = stem, 2
        while slug.lower() in taken:
            slug, number = f"{stem}-{number}", number + 1
        taken.add(slug.lower())
        found.append(slug)
    return found
