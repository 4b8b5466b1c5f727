"""`mer-flow spot`: apex frames spotted, or the spotters measured against a sheet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mer_flow.cli.options import FILE, database_options, json_option, where_options, workers_option

if TYPE_CHECKING:
    from mer_flow.databases.source import Source
    from mer_flow.extraction.spotting import SpottedSample


@click.command("spot", short_help="Spot apex frames, or measure the spotters against a sheet.")
@database_options
@click.option(
    "--method",
    "methods",
    multiple=True,
    help="midpoint, difference or flow-peak; repeatable.  [default: all]",
)
@click.option(
    "--evaluate",
    is_flag=True,
    help="Compare with the sheet's apexes: mean absolute error in frames per method.",
)
@click.option("--out", type=FILE, help="Write one row per sample to this CSV file.")
@workers_option
@where_options
@click.option("--limit", type=click.IntRange(1), help="Only the first N samples.")
@json_option
def spot_command(
    source: Source,
    methods: tuple[str, ...],
    evaluate: bool,
    out: Path | None,
    workers: int | None,
    where: dict[str, Any],
    limit: int | None,
    as_json: bool,
) -> None:
    """Spot apex frames between onset and offset, or measure every spotter where the sheet has apexes.

    \b
    Examples:
      mer-flow spot --db casme2 --root CASME2 --evaluate
      mer-flow spot --db smic --root SMIC --method flow-peak --out apexes.csv

    A build spots missing apexes by itself: `mer-flow build --set apex.missing=difference`.

    Exit codes: 0 done, 1 some samples could not be spotted (listed), 2 usage.
    """
    from mer_flow.config import SPOTTERS
    from mer_flow.extraction.spotting import score, spot_database
    from mer_flow.work.errors import UsageError
    from mer_flow.work.progress import Progress
    from mer_flow.work.where import Where

    chosen = methods or SPOTTERS
    with Progress(f"spot {source.database}", quiet=as_json) as progress:
        rows = spot_database(source, chosen, workers, limit, evaluate, progress, Where.among(where))
    if evaluate and not rows:
        raise UsageError(
            f"{source.database}: the sheet has no apex to compare with; --evaluate needs one that has"
        )
    scores = score(rows) if evaluate else []
    failed = [row for row in rows if row.failure]
    if out is not None:
        _write_csv(rows, chosen, out)
    if as_json:
        told = {"scores": [asdict(item) for item in scores], "samples": [asdict(row) for row in rows]}
        click.echo(json.dumps(told, indent=2))
        sys.exit(1 if failed else 0)
    if scores:
        click.echo(f"{source.database}: {scores[0].samples} samples with an apex in the sheet")
        click.echo("  method        mean error   median  of length     bias   (frames; bias > 0 is late)")
        for item in scores:
            line = f"  {item.method:<12} {item.mean_error:>11.2f} {item.median_error:>8.1f}"
            click.echo(f"{line} {item.relative_error:>10.1%} {item.bias:>+8.2f}")
    elif out is None:
        for row in rows:
            found = ", ".join(f"{method} {number}" for method, number in row.found.items())
            click.echo(f"{row.sample_id}: {found}")
    if failed:
        click.echo(f"{len(failed)} samples could not be spotted:")
        for row in failed:
            click.echo(f"  {row.sample_id}: {row.failure}")
    sys.exit(1 if failed else 0)


def _write_csv(rows: Sequence[SpottedSample], methods: Sequence[str], out: Path) -> None:
    from mer_flow.work.cells import safe_cell
    from mer_flow.work.files import new_file

    with new_file(out, overwrite=True) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sample_id", "onset", "apex", "offset", *methods, "failure"])
        for row in rows:
            found = [row.found.get(method, "") for method in methods]
            cells = [row.sample_id, row.onset, row.apex, row.offset, *found, row.failure]
            writer.writerow(map(safe_cell, cells))
