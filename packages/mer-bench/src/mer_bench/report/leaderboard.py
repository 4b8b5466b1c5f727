"""The leaderboard: one row per complete run, its headline first, oracle and published score beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mer_bench.report.pairs import Pair
from mer_bench.report.tables import (
    PAIR,
    Row,
    Table,
    database_title,
    grouped,
    headlines_of,
    published_beside,
    ranked,
    run_notes,
    table_title,
)
from mer_bench.scores.metrics import FULL
from mer_bench.scores.published import SELECTS_ON_TEST, PublishedScore, scores_of
from mer_bench.scores.selection import HEADLINES, SELECTION_TITLES
from mer_bench.scores.summary import RunSummary, run_title

#: UF1 minus that of the best single run.
_BEST = "gap.best"
_ORACLE = frozenset(f"oracle.{FULL}.{key}" for key, _ in PAIR)
_PUBLISHED = frozenset(f"published_{key}" for key, _ in PAIR)


def build_leaderboards(
    summaries: Sequence[RunSummary], published: bool = True, tested: Mapping[str, Pair] | None = None
) -> tuple[Table, ...]:
    """Build one leaderboard per group of runs that were tested on the same samples, the best first.

    Args:
        summaries: Complete runs.
        published: Give each model's published score.
        tested: Path of a run to its test against the best single one (`pairs.against_best`).
    """
    return tuple(_leaderboard(ranked(group), published, tested or {}) for group in grouped(summaries))


def _pair(key: str, heading: str) -> list[tuple[str, str]]:
    """Return the columns of UF1 and UAR: `{}` stands for the metric in key and heading."""
    return [(key.format(metric), heading.format(shown)) for metric, shown in PAIR]


def _leaderboard(summaries: Sequence[RunSummary], published: bool, tested: Mapping[str, Pair]) -> Table:
    beside = published_beside(summaries, published)
    own = [
        ()
        if s.is_control or s.manifest.derived
        else scores_of(s.manifest.model, s.manifest.variant, s.recipe, beside)
        for s in summaries
    ]
    columns = [("method", "model"), *((key, key) for key in ("variant", "recipe", "parameters"))]
    stores = {_maps(summary) for summary in summaries if not summary.manifest.derived}
    columns += [("maps", "maps")] if len(stores) > 1 else []
    columns += [("exactness", "specification"), ("seeds", "seeds")]
    shared, *others = headlines_of(summaries)
    columns += [("headline", "headline")] if others else []
    shared = "headline" if others else shared
    columns += [*_pair(f"{FULL}.{{}}", f"{{}} ({shared})"), (f"{FULL}.uf1.interval", "UF1 95 %")]
    if any(summary.path in tested for summary in summaries):
        columns += [(_BEST, "UF1 minus best single"), (f"{_BEST}.interval", "its 95 %"), ("p_best", "p")]
    for name in HEADLINES:
        columns += _pair(f"{name}.{FULL}.{{}}", f"{{}} ({name})") if name != shared else []
    if any("inner" in summary.selections for summary in summaries):
        columns += _pair(f"inner.{FULL}.{{}}", "{} (inner)")
    columns += [*_pair(f"oracle.{FULL}.{{}}", "oracle {} (LEAKS)"), *_pair("gap.{}", "gap {}")]
    for pool in summaries[0].selections["last"]:
        columns += _pair(f"{pool}.{{}}", f"{database_title(pool)} {{}}") if pool != FULL else []
    columns += _pair("published_{}", "published {}") if beside else []
    columns += [("selects", "its code selects on test")]
    columns += [("published_source", "published in")] if beside else []
    notes = [
        "UF1 and UAR are of predictions pooled over all folds; ± is the standard deviation over seeds.",
        "The 95 % interval is a bootstrap over subjects.",
        *_tested_notes(summaries, tested),
        *run_notes(summaries, beside),
        *(note for summary in summaries for note in _model_notes(summary)),
    ]
    for summary, scores in zip(summaries, own, strict=True):
        notes += [_also(summary, score) for score in scores[1:]]
        notes += [f"{score.method}, as published: {score.note}." for score in scores if score.note]
    return Table(
        table_title(summaries[0]),
        tuple(columns),
        tuple(_row(s, scores, tested.get(s.path)) for s, scores in zip(summaries, own, strict=True)),
        tuple(dict.fromkeys(notes)),
        frozenset({"exactness", "gap.uar", "published_source", f"{_BEST}.interval"}),
    )


def _maps(summary: RunSummary) -> str:
    """Name the stores that a run read; empty for one that is made of others."""
    manifest = summary.manifest
    stores = (manifest.store, *(path for path, _ in manifest.joined_stores))
    return "" if manifest.derived else " + ".join(Path(store).name for store in stores)


def _tested_notes(summaries: Sequence[RunSummary], tested: Mapping[str, Pair]) -> list[str]:
    best = next((s for s in summaries if not s.is_control and not s.manifest.derived), None)
    if best is None or all(summary.path not in tested for summary in summaries):
        return []
    return [
        f"minus best single: against {best.title}, the best run here that is not made of others; paired "
        "bootstrap over subjects, and p from exchanging the two subject by subject. That run was found by "
        "looking at this table, which flatters it."
    ]


def _row(summary: RunSummary, scores: Sequence[PublishedScore], test: Pair | None) -> Row:
    manifest, headline = summary.manifest, summary.selections[summary.headline][FULL].figures["uf1"]
    values: dict[str, Any] = {
        "method": run_title(manifest, named=False),
        "selection": SELECTION_TITLES[summary.headline],
        "headline": summary.headline,
        "variant": manifest.variant,
        "recipe": summary.recipe or None,
        "parameters": manifest.parameters,
        "exactness": manifest.exactness,
        "maps": _maps(summary) or None,
        "seeds": len(summary.seeds),
        f"{FULL}.uf1.interval": (headline.low, headline.high),
        "source": "this run",
        "selects": {True: "yes (LEAKS)", False: "no", None: "unknown"}[manifest.selects_on_test],
    }
    for selection, by_pool in summary.selections.items():
        for pool, found in by_pool.items():
            figures = {f"{pool}.{key}": found.figures[key] for key, _ in PAIR}
            values |= {f"{selection}.{key}": figure for key, figure in figures.items()}
            values |= figures if selection == summary.headline else {}
    if test:
        uf1 = test.uf1
        values |= {_BEST: uf1.difference, f"{_BEST}.interval": (uf1.low, uf1.high), "p_best": uf1.p_value}
    if "oracle" in summary.selections:
        values |= {f"gap.{key}": summary.gap("oracle", FULL, key) for key, _ in PAIR}
    leaking = _ORACLE
    for score in scores[:1]:
        values["published_uf1"], values["published_uar"] = score.scores[FULL]
        values["published_source"] = score.source
        values["selects"] = SELECTS_ON_TEST[score.selects_on_test][1]
        leaking |= _PUBLISHED if score.selects_on_test == "yes" else frozenset()
    return Row(values, leaking=leaking)


def _model_notes(summary: RunSummary) -> list[str]:
    """Say what was filled in, and that a network of another size ran than the model's own."""
    manifest, notes = summary.manifest, []
    title, ours, default = manifest.title, manifest.parameters, manifest.default_variant
    if manifest.exactness == "reconstructed":
        choices = f"`mer-bench models {manifest.model}` lists the {len(manifest.filled_in)} choices"
        notes.append(f"{title} is reconstructed: {choices} that were filled in.")
    if ours and default.parameters and ours != default.parameters:
        notes.append(
            f"{title} ran with {ours:,} parameters, by its input or options, not {default.parameters:,}."
            if default.name == manifest.variant
            else f"{title} ran as variant {manifest.variant}; its default, {default.name}, has "
            f"{default.parameters:,} parameters."
        )
    return notes


def _also(summary: RunSummary, score: PublishedScore) -> str:
    figures = " / ".join("–" if value is None else f"{value:.4f}" for value in score.scores[FULL])
    return f"{summary.manifest.title} was also published with {figures} ({score.method}: {score.source})."
