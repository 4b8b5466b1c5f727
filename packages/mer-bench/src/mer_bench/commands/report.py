"""`mer-bench report`: complete runs beside published scores."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("report", short_help="Tabulate complete runs beside published scores.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "csv", "latex"]),
    default="md",
    show_default=True,
    help="Of the table.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
@click.option("--seeds", metavar="N|LIST", help="Tabulate these seeds only; all by default.")
@click.option("--published/--no-published", default=True, help="Set published scores below.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, every figure of every selection and pool.")
def report_command(
    runs: tuple[Path, ...], form: str, out: Path | None, seeds: str | None, published: bool, as_json: bool
) -> None:
    """Tabulates RUNS: last epoch first, then the oracle, marked as leaking, with the leakage gap.

    An incomplete run is refused, and its missing folds are named. Published scores stand beside runs of the
    official composite only.
    """
    from mer_bench.report.render import RENDERERS
    from mer_bench.report.summary import summarise
    from mer_bench.report.tables import build_tables
    from mer_bench.runs import RunDirectory, write_atomically
    from mer_bench.values import parse_seeds

    chosen = None if seeds is None else parse_seeds(seeds)
    summaries = [summarise(RunDirectory(path), chosen) for path in runs]
    if as_json:
        text = json.dumps([summary.to_json() for summary in summaries], indent=1)
    else:
        text = RENDERERS[form](build_tables(summaries, published))
    if out is None:
        click.echo(text.rstrip("\n"))
    else:
        write_atomically(out, (text.rstrip("\n") + "\n").encode(), of_a_run=False)
        click.echo(f"wrote {out}")
