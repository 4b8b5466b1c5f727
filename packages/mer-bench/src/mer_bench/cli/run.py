"""`mer-bench run`: train a model under a protocol and score it."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mer_bench.runs.train import Outcome, Prepared


@click.command("run", short_help="Train models under a protocol and score them; resumes by itself.")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--all", "everything", is_flag=True, help="Every registered model: a leaderboard.")
@click.option("--protocol", help="cde, loso, hde, cross-db or kfold.")
@click.option(
    "--store", type=click.Path(path_type=Path), help="The store; else the variable MER_BENCH_STORE."
)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings as TOML; --set and flags win over it."
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A recipe field or a model option.")
@click.option("--scheme", help="Label scheme.  [default: megc3]")
@click.option("--db", multiple=True, help="Database of loso, hde, kfold; may be given several times.")
@click.option("--train-db", multiple=True, help="Training database of cross-db; may be given several times.")
@click.option("--test-db", multiple=True, help="Test database of cross-db; may be given several times.")
@click.option("--k", type=int, help="Folds of kfold.  [default: 5]")
@click.option("--fold-seed", type=int, help="Decides kfold's folds and the inner subjects.  [default: 0]")
@click.option("--variant", help="The model's named option set.")
@click.option("--recipe", help="The model's named recipe.")
@click.option(
    "--seeds",
    metavar="N|LIST",
    help="A count (3 means 0,1,2) or a list (0,1,5; seed 7 alone: 7,).  [default: 1, seed 0]",
)
@click.option("--inner/--no-inner", default=None, help="Reserve whole training subjects to choose the epoch.")
@click.option("--inner-fraction", type=float, help="Share of the training subjects reserved.  [default: 0.2]")
@click.option("--view", help="What the model reads, as in whole-28.")
@click.option("--normalisation", help="How it is scaled, as in scaled.")
@click.option("--shuffle-labels", type=int, metavar="SEED", help="Sanity control: permute all labels first.")
@click.option("--device", help="auto, cpu, cuda or cuda:<n>.  [default: auto]")
@click.option("--engine", help="auto, stacked, processes or serial.  [default: auto]")
@click.option("--workers", type=int, help="Processes.")
@click.option("--chunk", type=int, help="Folds stacked at once.")
@click.option("--deterministic/--no-deterministic", default=None, help="Bit-identical repetition.")
@click.option("--precision", help="Matrix products on a GPU: auto, float32 or tf32.  [default: auto]")
@click.option("--compile/--no-compile", default=None, help="Stacked folds through torch.compile.")
@click.option(
    "--limit", type=int, metavar="N", help="Train the first N folds only; the run stays incomplete."
)
@click.option("--dry-run", is_flag=True, help="Resolve and check everything, train nothing.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs."
)
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run_command(
    models: tuple[str, ...],
    everything: bool,
    store: Path | None,
    config: Path | None,
    sets: tuple[str, ...],
    limit: int | None,
    dry_run: bool,
    out: Path,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Trains MODEL on every fold of a protocol and prints its scores; several, or --all, make a leaderboard.

    Folds that are recorded already are kept, so a killed run continues with the same command. The headline
    is the last epoch; the oracle column, where the test subject chooses the epoch, is printed beside it and
    leaks.

    A model may be spelled with its variant and recipe, as in ahmsa:tiny@lineage. In a leaderboard, what is
    set for all goes to the models that know it; a model that cannot run is refused before any is trained,
    and the others go on. On a CPU, --all takes the variant small of models with more than 5 million
    parameters where they have one.

    Settings: --config FILE.toml, below --set key=value (recipe fields such as lr or epochs, model options
    such as width), below the flags. In the file, [models.NAME] holds settings of one model.

    \b
    Examples:
      mer-bench run ststnet --protocol cde --store maps.h5 --seeds 3
      mer-bench run ahmsa --protocol loso --db samm --recipe lineage --set epochs=200
      mer-bench run majority ststnet ahmsa:tiny@quick --protocol cde --store maps.h5
      mer-bench run --all --protocol cde --store maps.h5 --dry-run
    """
    from mer_bench.errors import UsageError
    from mer_bench.models.registry import Registry
    from mer_bench.models.spelling import parse_entry
    from mer_bench.progress import TrainingProgress
    from mer_bench.protocols.splits import PROTOCOLS, get_protocol
    from mer_bench.runs.data import find_store
    from mer_bench.runs.many import choose_entries
    from mer_bench.runs.train import execute, prepare
    from mer_bench.settings import Layers

    layers = Layers.read(config, sets, {key: None if value == () else value for key, value in flags.items()})
    named = models or tuple(layers.file.common.settings.get("model", "").split())
    if not (named or everything or layers.file.models):
        raise UsageError("no model given; `mer-bench models` lists them")
    protocol = layers.common.get("protocol")
    if not protocol:
        raise UsageError(f"no --protocol given; choose one of {', '.join(PROTOCOLS)}")
    get_protocol(protocol)
    registry = Registry()
    entries, broken = choose_entries(named, everything, layers, registry)
    if everything or len(named) != 1:
        from mer_bench.cli.run_many import run_many

        run_many(
            entries,
            broken,
            layers,
            registry,
            find_store(store),
            out,
            spare_cpu=everything,
            limit=limit,
            dry_run=dry_run,
            quiet=quiet,
            as_json=as_json,
        )
        return
    request = layers.request(parse_entry(named[0]))
    prepared = prepare(registry.find(request.run.model), request, find_store(store))
    if dry_run:
        _describe(prepared, out, as_json)
        return
    if not as_json:
        for warning in prepared.folds.warnings:
            click.echo(f"warning: {warning}", err=True)
    progress = TrainingProgress(request.run.seeds, quiet=quiet or as_json)
    with engine_messages(show=not (quiet or as_json)):
        try:
            outcome = execute(prepared, out, limit=limit, on_progress=progress)
        finally:
            progress.close()
    _finish(outcome, as_json)


