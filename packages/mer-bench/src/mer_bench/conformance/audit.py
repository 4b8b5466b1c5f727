"""An audit of a run from its files alone: digests, folds, leaks, selection and scores, each computed anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from mer_bench.conformance.checks import Finding
from mer_bench.conformance.leaks import NOT_VISIBLE, copied, seen_twice, spelled_two_ways
from mer_bench.errors import ConformanceError, MerBenchError, RunError
from mer_bench.protocols.composite import composite_deviations
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import MANIFEST
from mer_bench.runs.nested import inner_folds
from mer_bench.scores.choice import one_of, others_uf1
from mer_bench.scores.ensemble import average
from mer_bench.scores.metrics import FULL
from mer_bench.scores.selection import HEADLINES, select
from mer_bench.scores.summary import complete_records, summarise_records
from mer_bench.training.result import FoldResult
from mer_flow.views import NORMALISATIONS
from mer_flow.work.errors import MerFlowError

#: How far what is averaged anew may be from what was recorded as float32.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Audited:
    """A run under audit; its records are read once.

    Attributes:
        stores: The stores that it was trained from, to compare its inputs with; empty for its files alone.
    """

    run: RunDirectory
    stores: tuple[Path, ...] = ()

    @cached_property
    def records(self) -> dict[int, list[FoldResult]]:
        """Every record by seed; errors as `complete_records`."""
        return complete_records(self.run, purpose="cannot be audited")


def audit_run(path: Path, stores: Sequence[Path] = ()) -> Iterator[Finding]:
    """Yield a finding per check; without a sound manifest there is one, that it is not.

    Args:
        path: The run directory.
        stores: What it was trained from; its inputs are then read anew, each sample alone.
    """
    begin = time.perf_counter()
    try:
        audited = Audited(RunDirectory(path), tuple(stores))
    except RunError as error:
        yield Finding("digests", False, str(error), time.perf_counter() - begin)
        return
    for name, check in _CHECKS.items():
        if name == "store" and not stores:
            continue
        begin = time.perf_counter()
        try:
            passed, detail = True, check(audited)
        except (MerBenchError, MerFlowError) as error:
            passed, detail = False, str(error)
        yield Finding(name, passed, detail, time.perf_counter() - begin)


def _digests(audited: Audited) -> str:
    """Say what was compared when the manifest was read."""
    manifest = audited.run.manifest
    if not manifest.seal:
        return f"{NOT_VISIBLE}: the manifest has no seal, as those before 0.2; a changed label would not show"
    return f"{len(manifest.seal)} parts of the manifest are those that the run began with"


def _records(audited: Audited) -> str:
    """Look for records that are missing, damaged, of another run, or of no seed and fold of this one."""
    run = audited.run
    count = sum(map(len, audited.records.values()))
    known = {run.record_path(seed, fold) for seed in run.seeds for fold in run.fold_names}
    strange = sorted(set(run.path.glob("records/*/*.npz")) - known)
    if strange:
        raise ConformanceError(
            f"{len(strange)} record(s) are of no seed or fold of the {MANIFEST}, as {strange[0]}: seeds were "
            "left out after they were trained, or the records are of another run"
        )
    return f"{count} records, each written under this manifest"


def _folds(audited: Audited) -> str:
    """Cut the folds anew; no subject is on two sides of one, or the manifest could not have been read."""
    manifest = audited.run.manifest
    splitter = manifest.settings.splitter()
    nested = any("|" in fold.name for fold in manifest.folds)
    found = manifest.fold_set(covers=splitter.covers and not nested)
    if manifest.derived is not None:
        return f"{len(found)} folds, no subject on two sides; cut as those of the members"
    if found.digest() != manifest.identity.folds:
        raise ConformanceError(f"the folds are not those of the digest {manifest.identity.folds[:12]}")
    again = splitter.cut(found.population)
    if nested:
        again = inner_folds(again, len(found) // len(again), manifest.settings.fold_seed)
    if again.digest() != found.digest():
        raise ConformanceError(
            f"protocol '{manifest.protocol}' cuts these samples into other folds: some were moved by hand"
        )
    return f"{len(found)} folds, no subject on two sides; '{manifest.protocol}' cuts the same ones again"


def _row_order(audited: Audited) -> str:
    """Require the order of sample ids, so that nothing can be read off a row's place."""
    ids = audited.run.manifest.samples.sample_ids
    wrong = next((b for a, b in pairwise(ids) if a >= b), None)
    if wrong is not None:
        raise ConformanceError(
            f"the rows are not in the order of their sample ids (from {wrong} on), so a row's place may tell "
            "its class"
        )
    return "rows are in the order of their sample ids"


def _normalisation(audited: Audited) -> str:
    """Require normalisations that see one sample at a time."""
    names = audited.run.manifest.identity.normalisation.split(" + ")
    strange = sorted(set(names) - set(NORMALISATIONS))
    if strange:
        raise ConformanceError(
            f"normalisation '{strange[0]}' is none of those that see one sample at a time "
            f"({', '.join(NORMALISATIONS)}); over all samples, held-out ones would reach training"
        )
    return f"'{', '.join(names)}' sees one sample at a time"


