"""The part of `mer-bench run` that trains several models: plan, progress, leaderboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mer_bench.cli.telling import ask_if_long, outcome_fields, tell_outcome
from mer_bench.runs.shown import training_shown

if TYPE_CHECKING:
    from pathlib import Path

    from mer_bench.cli.options import Doing
    from mer_bench.models.registry import Registry
    from mer_bench.runs.many import Chosen, Finished, Leaderboard, Planned, Refused
    from mer_bench.settings import Layers


def run_many(
    chosen: Chosen, layers: Layers, registry: Registry, stores: tuple[Path, ...], doing: Doing
) -> None:
    """Plan and train several models and print their leaderboard.

    Raises:
        click.exceptions.Exit: With 1, where a model was refused, failed or is incomplete.
    """
    from mer_bench.runs.many import Leaderboard

    board = Leaderboard.plan(chosen, layers, registry, stores, doing.out, estimate=True)
    if doing.dry_run:
        text = f"{_plan_text(board)}\ndry run: nothing was trained or written"
        click.echo(json.dumps(_plan_fields(board), indent=1) if doing.as_json else text)
        if board.refused:
            raise click.exceptions.Exit(1)
        return
    if not doing.silent:
        click.echo(_plan_text(board), err=True)
    if doing.limit is None:
        seconds = {str(planned.entry): planned.seconds or 0 for planned in board.planned}
        said = "smaller variants as in ahmsa:tiny@quick, or a GPU; most of it goes to "
        ask_if_long(
            "this leaderboard",
            sum(seconds.values()),
            lambda: said + max(seconds, key=seconds.__getitem__),
            doing.yes,
        )
    finished: list[Finished] = []
    if layers.where.on_dask and board.planned:
        label = f"train {len(board.planned)} models"
        finished = board.train_on_cluster(
            layers.where, doing.part, lambda on: training_shown(label, doing.silent, note=on.counted)
        )
        for one in finished:
            if one.outcome is not None and not doing.as_json:
                tell_outcome(one.outcome)
        _finish(finished, board.refused, doing)
        return
    for place, planned in enumerate(board.planned):
        label = f"model {place + 1} of {len(board.planned)}, {planned.entry}"
        if not doing.silent:
            click.echo(label, err=True)
        note = others_note(board.planned[place + 1 :], finished)
        with training_shown(label, doing.silent, note=note) as report:
            one = board.train(planned, doing.part, report)
        finished.append(one)
        if one.outcome is not None and not doing.as_json:
            tell_outcome(one.outcome)
    _finish(finished, board.refused, doing)


def others_note(to_come: Sequence[Planned], finished: Sequence[Finished]) -> str:
    """Say how many models are still to come, and how long they will take where that was estimated.

    Estimates are off by the same factor for most models, so those that are done correct the others.
    """
    from mer_flow.work.progress import duration

    if not to_come:
        return ""
    models = f"then {len(to_come)} more model{'s' if len(to_come) > 1 else ''}"
    seconds = [planned.seconds for planned in to_come if planned.seconds is not None]
    if len(seconds) < len(to_come):
        return models
    done = [
        (one.outcome.seconds, one.planned.seconds) for one in finished if one.outcome and one.planned.seconds
    ]
    factor = sum(taken for taken, _ in done) / sum(estimated for _, estimated in done) if done else 1.0
    return f"{models}, {duration(factor * sum(seconds))}"


def _plan_row(place: int, planned: Planned) -> dict[str, Any]:
    manifest, identity = planned.manifest, planned.manifest.identity
    return {
        "place": place,
        "entry": str(planned.entry),
        "model": manifest.model,
        "variant": manifest.variant,
        "recipe": identity.recipe and identity.recipe.name,
        "changes": manifest.changes,
        "parameters": manifest.parameters,
        "input": identity.input,
        "passed_over": manifest.passed_over,
        "folds": len(manifest.folds),
        "seeds": planned.request.run.seeds,
        "epochs": manifest.epochs,
        "done": planned.done,
        "seconds": planned.seconds,
        "notes": planned.notes,
        "warnings": manifest.warnings,
        "run": str(planned.path),
    }


def _plan_fields(board: Leaderboard) -> dict[str, Any]:
    return {
        "planned": [_plan_row(place, planned) for place, planned in enumerate(board.planned, 1)],
        "refused": [asdict(one) for one in board.refused],
    }


def _plan_text(board: Leaderboard) -> str:
    from mer_bench.report.terminal import align
    from mer_flow.work.progress import duration

    heads = "#", "model", "variant", "recipe", "input", "parameters", "folds", "epochs", "done", "time, about"
    rows, notes = [[*heads]], []
    for place, planned in enumerate(board.planned, 1):
        manifest, seeds = planned.manifest, len(planned.request.run.seeds)
        identity = manifest.identity
        recipe = identity.recipe.name if identity.recipe else "–"
        size = f"{manifest.parameters:,}" if manifest.parameters else "–"
        folds = f"{len(manifest.folds)}" + (f" x {seeds} seeds" if seeds > 1 else "")
        time = "–" if planned.seconds is None else duration(planned.seconds)
        row = str(place), manifest.model, manifest.variant, recipe, identity.input, size, folds
        rows.append([*row, f"{manifest.epochs:,}", str(planned.done), time])
        changes = ", ".join(f"{key}={value}" for key, value in manifest.changes.items())
        missing = ", ".join(name for name, _ in manifest.passed_over)
        said = [f"set apart: {changes}"] if changes else []
        said += planned.notes
        said += [f"this store cannot give {missing}, which it would rather read"] if missing else []
        notes += [f"{planned.entry}: {text}" for text in said]
    lines = align(rows, left=5) if board.planned else []
    # The data are the same for all, and so is what is to be said of them.
    for planned in board.planned[:1]:
        notes += [f"warning: {text}" for text in planned.manifest.warnings]
        notes += [f"deviation: {text}" for text in planned.manifest.deviations]
    return "\n".join([*lines, *notes, *(f"refused: {one.entry}: {one.reason}" for one in board.refused)])


def _finish(finished: Sequence[Finished], refused: Sequence[Refused], doing: Doing) -> None:
    from mer_bench.report.leaderboard import build_leaderboards
    from mer_bench.report.tables import ranked
    from mer_bench.report.terminal import render_leaderboard
    from mer_bench.scores.summary import summarise

    summaries = [
        summarise(one.outcome.run, one.planned.request.run.seeds)
        for one in finished
        if one.outcome is not None and one.complete
    ]
    if doing.as_json:
        found = {
            "models": [_outcome_row(one) for one in finished],
            "refused": [asdict(one) for one in refused],
            "leaderboard": [summary.to_json() for summary in ranked(summaries)],
        }
        click.echo(json.dumps(found, indent=1))
    else:
        for table in build_leaderboards(summaries):
            click.echo("\n" + render_leaderboard(table))
        for one in finished:
            if not one.complete:
                gaps = f". {one.outcome.status.describe_gaps()}" if one.outcome else ""
                click.echo(f"incomplete, so not in the table: {one.planned.entry}{gaps}")
        for one in finished:
            for failure in one.failures:
                click.echo(f"failed: {one.planned.entry}: {_short(failure)}", err=True)
        for other in refused:
            click.echo(f"refused: {other.entry}: {other.reason}", err=True)
    through = [one.complete or bool(doing.shard and one.outcome and one.outcome.whole) for one in finished]
    if refused or not all(through):
        raise click.exceptions.Exit(1)


def _outcome_row(one: Finished) -> dict[str, Any]:
    return {
        "entry": str(one.planned.entry),
        "failures": one.failures,
        "outcome": one.outcome and outcome_fields(one.outcome),
        "complete": one.complete,
    }


def _short(failure: str, limit: int = 2) -> str:
    lines = failure.splitlines()
    if len(lines) > limit:
        lines[limit:] = [f"  and {len(lines) - limit} more lines, by running that model alone"]
    return "\n".join(lines)