@contextlib.contextmanager
def engine_messages(show: bool) -> Iterator[None]:
    """Shows what the engine decides, on standard error; classes absent from folds were warned of already."""
    training = logging.getLogger("mer_bench.training")
    folds = logging.getLogger("mer_bench.training.folds")
    before = training.level, folds.level, training.propagate
    handler = logging.StreamHandler()
    training.addHandler(handler)
    training.propagate = False
    training.setLevel(logging.INFO if show else logging.WARNING)
    folds.setLevel(logging.ERROR)
    try:
        yield
    finally:
        training.removeHandler(handler)
        training.setLevel(before[0])
        folds.setLevel(before[1])
        training.propagate = before[2]


def _describe(prepared: Prepared, out: Path, as_json: bool) -> None:
    from mer_bench.cli.describe import describe_recipe

    manifest = prepared.manifest
    path = out / f"{manifest['model']}-{manifest['protocol']}-{manifest['digest'][:12]}"
    if as_json:
        content = {key: value for key, value in manifest.items() if key not in ("samples", "folds")}
        content["fold_names"] = list(prepared.folds.names)
        click.echo(json.dumps({"run": str(path), **content}, indent=1, default=str))
        return
    data, population, recipe = prepared.data, prepared.data.population, prepared.resolved.recipe
    counts = "/".join(map(str, population.counts().tolist()))
    count = f", {prepared.parameters:,} parameters" if prepared.parameters else ""
    lines = [
        f"model      {manifest['model']} (variant {manifest['variant']}{count}; {manifest['package']})",
        f"options    {', '.join(f'{k}={v}' for k, v in prepared.resolved.options.items()) or 'as built'}",
        f"recipe     {f'{recipe.name}: {describe_recipe(recipe)}' if recipe else 'none'}",
        f"data       {len(population.labels)} samples of {len(set(population.subjects.tolist()))} subjects, "
        f"{'/'.join(population.classes)} {counts}",
        f"input      {data.view}:{data.normalisation}, maps {data.maps.shape[1:]}",
        f"folds      {len(prepared.folds)} of {manifest['protocol']}, seeds "
        f"{', '.join(map(str, manifest['seeds']))}",
        f"run        {path}",
    ]
    lines += [f"passed over {name}: {why}" for name, why in data.passed_over]
    lines += [f"dropped    {n} samples: {why}" for why, n in data.dropped]
    lines += [f"deviation  {text}" for text in manifest["deviations"]]
    lines += [f"warning    {text}" for text in prepared.folds.warnings]
    click.echo("\n".join(lines))
    click.echo("dry run: nothing was trained or written")


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """Returns what a run did, as plain values."""
    status = outcome.status
    return {
        "run": str(outcome.run.path),
        "trained": outcome.trained,
        "kept": outcome.kept,
        "set_aside": [str(path) for path in outcome.set_aside],
        "failures": list(outcome.failures),
        "seconds": outcome.seconds,
        "complete": status.complete,
        "missing": {seed: list(names) for seed, names in status.missing.items()},
    }


def tell_outcome(outcome: Outcome) -> None:
    """Prints what a run did, without its scores."""
    from mer_flow.work.progress import duration

    for path in outcome.set_aside:
        click.echo(f"warning: a damaged record was set aside as {path} and its fold trained again", err=True)
    click.echo(
        f"{outcome.run.path}: {outcome.trained} folds trained in {duration(outcome.seconds)}, "
        f"{outcome.kept} kept from before"
    )


def _finish(outcome: Outcome, as_json: bool) -> None:
    from mer_bench.report.summary import summarise
    from mer_bench.report.terminal import render_run

    status = outcome.status
    summary = summarise(outcome.run, tuple(status.missing)) if status.complete else None
    if as_json:
        found = {**outcome_fields(outcome), "summary": summary.to_json() if summary else None}
        click.echo(json.dumps(found, indent=1))
    else:
        tell_outcome(outcome)
        if summary is not None:
            click.echo("\n" + render_run(summary))
        else:
            click.echo(f"incomplete, so there is no table. {status.describe_gaps()}")
        for failure in outcome.failures:
            click.echo(f"failed: {failure}", err=True)
    if summary is None:
        raise click.exceptions.Exit(1)
