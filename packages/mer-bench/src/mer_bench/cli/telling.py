"""What training commands say before they train, and of a run that has ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mer_bench.runs.directory import RunDirectory
    from mer_bench.runs.train import Outcome


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """Return what a run did, as plain values."""
    return {
        "run": str(outcome.run.path),
        "trained": outcome.trained,
        "kept": outcome.kept,
        "set_aside": [str(path) for path in outcome.set_aside],
        "failures": outcome.failures,
        "seconds": outcome.seconds,
        "complete": outcome.status.complete,
        "missing": outcome.status.missing,
    }


def tell_outcome(outcome: Outcome) -> None:
    """Print what a run did, without its scores."""
    from mer_flow.work.progress import duration

    for path in outcome.set_aside:
        click.echo(f"warning: a damaged record was set aside as {path} and its fold trained again", err=True)
    click.echo(
        f"{outcome.run.path}: {outcome.trained} folds trained in {duration(outcome.seconds)}, "
        f"{outcome.kept} kept from before"
    )


def tell_derived(run: RunDirectory, as_json: bool) -> None:
    """Print where a run that was made of others lies, and its scores."""
    from mer_bench.report.terminal import render_run
    from mer_bench.scores.summary import summarise

    summary = summarise(run)
    if as_json:
        click.echo(json.dumps({"run": str(run.path), "summary": summary.to_json()}, indent=1))
    else:
        click.echo(f"{run.path}\n\n{render_run(summary)}")


def ask_if_long(what: str, seconds: float, shorter: Callable[[], str], yes: bool) -> None:
    """Ask on a terminal, and refuse elsewhere, before a training that takes over an hour on a CPU.

    Args:
        what: What is trained, as in `ahmsa`.
        seconds: The estimate.
        shorter: Says what would take less, as options.
        yes: Whether the user has said yes already, by `--yes`.

    Raises:
        UsageError: It is long, nobody said yes and nobody can be asked.
        click.Abort: The answer is no.
    """
    import sys

    from mer_bench.errors import UsageError
    from mer_bench.runs.estimate import LONG
    from mer_flow.work.progress import duration

    if yes or seconds <= LONG:
        return
    said = f"{what} takes about {duration(seconds)} on this CPU ({shorter()})"
    if not sys.stdin.isatty():
        raise UsageError(f"{said}; --yes begins it all the same, and --dry-run shows the plan")
    click.confirm(f"{said}. Begin all the same?", abort=True, err=True)
