"""What a terminal shows: a run's own table and a leaderboard, honest figures first, leaking ones marked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mer_bench.report.render import number_text
from mer_bench.report.tables import PAIR, SHOWN, Row, Table, database_title, notes_of_run, notes_of_samples
from mer_bench.scores.metrics import FULL
from mer_bench.scores.selection import HEADLINES, LEAKING, SELECTION_TITLES
from mer_bench.scores.summary import RunSummary
from mer_flow.work.progress import duration

_HEADS = {
    "last": "last epoch",
    "tail": "tail",
    "inner": "inner",
    "oracle": "oracle (LEAKS)",
    "naive": "naive choice (LEAKS)",
}
#: Warnings of a run that are printed; its manifest has them all.
_WARNINGS = 10


def align(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Set columns to equal width; the first `left` columns flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _tight(text: str) -> str:
    return text.replace("± ", "±")


def render_run(summary: RunSummary) -> str:
    """Write a run's scores, Full and per database, with the confusion of the honest selection."""
    manifest, selections, headline = summary.manifest, summary.shown, summary.headline
    parameters = f", {_plural(manifest.parameters, 'parameter')}" if manifest.parameters else ""
    leaking = [name for name in selections if name in LEAKING]
    gap = ["leakage gap"] * len(leaking)
    rows = [["", "", *(_HEADS[name] for name in selections), *gap, f"{headline}, 95 %"]]
    for pool, found in summary.selections[headline].items():
        for key, shown in SHOWN.items():
            figures = [summary.selections[name][pool].figures[key] for name in selections]
            row = [database_title(pool) if key == "uf1" else "", shown]
            row += [_tight(number_text(figure)) for figure in figures]
            row += [f"{summary.gap(name, pool, key):+.4f}" for name in leaking]
            rows.append([*row, number_text((found.figures[key].low, found.figures[key].high))])
    notes = [*notes_of_run(summary, _WARNINGS), *notes_of_samples(summary)]
    return "\n".join(
        [
            f"{summary.title}: {manifest.protocol}, {manifest.identity.scheme}, {summary.samples} samples of "
            f"{summary.subjects} subjects, {len(manifest.folds)} folds, "
            f"{_plural(len(summary.seeds), 'seed')}{parameters}",
            f"input {manifest.identity.input}; {_plural(summary.epochs, 'epoch')}; "
            f"train accuracy {summary.train_accuracy:.3f}; "
            f"trained {duration(summary.seconds)} on {', '.join(summary.devices)}",
            "",
            *align(rows, left=2),
            "",
            *_confusion(summary),
            *_members(summary),
            *(f"note: {note}" for note in notes),
        ]
    )


def _confusion(summary: RunSummary) -> list[str]:
    full = summary.selections[summary.headline][FULL]
    over = f", {len(summary.seeds)} seeds summed" if len(summary.seeds) > 1 else ""
    rows = [["true \\ predicted", *summary.manifest.classes, "F1", "recall"]]
    f1, recall = full.per_class("f1"), full.per_class("recall")
    for c, name in enumerate(summary.manifest.classes):
        rows.append([name, *map(str, full.confusion[c]), f"{f1[c]:.3f}", f"{recall[c]:.3f}"])
    return [f"confusion, {_HEADS[summary.headline]}, Full{over}", *align(rows)]


def _members(summary: RunSummary) -> list[str]:
    """Return what a run is made of, where it is made of others."""
    derived = summary.manifest.derived
    if derived is None:
        return []
    rows = [["member", "chosen for" if summary.manifest.is_choice else "weight", "UF1", "UAR"]]
    for member in summary.members:
        weight = f"{100 * member.weight:.0f} %" if summary.manifest.is_choice else f"{member.weight:.3f}"
        rows.append(
            [
                f"{member.title}, {member.input}: {member.name}",
                weight,
                f"{member.uf1:.4f}",
                f"{member.uar:.4f}",
            ]
        )
    return ["", *align(rows), ""]


