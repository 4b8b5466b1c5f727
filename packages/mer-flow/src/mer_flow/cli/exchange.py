"""`mer-flow import` and `mer-flow export`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mer_flow.exchange.selection import Selection
    from mer_flow.exchange.summary import ImportSummary
    from mer_flow.store.reader import FlowStore

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


@import_command.command("npz")
@click.argument("file", type=_FILE)
@click.option("--store", required=True, type=_FILE, help="HDF5 file to make or extend.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def import_npz_command(file: Path, store: Path, as_json: bool) -> None:
    """Import FILE, as `mer-flow export npz` writes it, or with the same keys.

    Whole-face maps only, raw (px) or min-max scaled; docs/exchange.md lists the keys. Nothing is unpickled.
    """
    from mer_flow.exchange.npz import import_npz

    _finish_import(import_npz(file, store), as_json)


@click.group("export")
def export_command() -> None:
    """Export a store to other people's layouts.

    Samples that the label scheme gives no class are left out and counted; Parquet lists them with the reason.
    """


def _exports(*extra: Any) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., None]]:
    """Gives a command the arguments that all exports share, then `extra`.

    The command is called with the open store, what to take out of it, and the values of the rest of `extra`;
    the counts that it returns are printed.
    """
    common = (
        click.argument("store", type=_FILE),
        click.option("--scheme", default="megc3", show_default=True, help="Label scheme."),
        click.option("--db", "databases", multiple=True, help="Database; may be given again. [default: all]"),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
    )

    def add(write: Callable[..., dict[str, Any]]) -> Callable[..., None]:
        @functools.wraps(write)
        def command(
            store: Path, scheme: str, databases: tuple[str, ...], as_json: bool, **others: Any
        ) -> None:
            from mer_flow.exchange.selection import Selection
            from mer_flow.store.reader import FlowStore

            seen = {name: others.pop(name) for name in ("view", "normalisation") if name in others}
            selection = Selection(scheme=scheme, databases=databases or None, **seen)
            with FlowStore(store) as opened:
                counts = write(opened, selection, **others)
            _finish_export(counts, as_json)

        for option in reversed((*common, *extra)):
            command = option(command)
        return command

    return add


_VIEW = click.option(
    "--view", default="whole-28", show_default=True, help="What to write: whole-N, regions-28, ..."
)
_NORMALISATION = click.option(
    "--normalisation", default="minmax", show_default=True, help="raw, scaled, minmax or minmax-255."
)
_OUT_FOLDER = click.option("--out", required=True, type=_FOLDER, help="Folder to make; must not exist.")
_OUT_FILE = click.option("--out", required=True, type=_FILE, help="File to make.")
_COPY = click.option("--copy", is_flag=True, help="Write copies instead of hard links.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace a present file.")


@export_command.command("ststnet-loso")
@_exports(_VIEW, _NORMALISATION, _OUT_FOLDER, _COPY)
def export_loso_command(store: FlowStore, selection: Selection, out: Path, copy: bool) -> dict[str, Any]:
    """Write STSTNet's folders: <subject>/u_train|u_test/<label>/*.png, R, G, B = u, v, strain.

    Every sample stands in every subject's folder: 442 samples of 68 subjects make 30,056 files. They are hard
    links to one file per sample and take the room of 442; but a program that edits one in place edits all.
    --copy writes independent files. The list of labels lies beside the folder, since STSTNet's code takes
    every entry of the folder for a subject.
    """
    from mer_flow.exchange.ststnet_export import export_loso

    return export_loso(store, out, selection, copy=copy).to_dict()


@export_command.command("flat")
@_exports(_VIEW, _NORMALISATION, _OUT_FOLDER)
def export_flat_command(store: FlowStore, selection: Selection, out: Path) -> dict[str, Any]:
    """Write one PNG file per sample, '<subject>_<clip> .png', and the list of labels beside the folder."""
    from mer_flow.exchange.ststnet_export import export_flat

    return export_flat(store, out, selection).to_dict()


@export_command.command("npz")
@_exports(_VIEW, _NORMALISATION, _OUT_FILE, _OVERWRITE)
def export_npz_command(store: FlowStore, selection: Selection, out: Path, overwrite: bool) -> dict[str, Any]:
    """Write maps, labels and the sample table as one .npz file of plain arrays.

    docs/exchange.md lists the keys.
    """
    from mer_flow.exchange.npz import export_npz

    return export_npz(store, out, selection, overwrite=overwrite)


@export_command.command("parquet")
@_exports(_OUT_FILE, _OVERWRITE)
def export_parquet_command(
    store: FlowStore, selection: Selection, out: Path, overwrite: bool
) -> dict[str, Any]:
    """Write samples, classes, reasons and notes, but no maps, as one Parquet file.

    Needs pyarrow: pip install 'mer-flow[parquet]'.
    """
    from mer_flow.exchange.parquet import export_parquet

    return export_parquet(store, out, selection, overwrite=overwrite)


def _finish_export(summary: dict[str, Any], as_json: bool) -> None:
    """Prints what an export wrote."""
    if as_json:
        click.echo(json.dumps(summary, indent=2))
        return
    files = f", {summary['files']} files" if "files" in summary else ""
    links = f" ({summary['linked']} hard links)" if summary.get("linked") else ""
    click.echo(
        f"{summary['samples']} samples of {summary['subjects']} subjects -> {summary['out']}{files}{links}"
    )
    if summary.get("labels"):
        click.echo(f"labels: {summary['labels']}")
    for reason, count in summary["dropped"].items():
        click.echo(f"without a class: {count} ({reason})")
