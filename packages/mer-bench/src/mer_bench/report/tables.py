"""Tables of runs beside published scores, as Markdown, CSV and LaTeX: one set of rows, three renderings."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mer_bench.metrics import FULL
from mer_bench.published import SELECTS_ON_TEST, PublishedScore, published_scores
from mer_bench.report.summary import Figure, RunSummary
from mer_bench.selection import SELECTION_TITLES

FORMATS = ("md", "csv", "latex")
_SHOWN = {"uf1": "UF1", "uar": "UAR", "accuracy": "Acc"}
_DATABASE_TITLES = {"smic": "SMIC", "samm": "SAMM", "casme2": "CASME II", "casme3": "CAS(ME)^3"}


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        method: The model or the published method.
        selection: Which epoch counts, or what is known of it.
        leaks: Whether the figures are known to be chosen on the test subject.
        values: Column key to a figure, a number or text; a key that is absent prints as a dash.
    """

    method: str
    selection: str
    leaks: bool
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows that were tested on the same samples.

    Attributes:
        title: Protocol, scheme, samples.
        columns: `(key, heading)` after method and selection.
        rows: Ours, honest first, then the published ones.
        notes: What a reader must know.
    """

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def database_title(name: str) -> str:
    """Returns how a table prints a database or a pool."""
    return _DATABASE_TITLES.get(name, name)


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
    notes = _notes(summaries)
    beside = [score for score in published_scores() if score.protocol == first.manifest["protocol"]]
    if published and beside:
        if all(summary.comparable for summary in summaries if not summary.is_control):
            if not all(summary.is_control for summary in summaries):
                rows += [_published_row(score) for score in beside]
                notes += [f"{score.method}: {score.note}." for score in beside if score.note]
        else:
            deviations = next(s.manifest["deviations"] for s in summaries if s.manifest["deviations"])
            notes.append(
                "Published scores are left out: these samples are not the MEGC2019 composite ("
                + "; ".join(deviations)
                + ")."
            )
    title = (
        f"{first.manifest['protocol']}, label scheme {first.manifest['identity']['scheme']} "
        f"({'/'.join(first.manifest['classes'])}), {first.samples} samples of {first.subjects} subjects, "
        f"{len(first.manifest['folds'])} folds"
    )
    return Table(title, tuple(columns), tuple(rows), tuple(dict.fromkeys(notes)))


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


def _notes(summaries: Sequence[RunSummary]) -> list[str]:
    notes = [
        "UF1, UAR and accuracy are of predictions pooled over all folds; "
        "± is the standard deviation over seeds; the 95 % interval is a bootstrap over subjects.",
    ]
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
            passed = "; ".join(f"{name}: {why}" for name, why in summary.manifest["passed_over"])
            identity = summary.manifest["identity"]
            notes.append(
                f"{summary.title} reads {identity['view']}:{identity['normalisation']}, "
                f"as its better inputs were not to be had ({passed})."
            )
    return notes


def _number(value: Any, key: str) -> str:
    """Writes a cell for people."""
    if value is None:
        return "–"
    if isinstance(value, Figure):
        return f"{value.mean:.4f}" + (f" ± {value.sd:.4f}" if value.sd is not None else "")
    if isinstance(value, tuple):
        return f"{value[0]:.3f} to {value[1]:.3f}"
    if key.startswith("gap."):
        return f"{value:+.4f}"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _cells(row: Row, table: Table) -> list[str]:
    return [row.method, row.selection, *(_number(row.values.get(key), key) for key, _ in table.columns)]


def to_markdown(tables: Sequence[Table]) -> str:
    """Renders tables as Markdown; a leaking row is set in italics."""
    parts = []
    for table in tables:
        heads = ["method", "selection", *(heading for _, heading in table.columns)]
        lines = [f"### {table.title}", "", "| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
        for row in table.rows:
            cells = [cell.replace("|", "\\|") for cell in _cells(row, table)]
            if row.leaks:
                cells = [cell if cell == "–" else f"*{cell}*" for cell in cells]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *(f"- {note}" for note in table.notes), ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def to_csv(tables: Sequence[Table]) -> str:
    """Renders tables as one CSV: every number in full, mean, sd and interval in columns of their own."""
    keys = list(dict.fromkeys(key for table in tables for key, _ in table.columns))
    fields = ["table", "method", "selection", "leaks"]
    for key in keys:
        if key.endswith(".interval"):
            stem = key.removesuffix(".interval")
            fields += [f"{stem}.low", f"{stem}.high"]
        elif "." in key and not key.startswith("gap."):
            fields += [f"{key}.mean", f"{key}.sd"]
        else:
            fields.append(key)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fields, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            record: dict[str, Any] = {"table": table.title, "method": row.method, "selection": row.selection}
            record["leaks"] = "yes" if row.leaks else ""
            for key, value in row.values.items():
                if isinstance(value, Figure):
                    record[f"{key}.mean"], record[f"{key}.sd"] = value.mean, value.sd
                elif isinstance(value, tuple):
                    stem = key.removesuffix(".interval")
                    record[f"{stem}.low"], record[f"{stem}.high"] = value
                elif f"{key}.mean" in fields:
                    record[f"{key}.mean"] = value
                elif key in fields:
                    record[key] = value
            writer.writerow({name: value for name, value in record.items() if name in fields})
    return buffer.getvalue()


#: Ends of the keys of columns that fit a printed page.
_PRINTED = (".uf1", ".uar", "seeds")

_LATEX = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "–": "--",
        ">": "$>$",
        "<": "$<$",
    }
)


def to_latex(tables: Sequence[Table]) -> str:
    """Renders tables for LaTeX (booktabs): UF1 and UAR of each pool, gap and seeds; CSV has the rest.

    A leaking row is emphasised and says that it leaks; notes and sources are comments.
    """
    parts = []
    for table in tables:
        shown = [(key, head) for key, head in table.columns if key.endswith(_PRINTED)]
        heads = ["method", "selection", *(head for _, head in shown)]
        lines = [
            r"\begin{table}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{table.title.translate(_LATEX)}}}",
            rf"\begin{{tabular}}{{ll{'r' * len(shown)}}}",
            r"\toprule",
            " & ".join(head.translate(_LATEX) for head in heads) + r" \\",
            r"\midrule",
        ]
        published = False
        sources = []
        for row in table.rows:
            source = row.values.get("source", "")
            if source != "this run":
                sources.append(f"{row.method}: {source}.")
                if not published:
                    published = True
                    lines.append(r"\midrule")
            numbers = [_number(row.values.get(key), key) for key, _ in shown]
            cells = [cell.translate(_LATEX) for cell in (row.method, row.selection, *numbers)]
            if row.leaks:
                cells = [cell if cell == "--" else rf"\emph{{{cell}}}" for cell in cells]
            lines.append(" & ".join(cells) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [f"% {note}" for note in (*table.notes, *sources)]
        lines += [r"\end{table}", ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


RENDERERS = {"md": to_markdown, "csv": to_csv, "latex": to_latex}
