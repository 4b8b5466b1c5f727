"""Tables of runs beside published scores: one row per run and selection; `render` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mer_bench.scores.metrics import FULL
from mer_bench.scores.published import DATABASE_NOTES, SELECTS_ON_TEST, PublishedScore
from mer_bench.scores.selection import LEAKING, SELECTION_TITLES
from mer_bench.scores.summary import RunSummary
from mer_flow.databases.registry import database_title

SHOWN = {"uf1": "UF1", "uar": "UAR", "accuracy": "Acc"}
#: The two that published scores have.
PAIR = (("uf1", "UF1"), ("uar", "UAR"))


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        values: Column key to a figure, a number or text; a key that is absent prints as a dash.
        leaks: Whether the figures are known to be chosen on the test subject.
        leaking: Keys of single cells that leak, where the others do not.
    """

    values: dict[str, Any]
    leaks: bool = False
    leaking: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """Rows that were tested on the same samples.

    Attributes:
        title: Protocol, scheme, samples.
        columns: `(key, heading)`.
        rows: Ours, honest first, then the published ones.
        notes: What a reader must know.
        wide: Keys of columns that are too many for a printed page; LaTeX leaves them out.
    """

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    wide: frozenset[str]


def grouped(summaries: Sequence[RunSummary]) -> list[list[RunSummary]]:
    """Return runs by the samples that they were tested on, groups in the order of their first runs."""
    groups: dict[tuple[Any, ...], list[RunSummary]] = {}
    for summary in summaries:
        groups.setdefault(summary.group, []).append(summary)
    return list(groups.values())


def ranked(summaries: Sequence[RunSummary]) -> list[RunSummary]:
    """Sort runs by UF1, then UAR, of their headlines on all databases; controls come last."""

    def key(summary: RunSummary) -> tuple[bool, float, float, str]:
        figures = summary.selections[summary.headline][FULL].figures
        return summary.is_control, -figures["uf1"].mean, -figures["uar"].mean, summary.title

    return sorted(summaries, key=key)


def build_tables(summaries: Sequence[RunSummary], published: bool = True) -> tuple[Table, ...]:
    """Build one table per group of runs that were tested on the same samples.

    Args:
        summaries: Complete runs.
        published: Set published scores below runs of the official composite.
    """
    return tuple(_table(group, published) for group in grouped(summaries))


def _table(summaries: Sequence[RunSummary], published: bool) -> Table:
    pools, beside = list(summaries[0].selections["last"]), published_beside(summaries, published)
    columns = [("method", "method"), ("selection", "selection")]
    for pool in pools:
        columns += [(f"{pool}.{key}", f"{database_title(pool)} {shown}") for key, shown in SHOWN.items()]
        if pool == FULL:
            columns += [(f"{FULL}.{key}.interval", f"{FULL} {shown} 95 %") for key, shown in PAIR]
    columns += [(f"gap.{key}", f"gap {shown}") for key, shown in PAIR]
    columns += [("seeds", "seeds"), ("train_accuracy", "train acc"), ("parameters", "parameters")]
    columns += [("epoch", "epoch"), ("source", "source")]
    printed = ("method", "selection", ".uf1", ".uar", "seeds")
    rows = [row for summary in summaries for row in _run_rows(summary, pools)]
    notes = [
        "UF1, UAR and accuracy are of predictions pooled over all folds; "
        "± is the standard deviation over seeds; the 95 % interval is a bootstrap over subjects.",
        *run_notes(summaries, beside),
        *(f"{score.method}: {score.note}." for score in beside if score.note),
    ]
    return Table(
        table_title(summaries[0]),
        tuple(columns),
        (*rows, *map(_published_row, beside)),
        tuple(dict.fromkeys(notes)),
        frozenset(key for key, _ in columns if not key.endswith(printed)),
    )


