"""`mer-bench score`: anybody's predictions by the rules of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mer_bench.cli.options import settings_options, store_option
from mer_flow.cli.options import FILE, json_option

if TYPE_CHECKING:
    from mer_bench.scores.predictions import Scores


@click.command("score", short_help="Score predictions that any program made, by the rules of a run.")
@click.argument("predictions", type=FILE)
@store_option
@settings_options("protocol", "scheme", "db", "train_db", "test_db", "k", "fold_seed")
@json_option
def score_command(predictions: Path, store: Path | None, flags: dict[str, Any], as_json: bool) -> None:
    """Score PREDICTIONS, a CSV file, against the labels of a store.

    Its columns: sample, as `mer-bench export-predictions` writes it; predicted, the name of a class, or
    p_CLASS for every class, of which the largest counts; seed where there are several. Every sample that the
    protocol tests needs one row; missing, doubled and unknown samples, NaN and wrong classes are refused by
    name. Whether a sample was held out when it was predicted is up to whoever predicted it.

    \b
    Examples:
      mer-bench score predictions.csv --store maps.h5 --protocol cde
      mer-bench score predictions.csv --store maps.h5 --protocol loso --db samm --scheme samm-5 --json
    """
    from mer_bench.errors import UsageError
    from mer_bench.protocols.splits import PROTOCOLS
    from mer_bench.runs.data import find_store
    from mer_bench.scores.predictions import score

    if "protocol" not in flags:
        raise UsageError(f"no --protocol given; choose one of {', '.join(PROTOCOLS)}")
    scores = score(predictions, find_store(store), **flags)
    click.echo(json.dumps(scores.to_json(), indent=1) if as_json else _text(scores))


def _text(scores: Scores) -> str:
    from mer_bench.report.render import number_text
    from mer_bench.report.tables import SHOWN
    from mer_bench.report.terminal import align
    from mer_flow.databases.registry import database_title

    rows = [["", *SHOWN.values(), *(f"{shown}, 95 %" for shown in SHOWN.values())]]
    for pool, found in scores.pools.items():
        figures = [found.figures[key] for key in SHOWN]
        intervals = [(figure.low, figure.high) for figure in figures]
        rows.append([database_title(pool), *map(number_text, [*figures, *intervals])])
    seeds = f", seeds {', '.join(map(str, scores.seeds))}" if len(scores.seeds) > 1 else ""
    notes = [f"note: these samples are not the MEGC2019 composite ({text})" for text in scores.deviations]
    head = (
        f"{scores.protocol}, {scores.scheme} ({'/'.join(scores.classes)}), {scores.samples} samples of "
        f"{scores.subjects} subjects{seeds}"
    )
    return "\n".join([head, "", *align(rows), *[""] * bool(notes), *notes])
