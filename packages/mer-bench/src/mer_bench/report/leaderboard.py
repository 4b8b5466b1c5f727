"""The leaderboard: one row per complete run, the honest figures first, oracle and published score beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mer_bench.report.render import number_text
from mer_bench.report.summary import RunSummary, run_title
from mer_bench.report.tables import Row, Table, database_title, published_beside, run_notes, table_title
from mer_bench.report.terminal import align
from mer_bench.scores.metrics import FULL
from mer_bench.scores.published import SELECTS_ON_TEST_SHORT, PublishedScore, scores_of

_PAIR = (("uf1", "UF1"), ("uar", "UAR"))
_ORACLE = frozenset(f"oracle.{FULL}.{metric}" for metric, _ in _PAIR)
_PUBLISHED = frozenset({"published_uf1", "published_uar"})


def build_leaderboards(summaries: Sequence[RunSummary], published: bool = True) -> tuple[Table, ...]:
    """Builds one leaderboard per group of runs that were tested on the same samples.

    Args:
        summaries: Complete runs.
        published: Give each model's published score.

    Returns:
        The tables, rows by UF1 of the last epoch, the best first; controls on shuffled labels come last.
    """
    groups: dict[tuple[str, str, str, int, int], list[RunSummary]] = {}
    for summary in summaries:
        groups.setdefault(summary.group, []).append(summary)
    return tuple(_leaderboard(ranked(group), published) for group in groups.values())


def ranked(summaries: Sequence[RunSummary]) -> list[RunSummary]:
    """Sorts runs by UF1, then UAR, of the last epoch on all databases; controls come last."""

    def key(summary: RunSummary) -> tuple[bool, float, float, str]:
        figures = summary.selections["last"][FULL].figures
        return summary.is_control, -figures["uf1"].mean, -figures["uar"].mean, summary.title

    return sorted(summaries, key=key)


def _leaderboard(summaries: Sequence[RunSummary], published: bool) -> Table:
    pools = [pool for pool in summaries[0].selections["last"] if pool != FULL]
    columns = [("variant", "variant"), ("recipe", "recipe"), ("parameters", "parameters")]
    columns += [("exactness", "specification"), ("seeds", "seeds")]
    columns += [(f"{FULL}.{metric}", f"{shown} (last)") for metric, shown in _PAIR]
    if any("inner" in summary.selections for summary in summaries):
        columns += [(f"inner.{FULL}.{metric}", f"{shown} (inner)") for metric, shown in _PAIR]
    columns += [(f"oracle.{FULL}.{metric}", f"oracle {shown} (LEAKS)") for metric, shown in _PAIR]
    columns += [(f"gap.{metric}", f"gap {shown}") for metric, shown in _PAIR]
    columns += [
        (f"{pool}.{metric}", f"{database_title(pool)} {shown}") for pool in pools for metric, shown in _PAIR
    ]
    notes = [
        "UF1 and UAR are of predictions pooled over all folds; ± is the standard deviation over seeds.",
        *run_notes(summaries),
    ]
    notes += [
        f"{name} is reconstructed: `mer-bench models {model}` lists the {count} choices that were filled in."
        for name, model, count in dict.fromkeys(
            (s.manifest["title"], s.manifest["model"], len(s.manifest["filled_in"]))
            for s in summaries
            if s.manifest["exactness"] == "reconstructed"
        )
    ]
    notes += [note for summary in summaries if (note := _other_variant(summary))]
    beside: tuple[PublishedScore, ...] = ()
    if published:
        beside, said = published_beside(summaries)
        notes += said
    if beside:
        columns += [(f"published_{metric}", f"published {shown}") for metric, shown in _PAIR]
    columns += [("selects", "its code selects on test")]
    if beside:
        columns += [("published_source", "published in")]
    rows = []
    for summary in summaries:
        scores = () if summary.is_control else _own_scores(summary, beside)
        rows.append(_row(summary, scores))
        notes += [_also(summary, score) for score in scores[1:]]
        notes += [f"{score.method}, as published: {score.note}." for score in scores if score.note]
    return Table(
        table_title(summaries[0]),
        tuple(columns),
        tuple(rows),
        tuple(dict.fromkeys(notes)),
        shows_selection=False,
        wide=frozenset({"exactness", "gap.uar", "published_source"}),
    )


def _own_scores(summary: RunSummary, beside: Sequence[PublishedScore]) -> tuple[PublishedScore, ...]:
    manifest = summary.manifest
    recipe = manifest["identity"]["recipe"]
    return scores_of(manifest["model"], manifest["variant"], recipe["name"] if recipe else "", beside)


def _row(summary: RunSummary, scores: Sequence[PublishedScore]) -> Row:
    manifest = summary.manifest
    recipe = manifest["identity"]["recipe"]
    values: dict[str, Any] = {
        "variant": manifest["variant"],
        "recipe": recipe["name"] if recipe else None,
        "parameters": manifest["parameters"],
        "exactness": manifest["exactness"],
        "seeds": len(summary.seeds),
        "source": "this run",
        "selects": {True: "yes (LEAKS)", False: "no", None: "unknown"}[manifest["selects_on_test"]],
    }
    for selection, by_pool in summary.selections.items():
        for pool, found in by_pool.items():
            for metric, _ in _PAIR:
                prefix = "" if selection == "last" else f"{selection}."
                values[f"{prefix}{pool}.{metric}"] = found.figures[metric]
    if "oracle" in summary.selections:
        values |= {f"gap.{metric}": summary.gap("oracle", FULL, metric) for metric, _ in _PAIR}
    leaking = _ORACLE
    if scores:
        score = scores[0]
        values["published_uf1"], values["published_uar"] = score.scores[FULL]
        values["published_source"] = score.source
        values["selects"] = SELECTS_ON_TEST_SHORT[score.selects_on_test]
        if score.selects_on_test == "yes":
            leaking |= _PUBLISHED
    return Row(run_title(manifest, named=False), "last epoch", False, values, leaking)


def _other_variant(summary: RunSummary) -> str:
    """Says that a network of another size ran than the model's own, by its variant or its input."""
    manifest = summary.manifest
    ours, default = manifest["parameters"], manifest.get("default_variant") or {}
    theirs = default.get("parameters")
    if not ours or not theirs or ours == theirs:
        return ""
    if default["name"] == manifest["variant"]:
        return f"{manifest['title']} ran with {ours:,} parameters, by its input or options, not {theirs:,}."
    return (
        f"{manifest['title']} ran as variant {manifest['variant']} with {ours:,} parameters; "
        f"its default, {default['name']}, has {theirs:,}."
    )


