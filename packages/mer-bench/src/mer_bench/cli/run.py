"""`mer-bench run`: train a model under a protocol and score it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mer_bench.cli.options import (
    MODEL_NAMES,
    Asked,
    Doing,
    layers_options,
    runs_option,
    stores_option,
)
from mer_bench.cli.run_many import run_many
from mer_bench.cli.telling import ask_if_long, outcome_fields, tell_outcome
from mer_flow.cli.options import json_option, packed, quiet_option

if TYPE_CHECKING:
    from mer_bench.runs.train import Prepared
    from mer_flow.work.where import Where


@click.command("run", short_help="Train models under a protocol and score them; resumes by itself.")
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=MODEL_NAMES)
@click.option(
    "--model",
    "others",
    multiple=True,
    metavar="FILE.py:FUNCTION",
    help="A model without a package, as a further MODEL; may be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="Every registered model: a leaderboard.")
@stores_option
@layers_options(
    *("protocol", "scheme", "db", "train_db", "test_db", "k", "fold_seed", "variant", "recipe", "seeds"),
    *(
        "inner",
        "inner_fraction",
        "train_subjects",
        "view",
        "normalisation",
        "shuffle_labels",
        "headline",
        "tail_epochs",
    ),
    *("device", "engine", "workers", "chunk", "deterministic", "precision", "compile"),
    *("executor", "scheduler", "cluster", "cluster_options", "wait"),
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="The first N folds only; the run stays incomplete.",
)
@click.option(
    "--shard",
    metavar="K/N",
    help="Every N-th fold from the K-th on; N calls share the run, as in a job array.",
)
@click.option("--dry-run", is_flag=True, help="Resolve and check everything, train nothing.")
@click.option("--yes", is_flag=True, help="Begin without asking, even what takes over an hour on a CPU.")
@runs_option
@quiet_option
@json_option
@packed(Doing, "doing")
def run_command(
    models: tuple[str, ...],
    others: tuple[str, ...],
    everything: bool,
    stores: tuple[Path, ...],
    asked: Asked,
    doing: Doing,
) -> None:
    """Train MODEL on every fold of a protocol and print its scores; several, or --all, make a leaderboard.

    Folds that are recorded already are kept, so a killed run continues with the same command. The headline is
    the last epoch, or with --headline tail the mean over the last epochs; it is fixed when a run begins. The
    oracle column, where the test subject chooses the epoch, is printed beside it and leaks.

    A model may be spelled with its variant, recipe and input, as in ahmsa:tiny@lineage/regions-28:scaled, and
    any estimator with scikit-learn's interface by its import path. A function or class in a Python file that
    makes an nn.Module needs no package: path/to/file.py:function. It is told num_classes, in_channels and
    map_size where it takes them.

    In a leaderboard, what is set for all goes to the models that know it; a model that cannot run is refused
    before any is trained, and the others go on. On a CPU, --all takes the variant small of models with more
    than 5 million parameters where they have one.

    Several --store make one input: the maps of each sample in the first store, then in the next. Each must
    hold every sample of the protocol.

    Settings: --config FILE.toml, below --set key=value (recipe fields such as lr or epochs, model options
    such as width), below the flags. In the file, [models.NAME] holds settings of one model.

    \b
    Examples:
      mer-bench run ststnet --protocol cde --store maps.h5 --seeds 3
      mer-bench run ahmsa --protocol loso --db samm --recipe lineage --set epochs=200
      mer-bench run majority ststnet ahmsa:tiny@quick --protocol cde --store maps.h5
      mer-bench run --model my_net.py:make --protocol cde --store maps.h5 --set epochs=20
      mer-bench run sklearn.svm.SVC --set options.C=10 --protocol cde --store maps.h5
      mer-bench run --all --protocol cde --store maps.h5 --dry-run
      mer-bench run --all --protocol cde --store maps.h5 --executor dask --scheduler tcp://node7:8786
      mer-bench run ststnet --protocol cde --store maps.h5 --shard $SLURM_ARRAY_TASK_ID/16
    """
    from mer_bench.errors import UsageError
    from mer_bench.models.registry import Registry
    from mer_bench.protocols.splits import PROTOCOLS, get_protocol
    from mer_bench.runs.data import find_stores
    from mer_bench.runs.many import choose
    from mer_bench.runs.train import prepare
    from mer_bench.settings import Layers

    layers = Layers.read(asked.config, asked.sets, asked.flags)
    named = (*models, *others) or tuple(str(layers.file.get("model", "")).split())
    if not (named or everything or layers.models):
        raise UsageError("no model given; `mer-bench models` lists them")
    protocol = layers.common.get("protocol")
    if not protocol:
        raise UsageError(f"no --protocol given; choose one of {', '.join(PROTOCOLS)}")
    get_protocol(protocol)
    where, _ = layers.where, doing.part
    registry = Registry()
    chosen = choose(named, everything, layers, registry)
    if everything or len(named) != 1:
        run_many(chosen, layers, registry, find_stores(stores), doing)
        return
    (entry,) = chosen.entries
    request = layers.request(entry)
    prepared = prepare(registry.find(entry.model), request, find_stores(stores))
    if doing.dry_run:
        _describe(prepared, doing)
    else:
        _run(prepared, doing, where)


def _describe(prepared: Prepared, doing: Doing) -> None:
    from mer_bench.cli.describe import describe_recipe
    from mer_bench.runs.estimate import LONG, cpu_rate, estimate_seconds, missing_folds, shorter
    from mer_flow.work.progress import duration

    manifest = prepared.manifest
    path = manifest.path(doing.out)
    if doing.as_json:
        content = manifest.model_dump(mode="json", exclude={"samples", "folds"})
        content["fold_names"] = list(prepared.folds.names)
        click.echo(json.dumps({"run": str(path), **content}, indent=1))
        return
    data, population, recipe = prepared.data, prepared.data.population, prepared.job.recipe
    counts = "/".join(map(str, population.counts().tolist()))
    count = f", {manifest.parameters:,} parameters" if manifest.parameters else ""
    lines = [
        f"model      {manifest.model} (variant {manifest.variant}{count}; {manifest.package})",
        f"options    {', '.join(f'{k}={v}' for k, v in prepared.job.options.items()) or 'as built'}",
        f"recipe     {f'{recipe.name}: {describe_recipe(recipe)}' if recipe else 'none'}",
        f"data       {len(population.labels)} samples of {len(set(population.subjects.tolist()))} subjects, "
        f"{'/'.join(population.classes)} {counts}",
        f"input      {data.input}, maps {data.maps.shape[1:]}",
        *(f"           of {path}" for path in (data.store, *dict(data.joined)) if data.joined),
        f"folds      {len(prepared.folds)} of {manifest.protocol}, "
        f"seeds {', '.join(map(str, manifest.seeds))}",
        f"headline   {manifest.settings.headline}",
        f"run        {path}",
    ]
    seconds = estimate_seconds(prepared, missing_folds(prepared, doing.out, doing.limit), cpu_rate())
    if seconds is not None:
        hint = f"; {shorter(prepared)}" if seconds > LONG else ""
        lines.append(f"time       about {duration(seconds)} on this CPU, within a factor of two{hint}")
    lines += [f"passed over {name}: {why}" for name, why in data.passed_over]
    lines += [f"dropped    {n} samples: {why}" for why, n in data.dropped]
    lines += [f"deviation  {text}" for text in manifest.deviations]
    lines += [f"warning    {text}" for text in manifest.warnings]
    click.echo("\n".join([*lines, "dry run: nothing was trained or written"]))


def _run(prepared: Prepared, doing: Doing, where: Where) -> None:
    from mer_bench.report.terminal import render_run
    from mer_bench.runs.estimate import cpu_rate, estimate_seconds, missing_folds, shorter
    from mer_bench.runs.shown import execute_shown
    from mer_bench.scores.summary import summarise
    from mer_flow.work.progress import duration

    seconds = estimate_seconds(prepared, missing_folds(prepared, doing.out, doing.limit), cpu_rate())
    if seconds:
        ask_if_long(prepared.manifest.model, seconds, lambda: shorter(prepared), doing.yes)
        if not doing.silent:
            click.echo(
                f"takes about {duration(seconds)} on this CPU, as busy as now, within a factor of two",
                err=True,
            )

    if not doing.as_json:
        for warning in prepared.manifest.warnings:
            click.echo(f"warning: {warning}", err=True)
    outcome = execute_shown(prepared, doing.out, where, doing.part, doing.silent)
    status = outcome.status
    summary = summarise(outcome.run, tuple(status.missing)) if status.complete else None
    if doing.as_json:
        found = {**outcome_fields(outcome), "summary": summary.to_json() if summary else None}
        click.echo(json.dumps(found, indent=1))
    else:
        tell_outcome(outcome)
        if summary is not None:
            click.echo("\n" + render_run(summary))
        elif doing.shard and outcome.whole:
            click.echo(f"shard {doing.shard} is done; `mer-bench status {outcome.run.path}` shows the whole")
        else:
            click.echo(f"incomplete, so there is no table. {status.describe_gaps()}")
        for failure in outcome.failures:
            click.echo(f"failed: {failure}", err=True)
    if summary is None and not (doing.shard and outcome.whole):
        raise click.exceptions.Exit(1)
