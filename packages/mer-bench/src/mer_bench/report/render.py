"""Tables as Markdown, CSV and LaTeX: one set of rows, three renderings."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from mer_bench.report.summary import Figure
from mer_bench.report.tables import Row, Table


def number_text(value: Any, key: str) -> str:
    """Writes a cell for people.

    Args:
        value: A figure, an interval, a number, text, or None for a dash.
        key: The column; a gap is written with its sign.

    Returns:
        The text, with four decimals.
    """
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


def _heads(table: Table, columns: Sequence[tuple[str, str]]) -> list[str]:
    lead = ["method", "selection"] if table.shows_selection else ["model"]
    return [*lead, *(heading for _, heading in columns)]


def _cells(
    row: Row,
    table: Table,
    columns: Sequence[tuple[str, str]],
    mark: Callable[[str], str],
    write: Callable[[str], str],
) -> list[str]:
    """Returns a row's texts; `write` escapes one, `mark` sets apart one that leaks."""
    lead = [("", row.method), ("", row.selection)] if table.shows_selection else [("", row.method)]
    texts = [*lead, *((key, number_text(row.values.get(key), key)) for key, _ in columns)]
    return [
        mark(write(text)) if (row.leaks or key in row.leaking) and text != "–" else write(text)
        for key, text in texts
    ]


def to_markdown(tables: Sequence[Table]) -> str:
    """Renders tables as Markdown; what leaks is set in italics."""
    parts = []
    for table in tables:
        heads = _heads(table, table.columns)
        lines = [f"### {table.title}", "", "| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
        for row in table.rows:
            cells = _cells(row, table, table.columns, "*{}*".format, lambda text: text.replace("|", "\\|"))
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
    """Renders tables for LaTeX (booktabs): what fits a printed page; CSV has the rest.

    What leaks is emphasised and says that it leaks; notes and sources are comments.
    """
    parts = []
    for table in tables:
        shown = [(key, head) for key, head in table.columns if key not in table.wide]
        heads = _heads(table, shown)
        lead = len(heads) - len(shown)
        lines = [
            r"\begin{table}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{table.title.translate(_LATEX)}}}",
            rf"\begin{{tabular}}{{{'l' * lead}{'r' * len(shown)}}}",
            r"\toprule",
            " & ".join(head.translate(_LATEX) for head in heads) + r" \\",
            r"\midrule",
        ]
        published = False
        sources = []
        for row in table.rows:
            source = row.values.get("source", "")
            if "published_source" in row.values:
                sources.append(f"{row.method}, as published: {row.values['published_source']}.")
            if source != "this run":
                sources.append(f"{row.method}: {source}.")
                if not published:
                    published = True
                    lines.append(r"\midrule")
            cells = _cells(row, table, shown, r"\emph{{{}}}".format, lambda text: text.translate(_LATEX))
            lines.append(" & ".join(cells) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [f"% {note}" for note in (*table.notes, *sources)]
        lines += [r"\end{table}", ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


RENDERERS = {"md": to_markdown, "csv": to_csv, "latex": to_latex}
