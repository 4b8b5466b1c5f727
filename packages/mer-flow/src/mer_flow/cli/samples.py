"""`mer-flow samples`: what an annotation sheet gives, without any frame."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mer_flow.cli.options import DATABASE_NAMES, SCHEME_NAMES, json_option

if TYPE_CHECKING:
    from mer_flow.databases.reading import SheetReading
    from mer_flow.labels import Labelled

_PATH = click.Path(path_type=Path)


@click.command("samples")
@click.option(
    "--db",
    "database",
    metavar="NAME",
    shell_complete=DATABASE_NAMES,
    help="`mer-flow databases` lists them. A sheet is recognised without it.",
)
@click.option(
    "--sheet",
    type=_PATH,
    metavar="FILE",
    help="The annotation sheet. Without it the sheet (for SMIC: the folders) below the root is read.",
)
@click.option(
    "--root",
    type=_PATH,
    metavar="DIR",
    help="The database's root; else MER_FLOW_<DB>_ROOT, else the config file.",
)
@click.option(
    "--scheme",
    metavar="NAME",
    shell_complete=SCHEME_NAMES,
    help="Count the classes of a label scheme, such as casme3-3 or megc3.",
)
@click.option("--csv", "csv_path", type=_PATH, metavar="OUT", help="Write the sample table here.")
@json_option
def samples_command(
    database: str | None,
    sheet: Path | None,
    root: Path | None,
    scheme: str | None,
    csv_path: Path | None,
    as_json: bool,
) -> None:
    """Read an annotation sheet alone: counts per class and subject, corrections, dropped rows.

    \b
    Examples:
      mer-flow samples --sheet "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx" --scheme casme3-3
      mer-flow samples --db smic --root /data/SMIC_all_raw --json
    """
    from mer_flow.databases import get_database
    from mer_flow.databases.layout import resolve_root
    from mer_flow.databases.recognise import recognise_sheet
    from mer_flow.labels import apply_scheme, get_scheme

    if database is None:
        if sheet is None:
            raise click.UsageError("give --sheet FILE, whose columns tell the database, or --db NAME")
        database, title = recognise_sheet(sheet)
        click.echo(f"{sheet} is {title}: --db {database}", err=True)
    reader = get_database(database)
    chosen = get_scheme(scheme) if scheme else None
    reading = reader.read(root if sheet else resolve_root(database, root), sheet)
    labelled = apply_scheme(reading.table, chosen) if chosen else None
    if csv_path is not None:
        write_csv(reading, labelled, csv_path)
    summary = summarise(reading, labelled)
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    click.echo("\n".join(_lines(summary)))
    if csv_path is not None:
        click.echo(f"\nwrote {csv_path}")


def summarise(reading: SheetReading, labelled: Labelled | None = None) -> dict[str, Any]:
    """Put a reading into plain numbers and texts.

    Args:
        reading: What a database's `read` returned.
        labelled: Its table seen through a label scheme.

    Returns:
        JSON-ready: counts per emotion and subject, corrections, dropped rows (each, and by reason), warnings,
        deviations from a complete copy; with a scheme also its classes, per subject too, and what it drops
        and why.
    """
    from mer_flow.databases.completeness import compare

    table = reading.table
    summary: dict[str, Any] = {
        "database": reading.database,
        "version": reading.version,
        "sheet": str(reading.path),
        "rows": reading.rows,
        "samples": len(table),
        "subjects": len(table.subjects),
        "emotions": dict(Counter(s.emotion for s in table).most_common()),
        "per_subject": dict(Counter(s.subject for s in table)),
        "apex_sources": dict(Counter(s.apex_source for s in table).most_common()),
        "corrections": [asdict(correction) for correction in reading.corrections],
        "dropped_rows": [asdict(row) for row in reading.dropped],
        "dropped_by_reason": dict(Counter(row.reason for row in reading.dropped).most_common()),
        "warnings": list(reading.warnings),
        "deviations": [
            {"kind": d.kind, "message": d.message, "names": list(d.names), "remedy": d.remedy}
            for d in compare(reading)
        ],
    }
    if labelled is not None:
        per_subject: dict[str, list[int]] = {}
        for sample_id, label in labelled.labels.items():
            counts = per_subject.setdefault(table[sample_id].subject, [0] * len(labelled.classes))
            counts[label] += 1
        summary["scheme"] = {
            "name": labelled.scheme,
            "samples": len(labelled.labels),
            "subjects": len(per_subject),
            "classes": dict(zip(labelled.classes, labelled.counts(), strict=True)),
            "per_subject": {
                subject: per_subject[subject] for subject in table.subjects if subject in per_subject
            },
            "dropped": labelled.dropped_by_reason(),
        }
    return summary


def write_csv(reading: SheetReading, labelled: Labelled | None, path: Path) -> None:
    """Write the sample table as CSV; with a scheme, also each sample's class or why it has none."""
    from mer_flow.work.cells import safe_cell
    from mer_flow.work.errors import UsageError

    frame = reading.table.to_frame()
    if labelled is not None:
        ids, labels = reading.table.sample_ids, labelled.labels
        frame["class"] = [labelled.classes[labels[i]] if i in labels else "" for i in ids]
        frame["dropped"] = [labelled.dropped.get(i, "") for i in ids]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.map(safe_cell).to_csv(path, index=False)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; give --csv a path you may write") from error