def _run_rows(summary: RunSummary, pools: Sequence[str]) -> list[Row]:
    rows = []
    for selection in summary.shown:
        found = summary.selections[selection]
        full = found[FULL].figures
        values: dict[str, Any] = {
            "method": summary.title,
            "selection": SELECTION_TITLES[selection],
            **{f"{pool}.{key}": found[pool].figures[key] for pool in pools for key in SHOWN},
            **{f"{FULL}.{key}.interval": (full[key].low, full[key].high) for key, _ in PAIR},
            "seeds": len(summary.seeds),
            "train_accuracy": summary.train_accuracy,
            "parameters": summary.manifest.parameters,
            "epoch": _epoch_text(summary, selection),
            "source": "this run",
        }
        if selection != summary.headline:
            values |= {f"gap.{key}": summary.gap(selection, FULL, key) for key, _ in PAIR}
        rows.append(Row(values, leaks=selection in LEAKING))
    return rows


def _epoch_text(summary: RunSummary, selection: str) -> str:
    chosen = f"{summary.chosen_epochs[selection]:g}"
    several = selection == "tail" and summary.chosen_epochs["tail"] < summary.epochs
    return f"{chosen}{f' to {summary.epochs}' if several else ''} of {summary.epochs}"


def _published_row(score: PublishedScore) -> Row:
    selection = SELECTS_ON_TEST[score.selects_on_test][0]
    values: dict[str, Any] = {"method": f"{score.method} (published)", "selection": selection}
    for pool, (uf1, uar) in score.scores.items():
        values |= {f"{pool}.uf1": uf1, f"{pool}.uar": uar}
    return Row({**values, "source": score.source}, leaks=score.selects_on_test == "yes")


def table_title(summary: RunSummary) -> str:
    """Return what runs of one group share: protocol, classes, samples and folds."""
    manifest = summary.manifest
    return (
        f"{manifest.protocol}, label scheme {manifest.identity.scheme} ({'/'.join(manifest.classes)}), "
        f"{summary.samples} samples of {summary.subjects} subjects, {len(manifest.folds)} folds"
    )


def published_beside(summaries: Sequence[RunSummary], wanted: bool = True) -> tuple[PublishedScore, ...]:
    """Return the published scores, if any are wanted, that may stand beside runs of one group."""
    scored = [summary for summary in summaries if not summary.is_control]
    fit = wanted and scored and all(summary.comparable for summary in scored)
    return scored[0].beside if fit else ()


def headlines_of(summaries: Sequence[RunSummary]) -> tuple[str, ...]:
    """Return the headlines of some runs, each once; a run of a single epoch agrees with any."""
    several = [summary.headline for summary in summaries if summary.epochs > 1]
    return tuple(dict.fromkeys(several or [summaries[0].headline]))


def run_notes(summaries: Sequence[RunSummary], beside: Sequence[PublishedScore]) -> list[str]:
    """Return what a reader of these runs of one group, and of published scores beside them, must know."""
    notes = []
    if any("oracle" in summary.selections for summary in summaries):
        notes.append(
            "oracle LEAKS: the held-out subject itself chooses the epoch. It is printed only to place "
            "published figures that were made so; gap is what a selection gains over "
            f"the headline fixed before a run ({' or '.join(headlines_of(summaries))})."
        )
    shared: dict[str, list[str]] = {}
    for summary in summaries:
        for note in notes_of_run(summary):
            shared.setdefault(note, []).append(summary.title)
    notes += [f"{_together(titles, len(summaries))}: {note}" for note, titles in shared.items()]
    for summary in summaries:
        notes += notes_of_samples(summary)
    databases = {database for score in beside for database in score.databases}
    return notes + [note for database, note in DATABASE_NOTES.items() if database in databases]


def _together(titles: Sequence[str], of: int) -> str:
    """Name the runs that a note is of.

    >>> _together(["HTNet"], 1), _together(["HTNet", "SSSNet"], 2), _together(list("ABCDEF"), 9)
    ('HTNet', 'all of them', 'A, B, C and 3 more')
    """
    if len(titles) == of > 1:
        return "all of them"
    more = [f"{len(titles) - 3} more"] if len(titles) > 4 else []
    return " and ".join([", ".join(titles[: 3 if more else None]), *more])