def _selection(audited: Audited) -> str:
    """Require every epoch that was declared in every record, and choices that follow from what they name."""
    manifest = audited.run.manifest
    for records in audited.records.values():
        for record in records:
            counts = len(record.logits), len(record.train_loss), len(record.train_accuracy)
            if set(counts) != {manifest.epochs}:
                raise ConformanceError(
                    f"fold '{record.fold}', seed {record.seed} has {counts[0]} epochs, declared are "
                    f"{manifest.epochs}; a training that ends at its best epoch for the held-out subject is "
                    "a choice by it"
                )
        if manifest.derived is not None:
            _derived(audited, records)
    headline = manifest.settings.headline
    how = f"a choice by {manifest.derived.how}, " if manifest.is_choice and manifest.derived else ""
    return f"{how}{manifest.epochs} epochs in every record; the headline, {headline}, was fixed before them"


def _derived(audited: Audited, records: Sequence[FoldResult]) -> None:
    """Compute anew what was averaged or chosen from the members' recorded scores."""
    manifest, labels = audited.run.manifest, audited.run.column("labels")
    derived = manifest.derived
    assert derived is not None
    names = [member.name for member in derived.members]
    weights = np.array([[record.decided["weights"][name] for name in names] for record in records])
    if derived.how != "ensemble":
        scores = np.array([[record.decided["scores"][name] for name in names] for record in records])
        if derived.how == "jackknife":
            predicted = np.concatenate([record.members.argmax(2) for record in records], axis=1)
            ends = np.cumsum([len(record.test_index) for record in records])
            tests = [np.arange(end - len(r.test_index), end) for r, end in zip(records, ends, strict=True)]
            rows = np.concatenate([record.test_index for record in records])
            again = others_uf1(predicted, labels[rows], tests, len(manifest.classes))
            if np.abs(again - scores).max() > _ROUNDING:
                raise ConformanceError(
                    "the scores that members were chosen by are not those of the other folds"
                )
        if not np.array_equal(one_of(scores), weights):
            raise ConformanceError("a fold's member is not the best one by the scores that it was chosen by")
    for record, share in zip(records, weights, strict=True):
        if derived.how == "ensemble":
            whole = average(record.members, share, derived.mean)
        else:
            whole = record.members[share.argmax()]
        if np.abs(whole - record.logits[0]).max() > _ROUNDING:
            raise ConformanceError(
                f"fold '{record.fold}': its logits are not those of its members by their weights"
            )


def _scores(audited: Audited) -> str:
    """Compute the scores anew by scikit-learn, from the recorded logits and the sealed labels."""
    from sklearn.metrics import f1_score, recall_score

    run, labels = audited.run, audited.run.column("labels")
    summary = summarise_records(run, audited.records, draws=100)
    classes, tail = range(len(run.manifest.classes)), run.manifest.settings.tail_epochs
    for rule in HEADLINES:
        figures = summary.selections[rule][FULL].figures
        for place, records in enumerate(audited.records.values()):
            chosen = select(records, labels, rule, tail)
            how = {"labels": classes, "average": "macro", "zero_division": 0}
            for name, score in (("uf1", f1_score), ("uar", recall_score)):
                again = float(score(labels[chosen.index], chosen.predicted, **how))
                if abs(again - figures[name].per_seed[place]) > 1e-9:
                    raise ConformanceError(
                        f"{name} ({rule}) is {figures[name].per_seed[place]:.6f}, by scikit-learn {again:.6f}"
                    )
    headline = summary.selections[summary.headline][FULL].figures
    uf1, uar = headline["uf1"].mean, headline["uar"].mean
    return f"UF1 {uf1:.4f}, UAR {uar:.4f} ({summary.headline}), the same by scikit-learn"


def _composite(audited: Audited) -> str:
    """Compare what the manifest says of the composite with its samples."""
    manifest = audited.run.manifest
    if manifest.protocol != "cde":
        return f"protocol '{manifest.protocol}' is no composite"
    found = composite_deviations(manifest.fold_set().population)
    if manifest.identity.shuffle_labels is None and found != manifest.deviations:
        raise ConformanceError(
            f"the manifest tells other deviations from MEGC2019 than its samples have: {found}"
        )
    return "; ".join(found) or "these are the 442 samples of MEGC2019"


def _store(audited: Audited) -> str:
    from mer_bench.conformance.inputs_anew import compare_with_stores

    return compare_with_stores(audited.run.manifest, audited.stores)


_CHECKS: dict[str, Callable[[Audited], str]] = {
    "digests": _digests,
    "records": _records,
    "folds": _folds,
    "subjects": lambda audited: spelled_two_ways(audited.run.manifest),
    "clips": lambda audited: seen_twice(audited.run.manifest),
    "copies": lambda audited: copied(audited.run.manifest),
    "row-order": _row_order,
    "normalisation": _normalisation,
    "composite": _composite,
    "selection": _selection,
    "scores": _scores,
    "store": _store,
}
