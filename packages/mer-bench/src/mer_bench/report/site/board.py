"""The leaderboard's rows: our runs, honest first, and the published scores with what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mer_bench.report.entries import Entry
from mer_bench.report.leaderboard import build_leaderboards
from mer_bench.report.tables import grouped, published_beside, table_title
from mer_bench.scores.metrics import FULL
from mer_bench.scores.published import SELECTS_ON_TEST, PublishedScore
from mer_bench.scores.summary import Figure
from mer_flow.databases.registry import database_title


@dataclass(frozen=True)
class Board:
    """Runs that were tested on the same samples.

    Attributes:
        title: Protocol, scheme, samples.
        entries: The runs, the best first, controls last.
        pools: Databases with figures of their own, by name.
        rows: What the table prints, our runs first.
        notes: What a reader must know.
        sources: Where published scores were read, in the order of their numbers.
        axis: Ends of the drawn intervals.
        ticks: Where the axis is labelled.
        lines: Position on the axis, text and kind of the lines through the plot, those of permuted labels.
    """

    title: str
    entries: tuple[Entry, ...]
    pools: dict[str, str]
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    sources: tuple[str, ...]
    axis: tuple[float, float]
    ticks: tuple[float, ...]
    lines: tuple[dict[str, Any], ...]

    def at(self, value: float) -> str:
        """Return where a value is on the axis, in per cent."""
        low, high = self.axis
        return f"{100 * min(max((value - low) / (high - low), 0.0), 1.0):.2f}"

    @property
    def chance(self) -> float | None:
        """UF1 of permuted labels; None where no control was run."""
        return next((line["value"] for line in self.lines if not line["leaks"]), None)


def build_boards(entries: Sequence[Entry], published: bool = True) -> list[Board]:
    """Build one leaderboard per group of runs that were tested on the same samples.

    Args:
        entries: Complete runs, the best first.
        published: Set published scores below.
    """
    of = {id(entry.summary): entry for entry in entries}
    groups = grouped([entry.summary for entry in entries])
    return [_board([of[id(summary)] for summary in group], published) for group in groups]


def _board(entries: Sequence[Entry], published: bool) -> Board:
    summaries = [entry.summary for entry in entries]
    (table,) = build_leaderboards(summaries, published)
    pools = {pool: database_title(pool) for pool in summaries[0].selections["last"] if pool != FULL}
    beside = published_beside(summaries, published)
    rows = [_own(entry, row.values, pools) for entry, row in zip(entries, table.rows, strict=True)]
    rows += [_published(score, pools) for score in sorted(beside, key=lambda s: -s.scores[FULL][0])]
    sources = list(dict.fromkeys(row["source"] for row in rows if row["source"]))
    for row in rows:
        row["number"] = sources.index(row["source"]) + 1 if row["source"] else None
    ends = [row[name] for row in rows for name in ("low", "high", "picked", "uf1") if row[name] is not None]
    low, high = np.floor(min(ends) * 10) / 10, np.ceil(max(ends) * 10) / 10
    ticks = np.arange(round(low * 10), round(high * 10) + 1) / 10
    return Board(
        table_title(summaries[0]),
        tuple(entries),
        pools,
        tuple(rows),
        tuple(table.notes),
        tuple(sources),
        (float(low), float(high)),
        tuple(ticks[:: 1 if len(ticks) < 7 else 2].tolist()),
        tuple(_lines(entries)),
    )


def _own(entry: Entry, values: Mapping[str, Any], pools: Mapping[str, str]) -> dict[str, Any]:
    summary, manifest = entry.summary, entry.run.manifest
    full = summary.selections[summary.headline][FULL].figures
    oracle = summary.selections.get("oracle") or summary.selections.get("naive")
    return {
        "kind": "control" if summary.is_control else "run",
        "entry": entry,
        "name": entry.label,
        "uf1": full["uf1"].mean,
        "uf1_sd": full["uf1"].sd,
        "low": full["uf1"].low,
        "high": full["uf1"].high,
        "uar": full["uar"].mean,
        "uar_sd": full["uar"].sd,
        "picked": oracle and oracle[FULL].figures["uf1"].mean,
        "picks": "the member" if "naive" in summary.selections else "the epoch",
        "gap": oracle and oracle[FULL].figures["uf1"].mean - full["uf1"].mean,
        "pools": {pool: _mean(values.get(f"{pool}.uf1")) for pool in pools},
        "parameters": manifest.parameters,
        "seeds": len(summary.seeds),
        "published": (values.get("published_uf1"), values.get("published_uar")),
        "source": values.get("published_source"),
        "selects": values["selects"],
        "note": "",
        "leaks": False,
        "exactness": manifest.exactness,
    }


def _mean(value: Any) -> float | None:
    return value.mean if isinstance(value, Figure) else value


def _published(score: PublishedScore, pools: Mapping[str, str]) -> dict[str, Any]:
    uf1, uar = score.scores[FULL]
    blank = dict.fromkeys(
        ("entry", "uf1_sd", "low", "high", "uar_sd", "picked", "gap", "parameters", "seeds")
    )
    return {
        **blank,
        "kind": "published",
        "name": score.method,
        "uf1": uf1,
        "uar": uar,
        "pools": {pool: score.scores.get(pool, (None, None))[0] for pool in pools},
        "published": (None, None),
        "source": score.source,
        "note": score.note,
        "selects": SELECTS_ON_TEST[score.selects_on_test][1],
        "selection": SELECTS_ON_TEST[score.selects_on_test][0],
        "leaks": score.selects_on_test == "yes",
    }


def _lines(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the best control's readings as lines: where there is nothing to learn, this is what one gets."""
    controls = [entry.summary for entry in entries if entry.is_control]
    if not controls:
        return []
    # The one of most epochs shows best what picking makes of nothing.
    summary = max(controls, key=lambda control: control.epochs)
    honest = summary.selections[summary.headline][FULL].figures["uf1"].mean
    lines = [{"value": honest, "leaks": False, "text": f"labels permuted: {honest:.3f}"}]
    if "oracle" in summary.selections:
        picked = summary.selections["oracle"][FULL].figures["uf1"].mean
        lines.append({"value": picked, "leaks": True, "text": f"labels permuted, epoch picked: {picked:.3f}"})
    return lines
