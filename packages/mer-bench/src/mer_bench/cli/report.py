"""`mer-bench report`: complete runs beside published scores, as tables or as a site."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mer_flow.cli.options import FILE, FOLDER, packed


@dataclass(frozen=True)
class Pages:
    """Where a site goes, and the store of its maps."""

    html: Path | None
    store: Path | None


@click.command("report", short_help="Tabulate complete runs beside published scores.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "csv", "latex"]),
    help="Every column, for a file.  [default: md; on a terminal the columns that fit it]",
)
@click.option("--leaderboard", is_flag=True, help="One row per complete run, the best first.")
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
@click.option("--seeds", metavar="N|LIST", help="Tabulate these seeds only; all by default.")
@click.option("--published/--no-published", default=True, help="Set published scores below, or beside.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, every figure of every selection and pool.")
@click.option(
    "--html", type=FOLDER, help="Write a site into this folder: leaderboard, a page per run, curves."
)
@click.option("--store", type=FILE, help="With --html: the store of the samples, to show their maps.")
@packed(Pages, "pages")
def report_command(
    runs: tuple[Path, ...],
    form: str | None,
    leaderboard: bool,
    out: Path | None,
    seeds: str | None,
    published: bool,
    as_json: bool,
    pages: Pages,
) -> None:
    """Tabulate RUNS, or the runs below a folder: last epoch first, then the oracle, marked as leaking.

    An incomplete run is left out and named with its missing folds, and the exit code is 1. Published
    scores stand beside runs of the official composite only.

    With --html the results become pages that open from the file system; with --store too, every sample and
    subject has a page with its maps and what every model said.

    \b
    Examples:
      mer-bench report runs/ststnet-cde-* --format latex
      mer-bench report runs --leaderboard --out leaderboard.md
      mer-bench report runs --html site --store flows.h5
    """
    from mer_bench.errors import RunError, UsageError
    from mer_bench.report.entries import Entry
    from mer_bench.report.leaderboard import build_leaderboards
    from mer_bench.report.pairs import against_best
    from mer_bench.report.render import RENDERERS
    from mer_bench.report.tables import build_tables, ranked
    from mer_bench.report.terminal import render_leaderboard, render_table
    from mer_bench.runs.directory import RunDirectory
    from mer_bench.scores.summary import complete_records
    from mer_bench.settings import parse_seeds
    from mer_flow.work.files import write_whole

    chosen = None if seeds is None else parse_seeds(seeds)
    if pages.html:
        if form or leaderboard or out or as_json:
            raise UsageError("--html goes without --format, --leaderboard, --out and --json")
        _write_site(runs, pages.html, pages.store, chosen, published)
        return
    entries, left_out = [], []
    for path in _named(runs):
        run = RunDirectory(path)
        try:
            entries.append(Entry(run, complete_records(run, chosen)))
        except RunError as error:
            left_out.append(str(error))
    summaries = [entry.summary for entry in entries]
    if not summaries:
        raise RunError(f"no complete run to tabulate. {' '.join(left_out)}")
    if as_json:
        rows = ranked(summaries) if leaderboard else summaries
        text = json.dumps([summary.to_json() for summary in rows], indent=1)
    else:
        if leaderboard:
            tables = build_leaderboards(summaries, published, against_best(entries))
        else:
            tables = build_tables(summaries, published)
        if out is None and form is None and sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
            show = render_leaderboard if leaderboard else functools.partial(render_table, width=width)
            text = "\n\n".join(map(show, tables))
        else:
            text = RENDERERS[form or "md"](tables)
    if out is None:
        click.echo(text.rstrip("\n"))
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, (text.rstrip("\n") + "\n").encode())
        click.echo(f"wrote {out}")
    for reason in left_out:
        click.echo(f"warning: left out: {reason}", err=True)
    if left_out:
        raise click.exceptions.Exit(1)


def _named(runs: Sequence[Path]) -> list[Path]:
    """Return the run directories that are meant, each once."""
    from mer_bench.runs.directory import runs_below

    return list(dict.fromkeys(run for given in runs for run in runs_below(given) or [given]))


def _write_site(
    runs: Sequence[Path], folder: Path, store: Path | None, seeds: Sequence[int] | None, published: bool
) -> None:
    from mer_flow.work.errors import MissingDependencyError
    from mer_flow.work.libraries import extra_command

    try:
        from mer_bench.report.site.write import write_site
    except ImportError as error:
        raise MissingDependencyError(
            f"the curves of a site need matplotlib ({error}): {extra_command('plots', 'mer-bench')}"
        ) from None
    site = write_site(_named(runs), folder, store=store, seeds=seeds, published=published)
    samples = f", {site.samples} samples with a page" if store else ""
    click.echo(f"wrote {site.page}: {site.runs} runs{samples}")
    for run in site.left_out:
        click.echo(f"warning: without scores: {run.reason}", err=True)
    if site.left_out:
        raise click.exceptions.Exit(1)
