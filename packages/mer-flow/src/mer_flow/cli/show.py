"""`mer-flow show`: contact sheets and colour-coded maps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mer_flow.cli.options import DATABASE_NAMES, FILE, FOLDER, SCHEME_NAMES, json_option, packed

if TYPE_CHECKING:
    from mer_flow.samples import Sample
    from mer_flow.store.reader import FlowStore


@dataclass(frozen=True)
class Choice:
    """Which samples are drawn; empty lists are all."""

    sample_ids: tuple[str, ...]
    databases: tuple[str, ...]
    subjects: tuple[str, ...]
    classes: tuple[str, ...]
    scheme: str
    limit: int


@click.command("show")
@click.argument("store", type=FILE)
@click.option("--out", required=True, type=FOLDER, help="Folder for the pictures.")
@click.option(
    "--sample", "sample_ids", multiple=True, help="Sample id, as samm/006/006_1_2; may be given again."
)
@click.option(
    "--db",
    "databases",
    multiple=True,
    shell_complete=DATABASE_NAMES,
    help="Database; may be given again. [default: all]",
)
@click.option("--subject", "subjects", multiple=True, help="Subject, as samm/006 or 006; may be given again.")
@click.option("--class", "classes", multiple=True, help="Class of --scheme, or emotion; may be given again.")
@click.option(
    "--scheme",
    default="megc3",
    show_default=True,
    shell_complete=SCHEME_NAMES,
    help="Label scheme that --class refers to.",
)
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
@json_option
@packed(Choice, "choice")
def show_command(
    store: Path,
    out: Path,
    choice: Choice,
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
        chosen, found = _choose(opened, choice)
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
        told = {"samples": chosen, "found": found, "files": [str(path) for path in written]}
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"{len(chosen)} sample(s) on {len(pages)} sheet(s) in {out}")
    if found > len(chosen):
        click.echo(f"{found - len(chosen)} more fit; raise --limit (now {choice.limit}) to draw them")
    if with_maps:
        click.echo(f"plain flow maps and their legend in {out / 'maps'}")


def _choose(store: FlowStore, choice: Choice) -> tuple[list[str], int]:
    """Return the ids to draw, and how many fit."""
    from mer_flow.labels import get_scheme
    from mer_flow.work.errors import UsageError
    from mer_flow.work.suggest import unknown

    table = store.table()
    labelling = get_scheme(choice.scheme)

    asked = choice.sample_ids, choice.databases, choice.subjects, choice.classes
    kinds = "sample", "database", "subject", "class or emotion"
    known = set[str](), set(store.databases), set[str](), set(labelling.classes)

    def names(sample: Sample) -> tuple[set[str], ...]:
        label = labelling.label(sample)
        its_class = {labelling.classes[label]} if isinstance(label, int) else set()
        bare = sample.subject.split("/", 1)[-1]
        return {sample.sample_id}, {sample.database}, {sample.subject, bare}, {sample.emotion} | its_class

    for sample in table:
        for every, own in zip(known, names(sample), strict=True):
            every |= own
    for kind, wanted, every in zip(kinds, asked, known, strict=True):
        for name in wanted:
            if name not in every:
                raise unknown(f"{kind} in {store.path}", name, every)
    fitting = [
        sample.sample_id
        for sample in (table.select(list(dict.fromkeys(choice.sample_ids))) if choice.sample_ids else table)
        if all(not wanted or own & set(wanted) for wanted, own in zip(asked, names(sample), strict=True))
    ]
    if not fitting:
        raise UsageError(
            f"no sample of {store.path} fits. Loosen --sample, --db, --subject or --class; "
            f"`mer-flow info {store.path}` lists what it holds."
        )
    return (fitting if choice.sample_ids else fitting[: choice.limit]), len(fitting)
