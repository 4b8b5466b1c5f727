"""`mer-flow spot`: apex frames spotted, or the spotters measured against a sheet."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from mer_flow.cli.options import database_options


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
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one row per sample to this CSV file.",
)
@click.option("--workers", type=click.IntRange(1), help="Worker processes.  [default: one per core]")
@click.option("--limit", type=click.IntRange(1), help="Only the first N samples.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def spot_command(
    database: str,
    root: Path | None,
    sheet: Path | None,
    release: str,
    methods: tuple[str, ...],
    evaluate: bool,
    out: Path | None,
    workers: int | None,
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
    from mer_flow.databases.layout import resolve_root
    from mer_flow.extraction.spotting import SPOTTERS, SpottedSample, score, spot_database
    from mer_flow.work.errors import UsageError
    from mer_flow.work.files import new_file
    from mer_flow.work.progress import Progress

    progress: Progress | None = None

    def start(total: int) -> None:
        nonlocal progress
        progress = Progress(f"spot {database}", total, quiet=as_json)

    def advance(row: SpottedSample) -> None:
        assert progress is not None
        progress.advance(row.sample_id)

    chosen = methods or SPOTTERS
    rows = spot_database(
        database,
        resolve_root(database, root),
        chosen,
        sheet=sheet,
        release=release,
        workers=workers,
        limit=limit,
        only_with_apex=evaluate,
        on_start=start,
        on_sample=advance,
    )
    if progress is not None:
        progress.close()
    if evaluate and not rows:
        raise UsageError(f"{database}: the sheet has no apex to compare with; --evaluate needs one that has")
    scores = score(rows) if evaluate else []
    failed = [row for row in rows if row.failure]
    if out is not None:
        with new_file(out, overwrite=True) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["sample_id", "onset", "apex", "offset", *chosen, "failure"])
            for row in rows:
                found = [row.found.get(method, "") for method in chosen]
                writer.writerow([row.sample_id, row.onset, row.apex, row.offset, *found, row.failure])
    if as_json:
        click.echo(
            json.dumps(
                {"scores": [asdict(s) for s in scores], "samples": [row.to_dict() for row in rows]}, indent=2
            )
        )
        sys.exit(1 if failed else 0)
    if scores:
        click.echo(f"{database}: {scores[0].samples} samples with an apex in the sheet")
        click.echo("  method        mean error   median  of length     bias   (frames; bias > 0 is late)")
        for item in scores:
            line = f"  {item.method:<12} {item.mean_error:>11.2f} {item.median_error:>8.1f}"
            click.echo(f"{line} {item.relative_error:>10.1%} {item.bias:>+8.2f}")
    elif out is None:
        for row in rows:
            click.echo(
                f"{row.sample_id}: " + ", ".join(f"{method} {number}" for method, number in row.found.items())
            )
    if failed:
        click.echo(f"{len(failed)} samples could not be spotted:")
        for row in failed:
            click.echo(f"  {row.sample_id}: {row.failure}")
    sys.exit(1 if failed else 0)
