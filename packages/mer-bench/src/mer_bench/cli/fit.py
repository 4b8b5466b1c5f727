"""`mer-bench fit`: train one network on everything and keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mer_bench.cli.options import MODEL_NAMES, Asked, layers_options, store_option
from mer_bench.runs.shown import training_shown
from mer_flow.cli.options import json_option, quiet_option


@click.command("fit", short_help="Train one network on all samples and keep it; no score.")
@click.argument("model", required=False, shell_complete=MODEL_NAMES)
@store_option
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoint; a new one."
)
@layers_options(
    *("scheme", "db", "variant", "recipe", "view", "normalisation", "device", "deterministic", "precision"),
    *("executor", "scheduler", "cluster", "cluster_options", "wait"),
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the training.")
@click.option(
    "--run", type=click.Path(path_type=Path), help="A finished run of the same recipe, to cite its score."
)
@quiet_option
@json_option
def fit_command(
    model: str | None, store: Path | None, out: Path, asked: Asked, quiet: bool, as_json: bool, **how: Any
) -> None:
    """Train MODEL on every labelled sample and write a checkpoint, for use on new clips.

    Nothing is held out, so there is no score: `mer-bench run` with the same variant and recipe tells what to
    expect of a new subject, and --run puts its score on the checkpoint's card. Every registered network can
    be kept; a classifier has no weights file.

    \b
    Example:
      mer-bench fit ststnet --store maps.h5 --out my-ststnet
      mer-bench predict --checkpoint my-ststnet --store new.h5
      mer-bench fit ahmsa --variant small --recipe quick --store flows.h5 --out my-ahmsa
      ahmsa predict --checkpoint my-ahmsa --onset onset.png --apex apex.png
    """
    from mer_bench.errors import UsageError
    from mer_bench.models.registry import Registry
    from mer_bench.runs.data import find_store
    from mer_bench.settings import Layers
    from mer_bench.weights.fit import Fitting, fit
    from mer_flow.work.progress import duration

    named = {"model": model} if model else {}
    layers = Layers.read(asked.config, asked.sets, {**asked.flags, **named})
    request = layers.named()
    if not request.run.model:
        raise UsageError("no model given; `mer-bench models` lists them")
    registered = Registry().find(request.run.model)
    with training_shown(f"fit {registered.spec.name}", quiet or as_json, "epochs") as report:
        fitting = Fitting(where=layers.where, **how)
        found = fit(registered, request, find_store(store), out, fitting, report)
    training = found.metadata.training
    if as_json:
        told = found.metadata.model_dump(mode="json", exclude={"pipeline"})
        click.echo(json.dumps({"checkpoint": str(out), "seconds": found.seconds, **told}, indent=1))
        return
    held = ", ".join(f"{name} {count}" for name, count in training["databases"].items())
    counts = ", ".join(f"{name} {count}" for name, count in training["per_class"].items())
    click.echo(
        f"{registered.spec.title} ({found.resolved.variant}, {training['recipe']['name']}), "
        f"{training['recipe']['epochs']} epochs on all {training['samples']} samples of "
        f"{training['subjects']} subjects ({held}; {counts}), "
        f"input {found.data.input}, in {duration(found.seconds)} on {training['device']}\n"
        f"accuracy on these very samples {found.train_accuracy:.3f}; none was held out, so this is no score "
        "(`mer-bench run` gives one)"
    )
    for why, number in found.data.dropped:
        click.echo(f"dropped {number} samples: {why}")
    for name, why in found.data.passed_over:
        click.echo(f"passed over {name}: {why}")
    click.echo(f"checkpoint {out}")