def _lines(summary: dict[str, Any]) -> list[str]:
    lines = [
        f"{summary['database']}: {summary['samples']} samples of {summary['subjects']} subjects",
        f"sheet     {summary['sheet']}",
        f"version   {summary['version']} ({summary['rows']} rows)",
        f"emotions  {_counts(summary['emotions'])}",
        f"apex from {_counts(summary['apex_sources'])}",
    ]
    title, per_subject = "per subject", summary["per_subject"]
    if scheme := summary.get("scheme"):
        numbers = "/".join(map(str, scheme["classes"].values()))
        lines.append(
            f"\nscheme {scheme['name']}: {scheme['samples']} = {numbers} ({' / '.join(scheme['classes'])}) "
            f"of {scheme['subjects']} subjects"
        )
        lines += [f"  {count:5d} dropped: {reason}" for reason, count in scheme["dropped"].items()]
        title += f" ({'/'.join(scheme['classes'])})"
        per_subject = {name: "/".join(map(str, counts)) for name, counts in scheme["per_subject"].items()}
    cells = [f"{name.partition('/')[2]} {shown}" for name, shown in per_subject.items()]
    lines += [f"\n{title}", *_columns(cells), f"\ncorrections applied: {len(summary['corrections'])}"]
    for c in summary["corrections"]:
        where = f"row {c['row']:<5d} " if c["row"] else ""
        what = f"{c['sample_id']}: {c['column']} {c['old']} -> {c['new']}"
        lines.append(f"  {where}{what}; {c['reason']} [{c['source']}]")
    lines.append(f"\nrows dropped: {len(summary['dropped_rows'])}")
    for reason, count in summary["dropped_by_reason"].items():
        rows = [r for r in summary["dropped_rows"] if r["reason"] == reason]
        names = [f"{r['key'] or '(empty)'}{' row ' + str(r['row']) if r['row'] else ''}" for r in rows]
        lines.append(f"  {count:5d} {reason}: {_first(names)}")
    if summary["warnings"]:
        lines += [f"\nwarnings: {len(summary['warnings'])}", *(f"  {w}" for w in summary["warnings"])]
    complete = "complete: the counts are those of a complete copy"
    lines.append(f"\n{'deviations:' if summary['deviations'] else complete}")
    for d in summary["deviations"]:
        named = f" ({_first(d['names'])})" if d["names"] else ""
        lines.append(f"  {d['message']}{named}.{' ' + d['remedy'] if d['remedy'] else ''}")
    return lines


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or '(none)'} {count}" for name, count in counts.items())


def _columns(cells: list[str], width: int = 100) -> list[str]:
    size = max((len(cell) for cell in cells), default=0) + 3
    across = max(1, width // size)
    rows = [cells[i : i + across] for i in range(0, len(cells), across)]
    return ["  " + "".join(cell.ljust(size) for cell in row).rstrip() for row in rows]