def notes_of_run(summary: RunSummary, limit: int | None = None) -> list[str]:
    """Return what is to be said of one run, with at most `limit` of its manifest's warnings."""
    manifest = summary.manifest
    notes = ["a sanity control on permuted labels, not a score."] if summary.is_control else []
    notes += _derived_notes(summary, named=limit is None)
    notes += [f"{warning}." for warning in manifest.warnings[:limit]]
    if limit is not None and len(manifest.warnings) > limit:
        notes.append(f"{len(manifest.warnings) - limit} more warnings in {summary.path}/manifest.json.")
    notes += [f"{note}." for note in summary.notes]
    if manifest.passed_over:
        missed = passed_over_text(manifest.passed_over)
        notes.append(f"reads {manifest.identity.input}; its better inputs were not to be had ({missed}).")
    return notes


_WEIGHTS = {"equal": "equal weights", "fitted": "weights fitted in each fold on the other folds' subjects"}
_CHOSEN = {
    "jackknife": "for each fold the member that is best on the other folds' finished records; not nested "
    "cross-validation, as the networks of those records have trained on the subject that is held out",
    "nested": "for each fold the member that is best in {k} inner folds of the other subjects, trained anew",
}


def _derived_notes(summary: RunSummary, named: bool) -> list[str]:
    """Say how a run was made of others, of which if `named`, and what the naive choice would have gained."""
    derived = summary.manifest.derived
    if derived is None:
        return []
    share = "for {:.0%}" if summary.manifest.is_choice else "{:.3f}"
    members = ", ".join(f"{m.title}, {m.input} ({m.name}, {share.format(m.weight)})" for m in summary.members)
    of = SELECTION_TITLES[derived.selection]
    if derived.how == "ensemble":
        notes = [f"mean {derived.mean} of its members ({of}; {_WEIGHTS[derived.weights]})."]
    else:
        notes = [f"takes {_CHOSEN[derived.how].format(k=derived.inner_k)} ({of})."]
        naive = " / ".join(f"{summary.selections['naive'][FULL].figures[key].mean:.4f}" for key, _ in PAIR)
        gains = " / ".join(f"{summary.gap('naive', FULL, key):+.4f}" for key, _ in PAIR)
        notes.append(
            f"naive choice LEAKS: the best of all its members, by the very samples scored here, reads "
            f"UF1 / UAR {naive} ({gains}). It is printed only to show what such a choice gains."
        )
    return [*notes, *[f"its members: {members}."] * named]


def notes_of_samples(summary: RunSummary) -> list[str]:
    """Return what is to be said of the samples of a run, which those of its group share."""
    manifest, notes = summary.manifest, []
    for pool, found in summary.selections["last"].items():
        names = ", ".join(manifest.classes[c] for c in found.absent)
        if names and pool != FULL:  # the manifest warns of a class without any sample
            notes.append(f"{database_title(pool)} has no sample of {names}: it stays in UF1 and UAR as 0.")
    if manifest.deviations and not summary.is_control:
        reason = "Published scores are left out: these samples are not the MEGC2019 composite"
        notes.append(f"{reason} ({'; '.join(manifest.deviations)}).")
    return notes


def passed_over_text(passed_over: Sequence[Sequence[str]]) -> str:
    """Say which inputs a store could not give, those of one reason together.

    Args:
        passed_over: `(view:normalisation, reason)`; only the fault is said of a reason, not the remedy.

    >>> passed_over_text([("a:raw", "x.h5 cannot give a:raw: it holds no clips. Build anew.")])
    'a:raw: it holds no clips'
    """
    inputs: dict[str, list[str]] = {}
    for name, reason in passed_over:
        fault = reason.partition(f"cannot give {name}: ")[2] or reason
        inputs.setdefault(fault.partition(". ")[0].rstrip("."), []).append(name)
    return "; ".join(f"{', '.join(names)}: {fault}" for fault, names in inputs.items())
