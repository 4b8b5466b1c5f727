"""Run A against run B: the same folds, the same labels, tested subject by subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mer_bench.errors import RunError
from mer_bench.runs.directory import RunDirectory
from mer_bench.scores.bootstrap import PairedTest, mcnemar, paired_test, subject_confusions
from mer_bench.scores.metrics import METRICS, pools
from mer_bench.scores.selection import select
from mer_bench.scores.summary import complete_records, run_title


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        a: Title of run A.
        b: Title of run B.
        selection: Which epoch counts.
        seeds: Seeds of A that are compared: those of both runs, or where B has a single one, all.
        against: Those of B, likewise.
        values: Pool to metric to `(A, B)`, means over seeds.
        tests: Pool to metric (`uf1`, `uar`) to its paired test.
        mcnemar: Seed, of the run that has several, to `(only A right, only B right, p)` over all samples.
    """

    a: str
    b: str
    selection: str
    seeds: tuple[int, ...]
    against: tuple[int, ...]
    values: dict[str, dict[str, tuple[float, float]]]
    tests: dict[str, dict[str, PairedTest]]
    mcnemar: dict[int, tuple[int, int, float]]

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, lists and text."""
        return asdict(self)


def refuse_incomparable(a: RunDirectory, b: RunDirectory, purpose: str = "cannot be compared") -> None:
    """Check that two runs tested the same samples, with the same labels, in the same folds.

    Args:
        a: One run.
        b: The other.
        purpose: How an error begins, after the names of the two.

    Raises:
        RunError: They did not; says in what they differ.
    """
    ours, theirs = a.manifest, b.manifest
    where = f"{a.path} and {b.path} {purpose}: "
    for name, one, other in (
        ("protocol", ours.protocol, theirs.protocol),
        ("label scheme", ours.identity.scheme, theirs.identity.scheme),
        ("classes", ours.classes, theirs.classes),
    ):
        if one != other:
            raise RunError(f"{where}{name} {one} against {other}")
    truth, other_truth = (
        dict(zip(m.samples.sample_ids, m.samples.labels, strict=True)) for m in (ours, theirs)
    )
    differing = sorted(truth.keys() ^ other_truth.keys())
    if differing:
        named = ", ".join(differing[:3])
        raise RunError(f"{where}{len(differing)} samples are in one of them only, as {named}")
    relabelled = [sample for sample in truth if truth[sample] != other_truth[sample]]
    if relabelled:
        raise RunError(
            f"{where}{len(relabelled)} samples have other labels, as {relabelled[0]} (one may be a control)"
        )
    folds, other_folds = _test_folds(a), _test_folds(b)
    apart = sorted(
        name for name in folds.keys() | other_folds.keys() if folds.get(name) != other_folds.get(name)
    )
    if apart:
        counts = f"{len(apart)} folds, as {apart[0]}, of {len(folds)} and {len(other_folds)}"
        raise RunError(f"{where}their folds hold out different samples ({counts})")


def common_headline(runs: Sequence[RunDirectory]) -> str:
    """Return the headline of some runs, `last` or `tail`; a run of a single epoch agrees with any.

    Raises:
        RunError: They have different ones.
    """
    found = {run.manifest.settings.headline: run for run in runs if run.manifest.epochs > 1}
    if len(found) > 1:
        named = ", ".join(f"{run.path} has {name}" for name, run in found.items())
        raise RunError(f"the runs have different headlines ({named}); say which of them counts")
    return next(iter(found), "last")


def compared_seeds(a: Sequence[int], b: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Pair the seeds of two runs: those of both, and a single one, as a classifier's, with each of the other.

    >>> compared_seeds([0, 1, 2], [2, 1]), compared_seeds([0, 1, 2], [0])
    (((1, 2), (1, 2)), ((0, 1, 2), (0, 0, 0)))

    Raises:
        RunError: They share none.
    """
    if 1 in (len(a), len(b)):
        return tuple(a) * len(b), tuple(b) * len(a)
    both = tuple(sorted({*a} & {*b}))
    if not both:
        raise RunError(f"they share no seed: {list(a)} and {list(b)}")
    return both, both


def _test_folds(run: RunDirectory) -> dict[str, frozenset[str]]:
    ids = run.manifest.samples.sample_ids
    return {fold.name: frozenset(ids[i] for i in fold.test) for fold in run.manifest.folds}


def _predictions(run: RunDirectory, seeds: tuple[int, ...], selection: str) -> np.ndarray:
    """Return `(K, N)` int64 predictions, columns in the order of sample ids; -1 where none was tested."""
    labels, records = run.column("labels"), complete_records(run, sorted({*seeds}))
    predicted = np.full((len(seeds), len(labels)), -1)
    for row, seed in zip(predicted, seeds, strict=True):
        chosen = select(records[seed], labels, selection, run.manifest.settings.tail_epochs)
        row[chosen.index] = chosen.predicted
    return predicted[:, np.argsort(run.column("sample_ids"))]


def compare_runs(
    a: RunDirectory, b: RunDirectory, *, selection: str | None = None, draws: int = 10000, seed: int = 0
) -> Comparison:
    """Compare two complete runs, over the seeds that `compared_seeds` says.

    The `selection` is by default the headline of both, else `last`, `tail`, `inner` or one that leaks; `seed`
    decides the `draws` resamples and exchanges of the paired tests.

    Raises:
        RunError: One is incomplete, they are not comparable, have different headlines, or share no seed.
    """
    refuse_incomparable(a, b)
    selection = selection or common_headline((a, b))
    try:
        seeds = compared_seeds(a.seeds, b.seeds)
    except RunError as error:
        raise RunError(f"{a.path} and {b.path} cannot be compared: {error}") from None
    order = np.argsort(a.column("sample_ids"))
    labels, subjects, databases = (a.column(name)[order] for name in ("labels", "subjects", "databases"))
    predicted = [_predictions(run, each, selection) for run, each in zip((a, b), seeds, strict=True)]
    tested = np.flatnonzero((predicted[0][0] >= 0) & (predicted[1][0] >= 0))
    values: dict[str, dict[str, tuple[float, float]]] = {}
    tests: dict[str, dict[str, PairedTest]] = {}
    for pool, mask in pools(databases[tested]).items():
        rows = tested[mask]
        one, other = (
            subject_confusions(labels[rows], each[:, rows], subjects[rows], len(a.manifest.classes))
            for each in predicted
        )
        values[pool] = {
            name: (float(metric(one.sum(1)).mean()), float(metric(other.sum(1)).mean()))
            for name, metric in METRICS.items()
        }
        for name in ("uf1", "uar"):
            test = paired_test(METRICS[name], one, other, draws=draws, seed=seed)
            tests.setdefault(pool, {})[name] = test
    pairs = zip(
        max(seeds, key=lambda each: len({*each})), *(each[:, tested] for each in predicted), strict=True
    )
    samples = {number: mcnemar(labels[tested], one, other) for number, one, other in pairs}
    ours, theirs = (tuple(sorted({*each})) for each in seeds)
    titles = run_title(a.manifest), run_title(b.manifest)
    return Comparison(*titles, selection, ours, theirs, values, tests, samples)
