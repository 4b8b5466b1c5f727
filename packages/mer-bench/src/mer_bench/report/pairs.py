"""Paired tests of runs against each other; what they share is drawn once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mer_bench.errors import RunError
from mer_bench.report.entries import Entry
from mer_bench.report.tables import grouped, ranked
from mer_bench.scores.bootstrap import PairedTest, PairedTests, subject_confusions
from mer_bench.scores.compare import common_headline, compared_seeds, refuse_incomparable
from mer_bench.scores.metrics import METRICS

#: Resamples and exchanges, as `mer-bench compare` takes them.
DRAWS = 10000


@dataclass(frozen=True)
class Pair:
    """One run against another: over how many seeds, and how they differ in each metric."""

    seeds: int
    uf1: PairedTest
    uar: PairedTest

    def turned(self) -> Pair:
        """Return the same test with the two runs exchanged."""
        return Pair(self.seeds, *(_turned(test) for test in (self.uf1, self.uar)))


def _turned(test: PairedTest) -> PairedTest:
    return PairedTest(-test.difference, -test.high, -test.low, test.p_value)


def paired(entries: Sequence[Entry]) -> dict[str, dict[str, Pair | str]]:
    """Test every run against every other under their headlines.

    Returns:
        Key of a run to key of another to the test, or why they cannot be compared.
    """
    tests = _shared(entries)
    found: dict[str, dict[str, Pair | str]] = {entry.key: {} for entry in entries}
    for place, a in enumerate(entries):
        for b in entries[place + 1 :]:
            answer = _pair(a, b, tests)
            found[a.key][b.key] = answer
            found[b.key][a.key] = answer.turned() if isinstance(answer, Pair) else answer
    return found


def against_best(entries: Sequence[Entry]) -> dict[str, Pair]:
    """Test every run against the best single one of its group: no control, and not made of others.

    Args:
        entries: Complete runs.

    Returns:
        Path of a run to its test; without the best itself and what cannot be compared with it.
    """
    found: dict[str, Pair] = {}
    for group in grouped([entry.summary for entry in entries]):
        single = next((s for s in ranked(group) if not s.is_control and not s.manifest.derived), None)
        if single is None:
            continue
        alike = [entry for entry in entries if entry.summary.group == single.group]
        best = next(entry for entry in alike if entry.summary is single)
        tests = _shared(alike)
        answers = {entry.path: _pair(entry, best, tests) for entry in alike if entry is not best}
        found |= {path: answer for path, answer in answers.items() if isinstance(answer, Pair)}
    return found


def _shared(entries: Sequence[Entry]) -> dict[str, PairedTests]:
    """Return the tests of each run, one object for all that can be compared."""
    groups: list[list[Entry]] = []
    for entry in entries:
        for group in groups:
            if not _fault(group[0], entry):
                group.append(entry)
                break
        else:
            groups.append([entry])
    found: dict[str, PairedTests] = {}
    for group in groups:
        tests = PairedTests({entry.path: _confusions(entry) for entry in group}, draws=DRAWS)
        found |= {entry.path: tests for entry in group}
    return found


def _confusions(entry: Entry) -> np.ndarray:
    rows, subjects = entry.tested, entry.run.column("subjects")
    return subject_confusions(
        entry.labels[rows], entry.predicted, subjects[rows], len(entry.run.manifest.classes)
    )


def _fault(a: Entry, b: Entry) -> str:
    """Say why two runs cannot be compared; empty where they can."""
    try:
        refuse_incomparable(a.run, b.run, "cannot be compared")
    except RunError as error:
        return str(error).partition("cannot be compared: ")[2] or str(error)
    return ""


def _pair(a: Entry, b: Entry, tests: dict[str, PairedTests]) -> Pair | str:
    if tests[a.path] is not tests[b.path]:
        return _fault(a, b)
    try:
        common_headline((a.run, b.run))
    except RunError:
        return "they have different headlines"
    try:
        mine, other = compared_seeds([*a.records], [*b.records])
    except RunError as error:
        return str(error)
    rows = [*map([*a.records].index, mine)], [*map([*b.records].index, other)]
    uf1, uar = (tests[a.path].test(METRICS[name], a.path, b.path, rows) for name in ("uf1", "uar"))
    return Pair(len(mine), uf1, uar)
