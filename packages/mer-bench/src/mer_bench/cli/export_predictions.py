"""`mer-bench export-predictions`: a run's predictions as CSV."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("export-predictions", short_help="Write a run's predictions as CSV, a row per sample.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV file to write.")
@click.option("--seeds", metavar="N|LIST", help="Seeds to write; all by default.")
@click.option("--selection", default="", help="Which epochs count.  [default: the run's headline]")
def export_predictions_command(run: Path, out: Path, seeds: str | None, selection: str) -> None:
    """Write the predictions of RUN: sample, subject, database, fold, seed, label, predicted, and p_CLASS.

    Other programs can read them; `mer-bench score` gives the run's scores back.

    \b
    Example:
      mer-bench export-predictions runs/ststnet-cde-0123456789ab --out predictions.csv
    """
    from mer_bench.runs.directory import RunDirectory
    from mer_bench.scores.predictions import predictions_of
    from mer_bench.settings import parse_seeds
    from mer_flow.work.cells import csv_text
    from mer_flow.work.files import write_whole

    found = predictions_of(RunDirectory(run), parse_seeds(seeds) if seeds else None, selection)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, csv_text(found).encode())
    click.echo(f"wrote {out}: {len(found)} rows")
