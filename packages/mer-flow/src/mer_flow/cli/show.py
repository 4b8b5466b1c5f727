"""`mer-flow show`: contact sheets, colour-coded maps, and a page to browse a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mer_flow.cli.options import DATABASE_NAMES, FILE, FOLDER, SCHEME_NAMES, json_option, packed

if TYPE_CHECKING:
    from mer_flow.pictures.web.sprites import Ends
    from mer_flow.samples import Sample
    from mer_flow.store.reader import FlowStore

#: Samples on contact sheets where no other limit is given.
SHEET_LIMIT = 24


@dataclass(frozen=True)
class Choice:
    """Which samples are drawn; empty lists are all."""

    sample_ids: tuple[str, ...]
    databases: tuple[str, ...]
    subjects: tuple[str, ...]
    classes: tuple[str, ...]
    scheme: str
    limit: int | None


@dataclass(frozen=True)
class Sheets:
    """What is drawn as sheets and plain pictures, and where; nowhere without `out`."""

    out: Path | None
    per_page: int
    view: str
    with_maps: bool


@click.command("show", short_help="Draw contact sheets of a store, or a page to browse it.")
@click.argument("store", type=FILE)
@click.option("--out", type=FOLDER, help="Folder for contact sheets.")
@click.option("--html", type=FOLDER, help="Folder for a page to browse the samples by what is known of them.")
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
    "--limit", type=click.IntRange(1), help="Draw at most so many samples.  [default: 24; all with --html]"
)
@click.option("--per-page", type=click.IntRange(1, 40), default=8, show_default=True, help="Rows per sheet.")
@click.option(
    "--view", default="regions-28", show_default=True, help="View to draw: regions-N, htnet-N, whole-N."
)
@click.option(
    "--scale",
    metavar="sample|shared|FLOW,STRAIN",
    help="Colours per sample (weak movements show), shared by all (strengths compare), or ending at a fixed "
    "flow in px and strain, as 2,0.1 (stores compare).  [default: sample; shared with --html]",
)
@click.option(
    "--maps", "with_maps", is_flag=True, help="Also write each sample's flow as a plain coloured picture."
)
@click.option("--faces", is_flag=True, help="With --html: show the faces that the store keeps.")
@json_option
@packed(Sheets, "sheets")
@packed(Choice, "choice")
def show_command(
    store: Path,
    sheets: Sheets,
    html: Path | None,
    choice: Choice,
    scale: str | None,
    faces: bool,
    as_json: bool,
) -> None:
    """Draw contact sheets of the samples in STORE: faces, flow, u, v, strain, and what a model reads.

    Sheets are named sheet-001.png and so on. With --html a page shows all samples, to be filtered by
    database, class, subject, apex source and fallback; it opens from the file system. Faces appear where
    the store kept them (mer-flow build --keep-faces), on a page with --faces only. They show people: do not
    publish what a database's licence forbids.

    \b
    Examples:
      mer-flow show flows.h5 --html flows
      mer-flow show flows.h5 --out sheets --db samm --class surprise --scale 2,0.1
    """
    from mer_flow.pictures.web.sprites import Ends
    from mer_flow.store.reader import FlowStore
    from mer_flow.work.errors import UsageError

    if not (sheets.out or html):
        raise UsageError("say what to write: --out DIR for contact sheets, or --html DIR for a page")
    if faces and not html:
        raise UsageError("--faces goes with --html; a contact sheet shows faces where the store keeps them")
    told: dict[str, Any] = {}
    lines: list[str] = []
    with FlowStore(store) as opened:
        chosen = _choose(opened, choice)
        ends = Ends.parse(scale) if scale not in (None, "sample", "shared") else scale
        if sheets.out:
            few = chosen[: choice.limit or (len(chosen) if choice.sample_ids else SHEET_LIMIT)]
            written = _draw_sheets(opened, few, sheets, ends or "sample")
            told = {"samples": few, "found": len(chosen), "files": [str(path) for path in written]}
            lines += _told_of_sheets(sheets, few, len(chosen))
        if html:
            from mer_flow.pictures.web.store_page import Look, write_store_page

            some = chosen[: choice.limit]
            page = write_store_page(opened, some, html, Look(choice.scheme, ends or "shared", faces))
            told = {"samples": some, "found": len(chosen), **told, "page": str(page)}
            lines.append(f"{len(some)} sample(s) on {page}")
    click.echo(json.dumps(told, indent=2) if as_json else "\n".join(lines))


def _draw_sheets(store: FlowStore, chosen: Sequence[str], sheets: Sheets, scale: Ends | str) -> list[Path]:
    from mer_flow.pictures import Scale, common_scale, contact_sheet, flow_maps
    from mer_flow.pictures.web.sprites import Ends

    assert sheets.out is not None
    shared = None
    if isinstance(scale, Ends):
        shared = Scale(scale.flow, scale.strain, scale.strain)
    elif scale == "shared" and store.values == "px":
        shared = common_scale(store, chosen, sheets.view)
    pages = [chosen[first : first + sheets.per_page] for first in range(0, len(chosen), sheets.per_page)]
    written = []
    for number, ids in enumerate(pages, start=1):
        title = f"Onset-to-apex optical flow of {store.path.name}, sheet {number} of {len(pages)}"
        path = sheets.out / f"sheet-{number:03d}.png"
        written.append(contact_sheet(store, ids, path, view=sheets.view, scale=shared, title=title))
    if sheets.with_maps:
        top = scale.flow if isinstance(scale, Ends) else None
        written += flow_maps(store, chosen, sheets.out / "maps", maximum=top)
    return written


def _told_of_sheets(sheets: Sheets, chosen: Sequence[str], found: int) -> list[str]:
    assert sheets.out is not None
    count = -(-len(chosen) // sheets.per_page)
    lines = [f"{len(chosen)} sample(s) on {count} sheet(s) in {sheets.out}"]
    if found > len(chosen):
        lines.append(f"{found - len(chosen)} more fit; raise --limit (now {len(chosen)}) to draw them")
    if sheets.with_maps:
        lines.append(f"plain flow maps and their legend in {sheets.out / 'maps'}")
    return lines


def _choose(store: FlowStore, choice: Choice) -> list[str]:
    """Return the ids of those that fit."""
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
    return fitting
