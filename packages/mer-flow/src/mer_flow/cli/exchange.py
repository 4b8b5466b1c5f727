"""`mer-flow import` and `mer-flow export`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mer_flow.cli.options import DATABASE_NAMES, SCHEME_NAMES, packed
from mer_flow.exchange.selection import Selection

if TYPE_CHECKING:
    from mer_flow.exchange.imports import ImportSummary
    from mer_flow.store.reader import FlowStore

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)

#: Problems of one kind that an import prints; `--json` has all.
SHOWN = 10

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
_INTO = click.option("--store", required=True, type=_FILE, help="HDF5 file to make or extend.")
_LABELS = click.option(
    "--labels",
    type=_FILE,
    help="CSV list database,subject,clip,label, or HTNet's. [default: the shipped MEGC2019 list]",
)
_OUT_FOLDER = click.option("--out", required=True, type=_FOLDER, help="Folder to make; must not exist.")
_OUT_FILE = click.option("--out", required=True, type=_FILE, help="File to make.")
_COPY = click.option("--copy", is_flag=True, help="Write copies instead of hard links.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace a present file.")


def _source(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every export takes."""
    databases = click.option(
        "--db",
        "databases",
        multiple=True,
        shell_complete=DATABASE_NAMES,
        help="Database; may be given again. [default: all]",
    )
    scheme = click.option(
        "--scheme", default="megc3", show_default=True, shell_complete=SCHEME_NAMES, help="Label scheme."
    )
    return click.argument("store", type=_FILE)(scheme(databases(_JSON(command))))


