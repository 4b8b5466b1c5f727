"""`mer-bench status`: how far runs have come."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mer_bench.cli.options import json_option, runs_option


@click.command("status", short_help="Say how far runs have come.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@runs_option
@json_option
def status_command(runs: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Show the folds done, missing and damaged of RUNS, or of every run below --out.

    Exit code 1 where a run is incomplete.
    """
    from mer_bench.errors import RunError
    from mer_bench.runs.directory import RunDirectory
    from mer_bench.runs.manifest import MANIFEST

    paths = list(runs) or sorted(manifest.parent for manifest in out.glob(f"*/{MANIFEST}"))
    if not paths:
        raise RunError(f"no run below {out}; make one with `mer-bench run`")
    incomplete = False
    found = []
    for path in paths:
        run = RunDirectory(path)
        status = run.status()
        incomplete |= not status.complete
        found.append(
            {
                "run": str(path),
                "complete": status.complete,
                "folds": status.total,
                "writer": status.writer,
                "seeds": {
                    seed: {
                        "done": len(status.done[seed]),
                        "missing": list(status.missing[seed]),
                        "damaged": dict(status.damaged[seed]),
                        "notes": [{"fold": fold, "note": note} for fold, note in status.notes[seed]],
                    }
                    for seed in status.done
                },
            }
        )
        if as_json:
            continue
        counts = ", ".join(f"seed {seed} {len(names)}/{status.total}" for seed, names in status.done.items())
        writer = f"; {status.writer} is writing" if status.writer else ""
        state = "complete" if status.complete else "incomplete"
        click.echo(f"{path}: {state} ({counts}){writer}")
        if not status.complete:
            click.echo(f"  {status.describe_gaps()}")
        for note in run.describe_notes(pair for pairs in status.notes.values() for pair in pairs):
            click.echo(f"  note: {note}")
    if as_json:
        click.echo(json.dumps(found, indent=1))
    if incomplete:
        raise click.exceptions.Exit(1)