def render_leaderboard(table: Table) -> str:
    """Write a leaderboard: honest against leaking figures, then databases and published ones."""
    headings = dict(table.columns)

    def text(row: Row, key: str) -> str:
        """One cell; a key that ends in a separator stands for UF1 and UAR."""
        if key[-1] not in "._":
            return _tight(number_text(row.values.get(key), key))
        pair = [row.values.get(f"{key}{metric}") for metric, _ in PAIR]
        means = [number_text(getattr(value, "mean", value)) for value in pair]
        return "–" if pair[0] is None else " / ".join(means)

    def lines(columns: Sequence[tuple[str, str]], left: int) -> list[str]:
        rows = [["#", "model", *(heading for _, heading in columns)]]
        for number, row in enumerate(table.rows, 1):
            rows.append([str(number), row.values["method"], *(text(row, key) for key, _ in columns)])
        return align(rows, left)

    keys = ("variant", "recipe", "maps", "parameters", "seeds", "headline", f"{FULL}.uf1", f"{FULL}.uar")
    first = [(key, headings[key].partition(" (")[0]) for key in keys if key in headings]
    first += [(f"inner.{FULL}.", "inner UF1 / UAR")] if f"inner.{FULL}.uf1" in headings else []
    first += [(f"oracle.{FULL}.", "oracle (LEAKS)"), ("gap.uf1", "gap UF1")]
    others = (f"{FULL}.", "gap.", *(f"{name}." for name in SELECTION_TITLES))
    pools = [key[:-4] for key in headings if key.endswith(".uf1") and not key.startswith(others)]
    beside = [name for name in HEADLINES if f"{name}.{FULL}.uf1" in headings]
    second = [(f"{name}.{FULL}.", f"{FULL} ({name})") for name in beside]
    second += [(f"{pool}.", database_title(pool)) for pool in pools]
    second += [(key, headings[key]) for key in ("gap.best", "p_best") if key in headings]
    second += [("published_", "published")] if "published_uf1" in headings else []
    second += [("exactness", "specification"), ("selects", headings["selects"])]
    by = SELECTION_TITLES.get(headings[f"{FULL}.uf1"].partition("(")[2].rstrip(")"), "headline")
    return "\n".join(
        [
            f"{table.title}; by UF1 of the {by}",
            "",
            *lines(first, left=4),
            "",
            f"UF1 / UAR of the {by} per database" if pools else "beside them",
            *lines(second, left=2),
            "",
            *(f"note: {note}" for note in table.notes),
        ]
    )


def render_table(table: Table, width: int) -> str:
    """Write a table with the columns that fit a terminal, those that a printed page has first.

    Args:
        table: One of `build_tables`.
        width: Characters of a line.
    """
    texts = {
        key: [heading, *(_tight(number_text(row.values.get(key), key)) for row in table.rows)]
        for key, heading in table.columns
    }
    # The notes say what leaking is; "oracle (LEAKS: test subject chooses)" takes half a terminal.
    short = [re.sub(r"(?<=LEAKS): [^)]*| \((?!LEAKS)[^)]*\)", "", text) for text in texts["selection"]]
    texts["selection"] = short
    places = {key: max(map(len, column)) + 2 for key, column in texts.items()}
    first = ("method", "selection", *(key for key in texts if key not in table.wide))
    shown: set[str] = set()
    for key in dict.fromkeys((*first, *texts)):
        if key in first[:2] or sum(places[name] for name in {*shown, key}) - 2 <= width:
            shown.add(key)
    left_out = [heading for key, heading in table.columns if key not in shown]
    lines = align(list(zip(*(texts[key] for key in texts if key in shown), strict=True)), left=2)
    notes = [f"note: {note}" for note in table.notes]
    if left_out:
        notes.append(f"not shown, for want of room: {', '.join(left_out)}; `--out FILE` or --format has all")
    return "\n".join([table.title, "", *lines, "", *notes])
