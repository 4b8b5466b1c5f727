"""`mer-flow info`: what a store holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mer_flow.cli.options import SCHEME_NAMES, json_option

#: Failures that the text lists per database; `--json` has them all.
SHOWN_FAILURES = 10


@click.command("info", short_help="Show what a store holds.")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--scheme",
    shell_complete=SCHEME_NAMES,
    help="Count the classes of this label scheme only.  [default: every fitting one]",
)
@json_option
def info_command(store: Path, scheme: str | None, as_json: bool) -> None:
    """Show samples, subjects and classes per database, fallbacks, failures and parameters of STORE."""
    from mer_flow.store.reader import FlowStore
    from mer_flow.store.summary import summarise

    with FlowStore(store) as opened:
        summary = summarise(opened, scheme)
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    for line in _lines(summary):
        click.echo(line)


def _lines(summary: dict[str, Any]) -> list[str]:
    side = summary["map_size"]
    unit = "px" if summary["values"] == "px" else "min-max scaled per image, 0 to 255"
    lines = [
        f"{summary['path']}: {summary['samples']} samples, {summary['subjects']} subjects, "
        f"{len(summary['databases'])} database(s), {summary['size_bytes'] / 1e6:.1f} MB",
        f"maps {summary['kind']}, {side}×{side}, {unit}; pipeline {summary['pipeline_hash'][:12]}; "
        f"content {summary['digest'][:12]}; {summary['created_with']}",
    ]
    if len(summary["builds"]) > 1:
        lines.append(
            f"made by {len(summary['builds'])} builds of different library versions (--json lists them)"
        )
    if summary["unfinished"]:
        lines.append(
            f"an unfinished build has committed {summary['unfinished']} more; "
            "the same build command continues it"
        )
    for database, item in summary["databases"].items():
        lines += [
            "",
            f"{database}: {item['samples']} samples, {item['subjects']} subjects; {', '.join(item['holds'])}",
        ]
        lines += [f"  {name}: {_counted(counts)}" for name, counts in item["schemes"].items()]
        sources = [f"{source} {count}" for source, count in item["apex_sources"].items()]
        lines.append(f"  apex: {', '.join(sources) or 'no samples'}")
        if item["fallbacks"]:
            lines.append("  fallbacks: " + ", ".join(f"{name} {n}" for name, n in item["fallbacks"].items()))
        if item["failed"]:
            stages = ", ".join(f"{stage} {n}" for stage, n in item["failed_by_stage"].items())
            lines.append(f"  failed: {item['failed']} ({stages})")
            lines += [
                f"    {f['sample_id']}: {f['stage']}: {f['reason']}"
                for f in item["failures"][:SHOWN_FAILURES]
            ]
            if item["failed"] > SHOWN_FAILURES:
                lines.append(f"    ... and {item['failed'] - SHOWN_FAILURES} more (--json lists all)")
    joint = {name: total for name, total in summary["schemes"].items() if len(total["databases"]) > 1}
    if joint:
        lines += ["", "together"]
        lines += [
            f"  {name} ({', '.join(total['databases'])}): {_counted(total)}" for name, total in joint.items()
        ]
    return lines


def _counted(counts: dict[str, Any]) -> str:
    classes = ", ".join(f"{name} {count}" for name, count in counts["classes"].items())
    dropped = sum(counts["dropped"].values())
    left = f"; {dropped} without a class" if dropped else ""
    return f"{counts['samples']} samples, {counts['subjects']} subjects: {classes}{left}"
