"""Tables of runs beside published scores: one row per run and selection; `render` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mer_bench.report.summary import RunSummary
from mer_bench.scores.metrics import FULL
from mer_bench.scores.published import DATABASE_NOTES, SELECTS_ON_TEST, PublishedScore
from mer_bench.scores.selection import SELECTION_TITLES
from mer_flow.databases.registry import database_title

_SHOWN = {"uf1": "UF1", "uar": "UAR", "accuracy": "Acc"}


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        method: The model or the published method.
        selection: Which epoch counts, or what is known of it.
        leaks: Whether the figures are known to be chosen on the test subject.
        values: Column key to a figure, a number or text; a key that is absent prints as a dash.
        leaking: Keys of single cells that leak, where the others do not.
    """

    method: str
    selection: str
    leaks: bool
    values: dict[str, Any] = field(default_factory=dict)
    leaking: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Table:
    """Rows that were tested on the same samples.

    Attributes:
        title: Protocol, scheme, samples.
        columns: `(key, heading)` after method and selection.
        rows: Ours, honest first, then the published ones.
        notes: What a reader must know.
        shows_selection: Whether people are shown the column of selections.
        wide: Keys of columns that are too many for a printed page; LaTeX leaves them out.
    """

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    shows_selection: bool = True
    wide: frozenset[str] = frozenset()


def build_tables(summaries: Sequence[RunSummary], published: bool = True) -> tuple[Table, ...]:
    """Builds one table per group of runs that were tested on the same samples.

    Args:
        summaries: Complete runs.
        published: Set published scores below runs of the official composite.

    Returns:
        The tables, in the order in which their first run was given.
    """
    groups: dict[tuple[str, str, str, int, int], list[RunSummary]] = {}
    for summary in summaries:
        groups.setdefault(summary.group, []).append(summary)
    return tuple(_table(group, published) for group in groups.values())


def _table(summaries: Sequence[RunSummary], published: bool) -> Table:
    first = summaries[0]
    pools = list(first.selections["last"])
    columns = []
    for pool in pools:
        name = database_title(pool)
        columns += [(f"{pool}.{metric}", f"{name} {_SHOWN[metric]}") for metric in ("uf1", "uar", "accuracy")]
        if pool == FULL:
            columns += [(f"{FULL}.{m}.interval", f"{FULL} {_SHOWN[m]} 95 %") for m in ("uf1", "uar")]
    columns += [("gap.uf1", "gap UF1"), ("gap.uar", "gap UAR"), ("seeds", "seeds")]
    columns += [
        ("train_accuracy", "train acc"),
        ("parameters", "parameters"),
        ("epoch", "epoch"),
        ("source", "source"),
    ]
    rows = [row for summary in summaries for row in _run_rows(summary, pools)]
    notes = [
        "UF1, UAR and accuracy are of predictions pooled over all folds; "
        "± is the standard deviation over seeds; the 95 % interval is a bootstrap over subjects.",
        *run_notes(summaries),
    ]
    if published:
        beside, said = published_beside(summaries)
        rows += [_published_row(score) for score in beside]
        notes += [*said, *(f"{score.method}: {score.note}." for score in beside if score.note)]
    printed = (".uf1", ".uar", "seeds")
    wide = frozenset(key for key, _ in columns if not key.endswith(printed))
    return Table(table_title(first), tuple(columns), tuple(rows), tuple(dict.fromkeys(notes)), wide=wide)


def table_title(summary: RunSummary) -> str:
    """Returns what runs of one group share: protocol, classes, samples and folds."""
    manifest = summary.manifest
    return (
        f"{manifest['protocol']}, label scheme {manifest['identity']['scheme']} "
        f"({'/'.join(manifest['classes'])}), {summary.samples} samples of {summary.subjects} subjects, "
        f"{len(manifest['folds'])} folds"
    )


def published_beside(summaries: Sequence[RunSummary]) -> tuple[tuple[PublishedScore, ...], tuple[str, ...]]:
    """Returns the published scores that may stand beside runs of one group.

    Args:
        summaries: Runs that were tested on the same samples.

    Returns:
        The scores, and notes: what to know of them, or why there are none.
    """
    scored = [summary for summary in summaries if not summary.is_control]
    if not scored or not scored[0].beside:
        return (), ()
    if not all(summary.comparable for summary in scored):
        deviations = next(s.manifest["deviations"] for s in scored if s.manifest["deviations"])
        reason = "Published scores are left out: these samples are not the MEGC2019 composite"
        return (), (f"{reason} ({'; '.join(deviations)}).",)
    beside = scored[0].beside
    databases = {database for score in beside for database in score.databases}
    return beside, tuple(note for database, note in DATABASE_NOTES.items() if database in databases)


def _run_rows(summary: RunSummary, pools: Sequence[str]) -> list[Row]:
    rows = []
    for selection, by_pool in summary.selections.items():
        values: dict[str, Any] = {}
        for pool in pools:
            for metric in _SHOWN:
                figure = by_pool[pool].figures[metric]
                values[f"{pool}.{metric}"] = figure
                if pool == FULL:
                    values[f"{FULL}.{metric}.interval"] = (figure.low, figure.high)
        if selection != "last":
            for metric in ("uf1", "uar"):
                values[f"gap.{metric}"] = summary.gap(selection, FULL, metric)
        values["seeds"] = len(summary.seeds)
        values["train_accuracy"] = summary.train_accuracy
        values["parameters"] = summary.manifest["parameters"]
        values["epoch"] = f"{summary.chosen_epochs[selection]:g} of {summary.epochs}"
        values["source"] = "this run"
        rows.append(Row(summary.title, SELECTION_TITLES[selection], selection == "oracle", values))
    return rows


def _published_row(score: PublishedScore) -> Row:
    values: dict[str, Any] = {"source": score.source}
    for pool, (uf1, uar) in score.scores.items():
        values[f"{pool}.uf1"], values[f"{pool}.uar"] = uf1, uar
    leaks = score.selects_on_test == "yes"
    return Row(f"{score.method} (published)", SELECTS_ON_TEST[score.selects_on_test], leaks, values)


def run_notes(summaries: Sequence[RunSummary]) -> list[str]:
    """Returns what a reader of these runs must know.

    Args:
        summaries: Runs of one table.
    """
    notes = []
    if any("oracle" in summary.selections for summary in summaries):
        notes.append(
            "oracle LEAKS: the held-out subject itself chooses the epoch. It is printed only to place "
            "published figures that were made so; gap is what a selection gains over the last epoch."
        )
    for summary in summaries:
        if summary.is_control:
            notes.append(f"{summary.title}: a sanity control on permuted labels, not a score.")
        said = (*summary.manifest["warnings"], *summary.notes)
        notes += [f"{summary.title}: {warning}." for warning in said]
        for pool, found in summary.selections["last"].items():
            names = ", ".join(summary.manifest["classes"][c] for c in found.absent)
            if names:
                notes.append(
                    f"{database_title(pool)} has no sample of {names}: it stays in UF1 and UAR as 0."
                )
        if summary.manifest["passed_over"]:
            identity = summary.manifest["identity"]
            notes.append(
                f"{summary.title} reads {identity['view']}:{identity['normalisation']}, as its better inputs "
                f"were not to be had ({passed_over_text(summary.manifest['passed_over'])})."
            )
    return notes


def passed_over_text(passed_over: Sequence[Sequence[str]]) -> str:
    """Says which inputs a store could not give, those of one reason together.

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
