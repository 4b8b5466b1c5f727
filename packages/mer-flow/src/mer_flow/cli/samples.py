"""`mer-flow samples`: what an annotation sheet gives, without any frame."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mer_flow.databases.reading import SheetReading
    from mer_flow.labels import Labelled


@click.command("samples")
@click.option("--db", "database", required=True, metavar="NAME", help="`mer-flow databases` lists them.")
@click.option(
    "--sheet",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The annotation sheet. Without it the sheet (for SMIC: the folders) below the root is read.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The database's root; else MER_FLOW_<DB>_ROOT, else the config file.",
)
@click.option(
    "--scheme", metavar="NAME", help="Count the classes of a label scheme, such as casme3-3 or megc3."
)
@click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), metavar="OUT", help="Write the sample table here."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for machines.")
def samples_command(
    database: str,
    sheet: Path | None,
    root: Path | None,
    scheme: str | None,
    csv_path: Path | None,
    as_json: bool,
) -> None:
    """Read an annotation sheet alone: counts per class and subject, corrections, dropped rows.

    \b
    Examples:
      mer-flow samples --db casme3 --sheet cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx --scheme casme3-3
      mer-flow samples --db smic --root /data/SMIC_all_raw --json
    """
    from mer_flow.databases import get_database
    from mer_flow.databases.layout import resolve_root
    from mer_flow.labels import apply_scheme, get_scheme

    reader = get_database(database)
    chosen = get_scheme(scheme) if scheme else None
    if sheet is None:
        reading = reader.read(resolve_root(database, root), None)
    else:
        reading = reader.read(root, sheet)
    labelled = apply_scheme(reading.table, chosen) if chosen else None
    if csv_path is not None:
        write_csv(reading, labelled, csv_path)
    summary = summarise(reading, labelled)
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        for line in _lines(summary, csv_path):
            click.echo(line)


def summarise(reading: SheetReading, labelled: Labelled | None = None) -> dict[str, Any]:
    """Puts a reading into plain numbers and texts.

    Args:
        reading: What a database's `read` returned.
        labelled: Its table seen through a label scheme.

    Returns:
        JSON-ready: counts per emotion and subject, corrections, dropped rows (each, and by reason), warnings,
        deviations from a complete copy; with a scheme also its classes, per subject too, and what it drops
        and why.
    """
    from dataclasses import asdict

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
    }
    if labelled is not None:
        per_subject = {subject: [0] * len(labelled.classes) for subject in table.subjects}
        for sample_id, label in labelled.labels.items():
            per_subject[table[sample_id].subject][label] += 1
        per_subject = {subject: counts for subject, counts in per_subject.items() if any(counts)}
        summary["scheme"] = {
            "name": labelled.scheme,
            "samples": len(labelled.labels),
            "subjects": len(per_subject),
            "classes": dict(zip(labelled.classes, labelled.counts(), strict=True)),
            "per_subject": per_subject,
            "dropped": labelled.dropped_by_reason(),
        }
    summary["corrections"] = [asdict(correction) for correction in reading.corrections]
    summary["dropped_rows"] = [asdict(row) for row in reading.dropped]
    summary["dropped_by_reason"] = dict(Counter(row.reason for row in reading.dropped).most_common())
    summary["warnings"] = list(reading.warnings)
    summary["deviations"] = [
        {"kind": d.kind, "message": d.message, "names": list(d.names), "remedy": d.remedy}
        for d in compare(reading)
    ]
    return summary


def write_csv(reading: SheetReading, labelled: Labelled | None, path: Path) -> None:
    """Writes the sample table as CSV; with a scheme, also each sample's class or why it has none.

    Raises:
        UsageError: The file cannot be written.
    """
    from mer_flow.work.errors import UsageError

    frame = reading.table.to_frame()
    if labelled is not None:
        classes = labelled.classes
        ids = reading.table.sample_ids
        frame["class"] = [classes[labelled.labels[i]] if i in labelled.labels else "" for i in ids]
        frame["dropped"] = [labelled.dropped.get(i, "") for i in ids]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; give --csv a path you may write") from error


def _lines(summary: dict[str, Any], csv_path: Path | None) -> list[str]:
    lines = [
        f"{summary['database']}: {summary['samples']} samples of {summary['subjects']} subjects",
        f"sheet     {summary['sheet']}",
        f"version   {summary['version']} ({summary['rows']} rows)",
        f"emotions  {_counts(summary['emotions'])}",
        f"apex from {_counts(summary['apex_sources'])}",
    ]
    scheme = summary.get("scheme")
    if scheme is not None:
        numbers = "/".join(str(count) for count in scheme["classes"].values())
        lines += [
            "",
            f"scheme {scheme['name']}: {scheme['samples']} = {numbers} ({' / '.join(scheme['classes'])}) "
            f"of {scheme['subjects']} subjects",
        ]
        lines += [f"  {count:5d} dropped: {reason}" for reason, count in scheme["dropped"].items()]
        per_subject = {name: "/".join(map(str, counts)) for name, counts in scheme["per_subject"].items()}
        title = f"per subject ({'/'.join(scheme['classes'])})"
    else:
        per_subject = {name: str(count) for name, count in summary["per_subject"].items()}
        title = "per subject"
    lines += [
        "",
        title,
        *_columns([f"{name.partition('/')[2]} {shown}" for name, shown in per_subject.items()]),
    ]
    lines += ["", f"corrections applied: {len(summary['corrections'])}"]
    for c in summary["corrections"]:
        where = f"row {c['row']:<5d} " if c["row"] else ""
        what = f"{c['sample_id']}: {c['column']} {c['old']} -> {c['new']}"
        lines.append(f"  {where}{what}; {c['reason']} [{c['source']}]")
    lines += ["", f"rows dropped: {len(summary['dropped_rows'])}"]
    for reason, count in summary["dropped_by_reason"].items():
        rows = [r for r in summary["dropped_rows"] if r["reason"] == reason]
        shown = ", ".join(
            f"{r['key'] or '(empty)'}{' row ' + str(r['row']) if r['row'] else ''}" for r in rows[:5]
        )
        lines.append(f"  {count:5d} {reason}: {shown}{' ...' if count > 5 else ''}")
    if summary["warnings"]:
        lines += [
            "",
            f"warnings: {len(summary['warnings'])}",
            *(f"  {warning}" for warning in summary["warnings"]),
        ]
    lines += [
        "",
        "complete: the counts are those of a complete copy" if not summary["deviations"] else "deviations:",
    ]
    for deviation in summary["deviations"]:
        names = deviation["names"]
        shown = f" ({', '.join(names[:5])}{' ...' if len(names) > 5 else ''})" if names else ""
        remedy = f" {deviation['remedy']}" if deviation["remedy"] else ""
        lines.append(f"  {deviation['message']}{shown}.{remedy}")
    if csv_path is not None:
        lines += ["", f"wrote {csv_path}"]
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or '(none)'} {count}" for name, count in counts.items())


def _columns(cells: list[str], width: int = 100) -> list[str]:
    size = max((len(cell) for cell in cells), default=0) + 3
    across = max(1, width // size)
    return [
        "  " + "".join(cell.ljust(size) for cell in cells[i : i + across]).rstrip()
        for i in range(0, len(cells), across)
    ]