def _selection(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every export of maps takes; the command receives it as `selection`."""
    view = click.option(
        "--view", default="whole-28", show_default=True, help="What to write: whole-N, regions-28, ..."
    )
    normalisation = click.option(
        "--normalisation", default="minmax", show_default=True, help="As in scaled or minmax."
    )
    return _source(view(normalisation(packed(Selection, "selection")(command))))


@click.group("import")
def import_command() -> None:
    """Import other people's flow maps into a store.

    Exit codes: 0 everything was imported, 1 something could not be (listed), 2 usage.
    """


@import_command.command("ststnet")
@click.argument("folder", type=_FOLDER)
@_INTO
@_LABELS
@click.option("--layout", type=click.Choice(["auto", "flat", "loso"]), default="auto", show_default=True)
@click.option(
    "--map-size", type=click.IntRange(4), default=28, show_default=True, help="Expected side of the maps, px."
)
@_JSON
def import_ststnet_command(
    folder: Path, store: Path, labels: Path | None, layout: str, map_size: int, as_json: bool
) -> None:
    """Import STSTNet's published maps from FOLDER: flat PNG files, or its leave-one-subject-out folders.

    R, G, B are u, v and strain, each min-max scaled per image: the store knows that, and offers the
    normalisations minmax and minmax-255 only. A row of the list without a usable map is recorded as failed; a
    map without a row is reported; running the command again adds what was missing.
    """
    from mer_flow.exchange.ststnet import import_ststnet

    _tell_import(import_ststnet(folder, store, labels, layout=layout, map_size=map_size), as_json)


@import_command.command("causalnet")
@click.argument("folder", type=_FOLDER)
@_INTO
@_LABELS
@click.option(
    "--maps",
    default="onset-apex",
    show_default=True,
    help="Kind of map: onset-apex, apex-offset, onset-apex-direction or apex-offset-direction.",
)
@_JSON
def import_causalnet_command(
    folder: Path, store: Path, labels: Path | None, maps: str, as_json: bool
) -> None:
    """Import CausalNet's published maps from FOLDER: flat PNG files, four of each clip.

    Each kind of map goes into a store of its own. R, G, B are u, v and strain, each min-max scaled per image;
    of the two direction maps they are colours, which no flip can mirror. `mer-bench run --store A --store B`
    reads several stores as one input. What is missing or left over is told as by `import ststnet`.
    """
    from mer_flow.exchange.causalnet import import_causalnet

    _tell_import(import_causalnet(folder, store, labels, maps), as_json)


@import_command.command("npz")
@click.argument("file", type=_FILE)
@_INTO
@_JSON
def import_npz_command(file: Path, store: Path, as_json: bool) -> None:
    """Import FILE, as `mer-flow export npz` writes it, or with the same keys.

    Whole-face maps only, raw (px) or min-max scaled; docs/exchange.md lists the keys. Nothing is unpickled.
    """
    from mer_flow.exchange.npz import import_npz

    _tell_import(import_npz(file, store), as_json)


def _tell_import(summary: ImportSummary, as_json: bool) -> None:
    """Print what an import did and end with its exit code."""
    from mer_flow.exchange.imports import report

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
        click.echo(report(summary.problems, limit=SHOWN), err=True)
        if max(Counter(problem.kind for problem in summary.problems).values()) > SHOWN:
            click.echo("--json lists all of them", err=True)
    if not summary.complete:
        raise click.exceptions.Exit(1)


@click.group("export")
def export_command() -> None:
    """Export a store to other people's layouts.

    Samples that the label scheme gives no class are left out and counted; Parquet lists them with the reason.
    """


@export_command.command("ststnet-loso")
@_selection
@_OUT_FOLDER
@_COPY
def export_loso_command(store: Path, selection: Selection, out: Path, copy: bool, as_json: bool) -> None:
    """Write STSTNet's folders: <subject>/u_train|u_test/<label>/*.png, R, G, B = u, v, strain.

    Every sample stands in every subject's folder: 442 samples of 68 subjects make 30,056 files. They are hard
    links to one file per sample and take the room of 442; but a program that edits one in place edits all.
    --copy writes independent files. The list of labels lies beside the folder, since STSTNet's code takes
    every entry of the folder for a subject.
    """
    from mer_flow.exchange.ststnet_export import export_folders

    _export(store, as_json, lambda opened: export_folders(opened, out, selection, "loso", copy))


@export_command.command("flat")
@_selection
@_OUT_FOLDER
def export_flat_command(store: Path, selection: Selection, out: Path, as_json: bool) -> None:
    """Write one PNG file per sample, '<subject>_<clip> .png', and the list of labels beside the folder."""
    from mer_flow.exchange.ststnet_export import export_folders

    _export(store, as_json, lambda opened: export_folders(opened, out, selection, "flat"))


@export_command.command("htnet")
@_source
@_OUT_FOLDER
@_COPY
def export_htnet_command(
    store: Path, scheme: str, databases: tuple[str, ...], out: Path, copy: bool, as_json: bool
) -> None:
    """Write the folder in which HTNet's main_HTNet.py runs: list, apex pictures, maps and folds.

    The script finds face points on the apex pictures, so build the store with --keep-faces; without it, and
    for imported maps, the pictures are grey and the script falls back on its own fixed points.

    \b
    Example:
      mer-flow export htnet flows.h5 --out htnet
      cp HTNet/main_HTNet.py HTNet/Model.py htnet/ && cd htnet && python main_HTNet.py --train True
    """
    from mer_flow.exchange.htnet_export import export_htnet

    selection = Selection(scheme, databases)
    counts = _export(store, as_json, lambda opened: export_htnet(opened, out, selection, copy))
    if grey := counts["grey_apexes"]:
        click.echo(
            f"warning: {grey} of {counts['samples']} apex pictures are grey, since {store} holds no face of "
            "them; HTNet's script then takes its own fixed points, the same for every clip. Build with "
            "--keep-faces for points of each face",
            err=True,
        )


@export_command.command("npz")
@_selection
@_OUT_FILE
@_OVERWRITE
def export_npz_command(store: Path, selection: Selection, out: Path, overwrite: bool, as_json: bool) -> None:
    """Write maps, labels and the sample table as one .npz file of plain arrays.

    docs/exchange.md lists the keys.
    """
    from mer_flow.exchange.npz import export_npz

    _export(store, as_json, lambda opened: export_npz(opened, out, selection, overwrite=overwrite))


@export_command.command("parquet")
@_source
@_OUT_FILE
@_OVERWRITE
def export_parquet_command(
    store: Path, scheme: str, databases: tuple[str, ...], out: Path, overwrite: bool, as_json: bool
) -> None:
    """Write samples, classes, reasons and notes, but no maps, as one Parquet file.

    Needs pyarrow, which mer-flow's extra `parquet` brings.
    """
    from mer_flow.exchange.parquet import export_parquet

    selection = Selection(scheme, databases)
    _export(store, as_json, lambda opened: export_parquet(opened, out, selection, overwrite=overwrite))


def _export(store: Path, as_json: bool, write: Callable[[FlowStore], dict[str, Any]]) -> dict[str, Any]:
    """Write an export, print its counts and return them."""
    from mer_flow.store.reader import FlowStore

    with FlowStore(store) as opened:
        counts = write(opened)
    if as_json:
        click.echo(json.dumps(counts, indent=2))
        return counts
    files = f", {counts['files']} files" if "files" in counts else ""
    links = f" ({counts['linked']} hard links)" if counts.get("linked") else ""
    click.echo(
        f"{counts['samples']} samples of {counts['subjects']} subjects -> {counts['out']}{files}{links}"
    )
    if "labels" in counts:
        click.echo(f"labels: {counts['labels']}")
    for reason, count in counts["dropped"].items():
        click.echo(f"without a class: {count} ({reason})")
    return counts
