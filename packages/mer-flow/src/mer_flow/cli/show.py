"""`mer-flow show`: contact sheets and colour-coded maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mer_flow.samples import Sample
    from mer_flow.store.reader import FlowStore


@click.command("show")
@click.argument("store", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the pictures."
)
@click.option(
    "--sample", "sample_ids", multiple=True, help="Sample id, as samm/006/006_1_2; may be given again."
)
@click.option("--db", "databases", multiple=True, help="Database; may be given again. [default: all]")
@click.option("--subject", "subjects", multiple=True, help="Subject, as samm/006 or 006; may be given again.")
@click.option("--class", "classes", multiple=True, help="Class of --scheme, or emotion; may be given again.")
@click.option("--scheme", default="megc3", show_default=True, help="Label scheme that --class refers to.")
@click.option(
    "--limit", type=click.IntRange(1), default=24, show_default=True, help="Draw at most so many samples."
)
@click.option("--per-page", type=click.IntRange(1, 40), default=8, show_default=True, help="Rows per sheet.")
@click.option(
    "--view", default="regions-28", show_default=True, help="View to draw: regions-N, htnet-N, whole-N."
)
@click.option(
    "--scale",
    type=click.Choice(["sample", "shared"]),
    default="sample",
    show_default=True,
    help="Colours per sample (weak movements show), or shared by all (strengths compare).",
)
@click.option(
    "--maps", "with_maps", is_flag=True, help="Also write each sample's flow as a plain coloured picture."
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def show_command(
    store: Path,
    out: Path,
    sample_ids: tuple[str, ...],
    databases: tuple[str, ...],
    subjects: tuple[str, ...],
    classes: tuple[str, ...],
    scheme: str,
    limit: int,
    per_page: int,
    view: str,
    scale: str,
    with_maps: bool,
    as_json: bool,
) -> None:
    """Draw contact sheets of the samples in STORE: faces, flow, u, v, strain, and what a model reads.

    Sheets are named sheet-001.png and so on. Faces appear where the store kept them (mer-flow build
    --keep-faces). They show people: do not publish sheets of a database whose licence forbids it.
    """
    from mer_flow.pictures import common_scale, contact_sheet, flow_maps
    from mer_flow.store.reader import FlowStore

    with FlowStore(store) as opened:
        chosen, found = _choose(opened, sample_ids, databases, subjects, classes, scheme, limit)
        in_px = opened.values == "px"
        shared = common_scale(opened, chosen, view) if scale == "shared" and in_px else None
        pages = [chosen[first : first + per_page] for first in range(0, len(chosen), per_page)]
        written = []
        for number, ids in enumerate(pages, start=1):
            title = f"Onset-to-apex optical flow of {store.name}, sheet {number} of {len(pages)}"
            path = out / f"sheet-{number:03d}.png"
            written.append(contact_sheet(opened, ids, path, view=view, scale=shared, title=title))
        if with_maps:
            written += flow_maps(opened, chosen, out / "maps")
    if as_json:
        click.echo(
            json.dumps({"samples": chosen, "found": found, "files": [str(p) for p in written]}, indent=2)
        )
        return
    click.echo(f"{len(chosen)} sample(s) on {len(pages)} sheet(s) in {out}")
    if found > len(chosen):
        click.echo(f"{found - len(chosen)} more fit; raise --limit (now {limit}) to draw them")
    if with_maps:
        click.echo(f"plain flow maps and their legend in {out / 'maps'}")


def _choose(
    store: FlowStore,
    sample_ids: tuple[str, ...],
    databases: tuple[str, ...],
    subjects: tuple[str, ...],
    classes: tuple[str, ...],
    scheme: str,
    limit: int,
) -> tuple[list[str], int]:
    """Returns the ids to draw, and how many fit.

    Raises:
        UsageError: A name is unknown, or nothing fits.
    """
    from mer_flow.labels import get_scheme
    from mer_flow.work.errors import UsageError
    from mer_flow.work.suggest import unknown

    table = store.table()
    labelling = get_scheme(scheme)

    def class_of(sample: Sample) -> str:
        label = labelling.label(sample)
        return labelling.classes[label] if isinstance(label, int) else ""

    def check(kind: str, asked: tuple[str, ...], known: set[str]) -> None:
        for name in asked:
            if name not in known:
                raise unknown(f"{kind} in {store.path}", name, known)

    bare: Callable[[Sample], str] = lambda sample: sample.subject.split("/", 1)[-1]  # noqa: E731
    check("sample", sample_ids, set(table.sample_ids))
    check("database", databases, set(store.databases))
    check("subject", subjects, {s.subject for s in table} | {bare(s) for s in table})
    check("class or emotion", classes, {*labelling.classes, *(s.emotion for s in table)})
    if sample_ids:
        wanted = table.select(list(dict.fromkeys(sample_ids)))
    else:
        wanted = table
    fitting = [
        sample.sample_id
        for sample in wanted
        if (not databases or sample.database in databases)
        and (not subjects or sample.subject in subjects or bare(sample) in subjects)
        and (not classes or sample.emotion in classes or class_of(sample) in classes)
    ]
    if not fitting:
        raise UsageError(
            f"no sample of {store.path} fits. Loosen --sample, --db, --subject or --class; "
            f"`mer-flow info {store.path}` lists what it holds."
        )
    return (fitting if sample_ids else fitting[:limit]), len(fitting)
