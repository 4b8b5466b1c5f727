"""`mer-bench status`: how far runs have come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mer_bench.cli.options import runs_option
from mer_flow.cli.options import json_option

if TYPE_CHECKING:
    from mer_bench.runs.directory import RunDirectory, RunStatus


@click.command("status", short_help="Say how far runs have come.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@runs_option
@json_option
def status_command(runs: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Show the folds done, missing and damaged of RUNS, or of every run below --out.

    Exit code 1 where a run is incomplete.
    """
    from mer_bench.errors import RunError
    from mer_bench.runs.directory import RunDirectory, runs_below

    paths = runs or runs_below(out)
    if not paths:
        raise RunError(f"no run below {out}; make one with `mer-bench run`")
    found = []
    for run in map(RunDirectory, paths):
        found.append((run, run.status()))
        if not as_json:
            _tell(*found[-1])
    if as_json:
        click.echo(json.dumps([_fields(*one) for one in found], indent=1))
    if not all(status.complete for _, status in found):
        raise click.exceptions.Exit(1)


def _tell(run: RunDirectory, status: RunStatus) -> None:
    counts = ", ".join(f"seed {seed} {len(names)}/{status.total}" for seed, names in status.done.items())
    writer = f"; {status.writer} is writing" if status.writer else ""
    click.echo(f"{run.path}: {'complete' if status.complete else 'incomplete'} ({counts}){writer}")
    if not status.complete:
        click.echo(f"  {status.describe_gaps()}")
    if run.manifest.derived:
        members = ", ".join(member.name for member in run.manifest.derived.members)
        click.echo(f"  {run.manifest.derived.how} of {members}")
    for note in run.describe_notes(pair for pairs in status.notes.values() for pair in pairs):
        click.echo(f"  note: {note}")


def _fields(run: RunDirectory, status: RunStatus) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "complete": status.complete,
        "folds": status.total,
        "writer": status.writer,
        "members": [m.name for m in run.manifest.derived.members] if run.manifest.derived else [],
        "seeds": {
            seed: {
                "done": len(status.done[seed]),
                "missing": status.missing[seed],
                "damaged": dict(status.damaged[seed]),
                "notes": [{"fold": fold, "note": note} for fold, note in status.notes[seed]],
            }
            for seed in status.done
        },
    }
