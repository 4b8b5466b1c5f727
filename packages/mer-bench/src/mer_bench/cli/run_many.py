"""The part of `mer-bench run` that trains several models: plan, progress, leaderboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mer_bench.models.registry import Registry
    from mer_bench.models.spelling import Entry
    from mer_bench.report.summary import RunSummary
    from mer_bench.runs.many import Leaderboard, Planned, Refused, Trained
    from mer_bench.settings import Layers


def run_many(
    entries: Sequence[Entry],
    broken: Sequence[Refused],
    layers: Layers,
    registry: Registry,
    store: Path,
    out: Path,
    *,
    spare_cpu: bool,
    limit: int | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Plans and trains several models and prints their leaderboard.

    Args:
        entries: The models.
        broken: What of the registry cannot be used.
        layers: The settings.
        registry: Where the models are found.
        store: The store.
        out: Folder of all runs.
        spare_cpu: On a CPU, take variant `small` of large models.
        limit: Train the first so many folds of each only.
        dry_run: Print the plan and train nothing.
        quiet: No progress.
        as_json: Print JSON.

    Raises:
        click.exceptions.Exit: With 1, where a model was refused, failed or is incomplete.
    """
    from mer_bench.cli.run import engine_messages, tell_outcome
    from mer_bench.progress import LeaderboardProgress
    from mer_bench.runs.many import Leaderboard

    silent = quiet or as_json
    board = Leaderboard.plan(
        entries, layers, registry, store, out, spare_cpu=spare_cpu, estimate=dry_run or not silent
    )
    refused = (*broken, *board.refused)
    if dry_run:
        click.echo(
            json.dumps(_plan_fields(board, refused), indent=1) if as_json else _plan_text(board, refused)
        )
        if not as_json:
            click.echo("dry run: nothing was trained or written")
        if refused:
            raise click.exceptions.Exit(1)
        return
    if not silent:
        click.echo(_plan_text(board, refused), err=True)
    progress = LeaderboardProgress(
        [str(planned.entry) for planned in board.planned],
        [planned.request.run.seeds for planned in board.planned],
        [planned.seconds for planned in board.planned],
        quiet=silent,
    )
    trained = []
    with engine_messages(show=not silent):
        try:
            for one in board.train(
                limit=limit, on_model=lambda place, _: progress.begin(place), on_progress=progress
            ):
                progress.end()
                trained.append(one)
                if not as_json and one.outcome is not None:
                    tell_outcome(one.outcome)
        finally:
            progress.end()
    _finish(trained, refused, as_json)


def _plan_row(place: int, planned: Planned) -> dict[str, Any]:
    manifest = planned.manifest
    identity = manifest["identity"]
    return {
        "place": place,
        "entry": str(planned.entry),
        "model": manifest["model"],
        "variant": manifest["variant"],
        "recipe": identity["recipe"]["name"] if identity["recipe"] else None,
        "changes": manifest["changes"],
        "parameters": manifest["parameters"],
        "input": f"{identity['view']}:{identity['normalisation']}",
        "passed_over": manifest["passed_over"],
        "folds": len(manifest["folds"]),
        "seeds": list(planned.request.run.seeds),
        "epochs": planned.epochs,
        "done": planned.done,
        "seconds": planned.seconds,
        "notes": list(planned.notes),
        "warnings": manifest["warnings"],
        "run": str(planned.path),
    }


def _plan_fields(board: Leaderboard, refused: Sequence[Refused]) -> dict[str, Any]:
    return {
        "planned": [_plan_row(place, planned) for place, planned in enumerate(board.planned, 1)],
        "refused": _refused_fields(refused),
    }


def _refused_fields(refused: Sequence[Refused]) -> list[dict[str, str]]:
    return [{"entry": one.entry, "reason": one.reason} for one in refused]


def _plan_text(board: Leaderboard, refused: Sequence[Refused]) -> str:
    from mer_bench.report.terminal import align
    from mer_flow.work.progress import duration

    rows = [
        ["#", "model", "variant", "recipe", "input", "parameters", "folds", "epochs", "done", "time, about"]
    ]
    notes = []
    for place, planned in enumerate(board.planned, 1):
        row = _plan_row(place, planned)
        seeds = len(row["seeds"])
        rows.append(
            [
                str(place),
                row["model"],
                row["variant"],
                row["recipe"] or "–",
                row["input"],
                f"{row['parameters']:,}" if row["parameters"] else "–",
                f"{row['folds']}" + (f" x {seeds} seeds" if seeds > 1 else ""),
                f"{row['epochs']:,}",
                str(row["done"]),
                "–" if row["seconds"] is None else duration(row["seconds"]),
            ]
        )
        changes = ", ".join(f"{key}={value}" for key, value in row["changes"].items())
        missing = ", ".join(name for name, _ in row["passed_over"])
        said = [f"set apart: {changes}"] if changes else []
        said += [
            *planned.notes,
            *([f"this store cannot give {missing}, which it would rather read"] if missing else []),
        ]
        notes += [f"{row['entry']}: {text}" for text in said]
    lines = align(rows, left=5) if board.planned else []
    # The data are the same for all, and so is what is to be said of them.
    for planned in board.planned[:1]:
        notes += [f"warning: {text}" for text in planned.manifest["warnings"]]
        notes += [f"deviation: {text}" for text in planned.manifest["deviations"]]
    return "\n".join([*lines, *notes, *(f"refused: {one.entry}: {one.reason}" for one in refused)])


def _finish(trained: Sequence[Trained], refused: Sequence[Refused], as_json: bool) -> None:
    from mer_bench.cli.run import outcome_fields
    from mer_bench.report.leaderboard import build_leaderboards, ranked, render_leaderboard
    from mer_bench.report.summary import summarise

    summaries: list[RunSummary] = []
    incomplete = []
    for one in trained:
        if one.outcome is not None and one.complete:
            summaries.append(summarise(one.outcome.run, one.planned.request.run.seeds))
        else:
            incomplete.append(one)
    if as_json:
        models = [
            {
                "entry": str(one.planned.entry),
                "failures": list(one.failures),
                "outcome": outcome_fields(one.outcome) if one.outcome else None,
                "complete": one.complete,
            }
            for one in trained
        ]
        found = {"models": models, "refused": _refused_fields(refused)}
        click.echo(json.dumps({**found, "leaderboard": [s.to_json() for s in ranked(summaries)]}, indent=1))
    else:
        for table in build_leaderboards(summaries):
            click.echo("\n" + render_leaderboard(table))
        for one in incomplete:
            gaps = f". {one.outcome.status.describe_gaps()}" if one.outcome else ""
            click.echo(f"incomplete, so not in the table: {one.planned.entry}{gaps}")
        for one in trained:
            for failure in one.failures:
                click.echo(f"failed: {one.planned.entry}: {_short(failure)}", err=True)
        for other in refused:
            click.echo(f"refused: {other.entry}: {other.reason}", err=True)
    if incomplete or refused:
        raise click.exceptions.Exit(1)


def _short(failure: str, limit: int = 2) -> str:
    lines = failure.splitlines()
    more = (
        f"\n  and {len(lines) - limit} more lines, by running that model alone" if len(lines) > limit else ""
    )
    return "\n".join(lines[:limit]) + more
