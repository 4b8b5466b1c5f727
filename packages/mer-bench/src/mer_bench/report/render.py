"""Tables as Markdown, CSV and LaTeX: one set of rows, three renderings."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from mer_bench.report.tables import Row, Table
from mer_bench.scores.summary import Figure
from mer_flow.work.cells import safe_cell

Columns = Sequence[tuple[str, str]]

#: Columns that are flush left.
_TEXTS = ("method", "selection")


def number_text(value: Any, key: str = "") -> str:
    """Write a cell for people, with four decimals.

    Args:
        value: A figure, an interval, a number, text, or None for a dash.
        key: The column; a gap is written with its sign.
    """
    if value is None:
        return "–"
    if isinstance(value, Figure):
        return f"{value.mean:.4f}" + (f" ± {value.sd:.4f}" if value.sd is not None else "")
    if isinstance(value, tuple):
        return f"{value[0]:.3f} to {value[1]:.3f}"
    if isinstance(value, float):
        return f"{value:+.4f}" if key.startswith("gap.") else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cells(row: Row, columns: Columns, write: Callable[[str], str], mark: str) -> list[str]:
    """Return a row's texts; `write` escapes one, the format `mark` sets apart one that leaks."""
    texts = {key: number_text(row.values.get(key), key) for key, _ in columns}
    return [
        mark.format(write(text)) if (row.leaks or key in row.leaking) and text != "–" else write(text)
        for key, text in texts.items()
    ]


def to_markdown(tables: Sequence[Table]) -> str:
    """Render tables as Markdown; what leaks is set in italics."""
    lines: list[str] = []
    for table in tables:
        rows = [[heading for _, heading in table.columns], ["---"] * len(table.columns)]
        rows += [
            _cells(row, table.columns, lambda text: text.replace("|", "\\|"), "*{}*") for row in table.rows
        ]
        lines += [f"### {table.title}", "", *(f"| {' | '.join(row)} |" for row in rows)]
        lines += ["", *(f"- {note}" for note in table.notes), ""]
    return "\n".join(lines)


def _fields(key: str) -> list[str]:
    """Return the CSV columns of a table's column: mean, sd and interval in columns of their own."""
    if key.endswith(".interval"):
        stem = key.removesuffix(".interval")
        return [f"{stem}.low", f"{stem}.high"]
    return [f"{key}.mean", f"{key}.sd"] if "." in key and not key.startswith("gap.") else [key]


def to_csv(tables: Sequence[Table]) -> str:
    """Render tables as one CSV, every number in full; no text is a formula."""
    lead = ("table", "method", "selection", "leaks")
    keys = list(dict.fromkeys(key for table in tables for key, _ in table.columns if key not in lead))
    names = [*lead, *(name for key in keys for name in _fields(key))]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            record = {"table": table.title, "leaks": "yes" if row.leaks else ""}
            record |= {key: row.values[key] for key in _TEXTS}
            for key in keys:
                value = row.values.get(key)
                parts = (value.mean, value.sd) if isinstance(value, Figure) else value
                record |= zip(_fields(key), parts if isinstance(parts, tuple) else (parts,), strict=False)
            writer.writerow({key: safe_cell(value) for key, value in record.items()})
    return buffer.getvalue()


_LATEX = str.maketrans(
    {sign: rf"\{sign}" for sign in "&%$#_{}"}
    | {"^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "\\": r"\textbackslash{}"}
    | {"±": r"$\pm$", "–": "--", ">": "$>$", "<": "$<$"}
)


def to_latex(tables: Sequence[Table]) -> str:
    """Render tables for LaTeX (booktabs): what fits a printed page; CSV has the rest.

    What leaks is emphasised and says that it leaks; notes and sources are comments.
    """
    lines: list[str] = []
    for table in tables:
        shown = [(key, heading) for key, heading in table.columns if key not in table.wide]
        lines += [
            r"\begin{table}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{table.title.translate(_LATEX)}}}",
            rf"\begin{{tabular}}{{{''.join('l' if key in _TEXTS else 'r' for key, _ in shown)}}}",
            r"\toprule",
            " & ".join(heading.translate(_LATEX) for _, heading in shown) + r" \\",
            r"\midrule",
        ]
        sources: list[str] = []
        for row in table.rows:
            method, source = row.values["method"], row.values["source"]
            if "published_source" in row.values:
                sources.append(f"{method}, as published: {row.values['published_source']}.")
            if source != "this run":
                lines += [] if sources else [r"\midrule"]
                sources.append(f"{method}: {source}.")
            cells = _cells(row, shown, lambda text: text.translate(_LATEX), r"\emph{{{}}}")
            lines.append(" & ".join(cells) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in (*table.notes, *sources))]
        lines += [r"\end{table}", ""]
    return "\n".join(lines)


RENDERERS = {"md": to_markdown, "csv": to_csv, "latex": to_latex}
