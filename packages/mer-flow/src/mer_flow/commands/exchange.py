"""`mer-flow import` and `mer-flow export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mer_flow.exchange.summary import ImportSummary

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_STORE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group("import")
def import_command() -> None:
    """Import other people's flow maps into a store.

    Exit codes: 0 everything was imported, 1 something could not be (listed), 2 usage.
    """


@import_command.command("ststnet")
@click.argument("folder", type=_FOLDER)
@click.option("--store", required=True, type=_FILE, help="HDF5 file to make or extend.")
@click.option(
    "--labels", type=_FILE, help="CSV list database,subject,clip,label. [default: the shipped MEGC2019 list]"
)
@click.option("--layout", type=click.Choice(["auto", "flat", "loso"]), default="auto", show_default=True)
@click.option(
    "--map-size", type=click.IntRange(4), default=28, show_default=True, help="Expected side of the maps, px."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def import_ststnet_command(
    folder: Path, store: Path, labels: Path | None, layout: str, map_size: int, as_json: bool
) -> None:
    """Import STSTNet's published maps from FOLDER: flat PNG files, or its leave-one-subject-out folders.

    R, G, B are u, v and strain, each min-max scaled per image: the store knows that, and offers the
    normalisations minmax and minmax-255 only. A row of the list without a usable map is recorded as failed; a
    map without a row is reported; running the command again adds what was missing.
    """
    from mer_flow.exchange.ststnet import import_ststnet

    _finish_import(import_ststnet(folder, store, labels, layout=layout, map_size=map_size), as_json)


def _finish_import(summary: ImportSummary, as_json: bool) -> None:
    """Prints what an import did and ends with its exit code."""
    from mer_flow.exchange.problems import report

    if as_json:
        click.echo(json.dumps(summary.to_dict(), indent=2))
    else:
        click.echo(f"{summary.source} ({summary.layout}) -> {summary.store}")
        for database, count in summary.samples.items():
            got, subjects = summary.imported[database], summary.subjects[database]
            click.echo(f"  {database:<8} {got:>4} of {count} samples, {subjects} subjects")
        classes = ", ".join(f"{name} {count}" for name, count in sorted(summary.classes.items()))
        total = sum(summary.imported.values())
        click.echo(f"  {'all':<8} {total:>4} samples, {sum(summary.subjects.values())} subjects; {classes}")
        if summary.already == total:
            click.echo("nothing to do: the store held all of them already")
        elif summary.already:
            click.echo(f"{summary.already} of them were there already")
    if summary.problems:
        click.echo(report(summary.problems), err=True)
    if not summary.complete:
        raise click.exceptions.Exit(1)
