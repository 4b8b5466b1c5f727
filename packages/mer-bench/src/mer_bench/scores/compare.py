"""Run A against run B: the same folds, the same labels, tested subject by subject."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mer_bench.errors import RunError
from mer_bench.report.summary import complete_records, run_title
from mer_bench.runs.directory import RunDirectory
from mer_bench.scores.bootstrap import PairedTest, mcnemar, paired_test, subject_confusions
from mer_bench.scores.metrics import METRICS, pools
from mer_bench.scores.selection import select


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        a: Title of run A.
        b: Title of run B.
        selection: Which epoch counts.
        seeds: Seeds that both runs have; only these are compared.
        values: Pool to metric to `(A, B)`, means over seeds.
        tests: Pool to metric (`uf1`, `uar`) to its paired test.
        mcnemar: Seed to `(only A right, only B right, p)` over all samples.
    """

    a: str
    b: str
    selection: str
    seeds: tuple[int, ...]
    values: dict[str, dict[str, tuple[float, float]]]
    tests: dict[str, dict[str, PairedTest]]
    mcnemar: dict[int, tuple[int, int, float]]

    def to_json(self) -> dict[str, Any]:
        """Returns plain numbers, lists and text."""
        return asdict(self)


def refuse_incomparable(a: RunDirectory, b: RunDirectory) -> None:
    """Checks that two runs tested the same samples, with the same labels, in the same folds.

    Raises:
        RunError: They did not; says in what they differ.
    """
    ours, theirs = a.manifest, b.manifest
    where = f"{a.path} and {b.path} cannot be compared: "
    for name, one, other in (
        ("protocol", ours["protocol"], theirs["protocol"]),
        ("label scheme", ours["identity"]["scheme"], theirs["identity"]["scheme"]),
        ("classes", ours["classes"], theirs["classes"]),
    ):
        if one != other:
            raise RunError(f"{where}{name} {one} against {other}")
    by_id = [
        dict(zip(m["samples"]["sample_ids"], m["samples"]["labels"], strict=True)) for m in (ours, theirs)
    ]
    if by_id[0].keys() != by_id[1].keys():
        differing = sorted(by_id[0].keys() ^ by_id[1].keys())
        raise RunError(
            f"{where}{len(differing)} samples are in one of them only, as {', '.join(differing[:3])}"
        )
    relabelled = [i for i in by_id[0] if by_id[0][i] != by_id[1][i]]
    if relabelled:
        raise RunError(
            f"{where}{len(relabelled)} samples have other labels, as {relabelled[0]} (one may be a control)"
        )
    folds = [_test_folds(run) for run in (a, b)]
    if folds[0] != folds[1]:
        raise RunError(f"{where}their folds hold out different samples")


def _test_folds(run: RunDirectory) -> dict[str, frozenset[str]]:
    ids = run.manifest["samples"]["sample_ids"]
    return {fold["name"]: frozenset(ids[i] for i in fold["test"]) for fold in run.manifest["folds"]}


def compare_runs(
    a: RunDirectory, b: RunDirectory, *, selection: str = "last", draws: int = 10000, seed: int = 0
) -> Comparison:
    """Compares two complete runs.

    Args:
        a: Run A.
        b: Run B.
        selection: `last`, `inner` or `oracle` (which leaks).
        draws: Resamples and exchanges of the paired tests.
        seed: Decides them.

    Returns:
        The comparison over the seeds that both have.

    Raises:
        RunError: One is incomplete, they are not comparable, or they share no seed.
    """
    refuse_incomparable(a, b)
    seeds = tuple(sorted(set(a.seeds) & set(b.seeds)))
    if not seeds:
        raise RunError(f"{a.path} has seeds {list(a.seeds)}, {b.path} has {list(b.seeds)}; they share none")
    labels, subjects, databases = a.column("labels"), a.column("subjects"), a.column("databases")
    # Both manifests list the same samples; B's rows are put into A's order.
    place = {sample: row for row, sample in enumerate(a.column("sample_ids").tolist())}
    to_a = np.array([place[sample] for sample in b.column("sample_ids").tolist()])
    chosen = []
    for run, rows in ((a, np.arange(len(labels))), (b, to_a)):
        run_labels = run.column("labels")
        predicted = np.full((len(seeds), len(labels)), -1, np.int64)
        for k, records in enumerate(complete_records(run, seeds).values()):
            one = select(records, run_labels, selection)
            predicted[k, rows[one.index]] = one.predicted
        chosen.append(predicted)
    tested = np.flatnonzero((chosen[0][0] >= 0) & (chosen[1][0] >= 0))
    values: dict[str, dict[str, tuple[float, float]]] = {}
    tests: dict[str, dict[str, PairedTest]] = {}
    for pool, mask in pools(databases[tested]).items():
        index = tested[mask]
        pair = [
            subject_confusions(
                labels[index], predicted[:, index], subjects[index], len(a.manifest["classes"])
            )
            for predicted in chosen
        ]
        values[pool] = {
            name: (float(metric(pair[0].sum(1)).mean()), float(metric(pair[1].sum(1)).mean()))
            for name, metric in METRICS.items()
        }
        tests[pool] = {
            name: paired_test(METRICS[name], *pair, draws=draws, seed=seed) for name in ("uf1", "uar")
        }
    return Comparison(
        run_title(a.manifest),
        run_title(b.manifest),
        selection,
        seeds,
        values,
        tests,
        {
            seed: mcnemar(labels[tested], chosen[0][k][tested], chosen[1][k][tested])
            for k, seed in enumerate(seeds)
        },
    )