def _also(summary: RunSummary, score: PublishedScore) -> str:
    figures = " / ".join("–" if value is None else f"{value:.4f}" for value in score.scores[FULL])
    return f"{summary.manifest['title']} was also published with {figures} ({score.method}: {score.source})."


def render_leaderboard(table: Table) -> str:
    """Writes a leaderboard for a terminal: honest against leaking figures, then databases and published ones.

    Args:
        table: As `build_leaderboards` makes them.

    Returns:
        Plain text of several lines.
    """
    headings = dict(table.columns)

    def cell(row: Row, key: str) -> str:
        return number_text(row.values.get(key), key).replace("± ", "±")

    def pair(row: Row, prefix: str) -> str:
        values = [row.values.get(f"{prefix}{metric}") for metric, _ in _PAIR]
        means = [getattr(value, "mean", value) for value in values]
        return "–" if means[0] is None else " / ".join(number_text(mean, "") for mean in means)

    keys = ("variant", "recipe", "parameters", "seeds", f"{FULL}.uf1", f"{FULL}.uar")
    inner = f"inner.{FULL}.uf1" in headings
    first = [["#", "model", *(headings[key].removesuffix(" (last)") for key in keys)]]
    first[0] += ["inner UF1 / UAR"] if inner else []
    first[0] += ["oracle (LEAKS)", "gap UF1"]
    pools = [key.removesuffix("uf1") for key in headings if key.endswith(".uf1") and _is_database(key)]
    second = [["#", "model", *(database_title(pool.removesuffix(".")) for pool in pools)]]
    second[0] += ["published"] if "published_uf1" in headings else []
    second[0] += ["specification", headings["selects"]]
    for number, row in enumerate(table.rows, 1):
        line = [str(number), row.method, *(cell(row, key) for key in keys)]
        line += [pair(row, f"inner.{FULL}.")] if inner else []
        first.append([*line, pair(row, f"oracle.{FULL}."), cell(row, "gap.uf1")])
        line = [str(number), row.method, *(pair(row, pool) for pool in pools)]
        line += [pair(row, "published_")] if "published_uf1" in headings else []
        second.append([*line, cell(row, "exactness"), cell(row, "selects")])
    lines = [f"{table.title}; by UF1 of the last epoch", "", *align(first, left=4), ""]
    lines += ["UF1 / UAR of the last epoch per database" if pools else "beside them", *align(second, left=2)]
    lines += ["", *(f"note: {note}" for note in table.notes)]
    return "\n".join(lines)


def _is_database(key: str) -> bool:
    return not key.startswith((f"{FULL}.", "gap.", "inner.", "oracle."))
