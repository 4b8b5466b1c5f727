"""`mer-bench fit`: train one network on everything and keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("fit", short_help="Train one network on all samples and keep it; no score.")
@click.argument("model", required=False)
@click.option(
    "--store", type=click.Path(path_type=Path), help="The store; else the variable MER_BENCH_STORE."
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoint; a new one."
)
@click.option(
    "--config", type=click.Path(path_type=Path), help="Settings as TOML; --set and flags win over it."
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A recipe field or a model option.")
@click.option("--scheme", help="Label scheme.  [default: megc3]")
@click.option("--db", multiple=True, help="Database, may be given several times; all of the store otherwise.")
@click.option("--variant", help="The model's named option set.")
@click.option("--recipe", help="The model's named recipe.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the training.")
@click.option("--view", help="What the model reads, as in whole-28.")
@click.option("--normalisation", help="How it is scaled, as in scaled.")
@click.option("--device", help="auto, cpu, cuda or cuda:<n>.  [default: auto]")
@click.option("--deterministic/--no-deterministic", default=None, help="Bit-identical repetition.")
@click.option("--precision", help="Matrix products on a GPU: auto, float32 or tf32.  [default: auto]")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def fit_command(
    model: str | None,
    store: Path | None,
    out: Path,
    config: Path | None,
    sets: tuple[str, ...],
    seed: int,
    quiet: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Trains MODEL on every labelled sample and writes a checkpoint, for use on new clips.

    Nothing is held out, so there is no score: `mer-bench run` with the same variant and recipe tells what to
    expect of a new subject.

    \b
    Example:
      mer-bench fit ahmsa --variant small --recipe quick --store flows.h5 --out my-ahmsa
      ahmsa predict --checkpoint my-ahmsa --onset onset.png --apex apex.png
    """
    from mer_bench.errors import UsageError
    from mer_bench.models.registry import Registry
    from mer_bench.progress import TrainingProgress
    from mer_bench.runs.data import find_store
    from mer_bench.runs.fit import fit
    from mer_bench.settings import gather
    from mer_flow.work.progress import duration

    given = {key: None if value == () else value for key, value in {**flags, "model": model}.items()}
    request = gather(config, sets, given)
    if not request.run.model:
        raise UsageError("no model given; `mer-bench models` lists them")
    registered = Registry().find(request.run.model)
    progress = TrainingProgress((seed,), quiet=quiet or as_json)
    try:
        found = fit(
            registered,
            request,
            find_store(store),
            out,
            seed=seed,
            on_epoch=lambda done, total: progress(seed, done, total),
        )
    finally:
        progress.close()
    training = found.metadata["training"]
    if as_json:
        told = {key: value for key, value in found.metadata.items() if key != "pipeline"}
        click.echo(json.dumps({"checkpoint": str(out), "seconds": found.seconds, **told}, indent=1))
        return
    held = ", ".join(f"{name} {count}" for name, count in training["databases"].items())
    counts = ", ".join(f"{name} {count}" for name, count in training["per_class"].items())
    click.echo(
        f"{registered.spec.title} ({found.resolved.variant}, {training['recipe']['name']}), "
        f"{training['recipe']['epochs']} epochs on all {training['samples']} samples of "
        f"{training['subjects']} subjects ({held}; {counts}), input {found.data.view}:"
        f"{found.data.normalisation}, in {duration(found.seconds)} on {found.device}\n"
        f"accuracy on these very samples {found.train_accuracy:.3f}; none was held out, so this is no score "
        "(`mer-bench run` gives one)"
    )
    for why, number in found.data.dropped:
        click.echo(f"dropped {number} samples: {why}")
    for name, why in found.data.passed_over:
        click.echo(f"passed over {name}: {why}")
    click.echo(f"checkpoint {out}")
