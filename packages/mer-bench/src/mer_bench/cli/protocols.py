"""`mer-bench protocols`: what each cuts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mer_bench.cli.options import PROTOCOL_NAMES, settings_options, store_option
from mer_flow.cli.options import json_option


@click.command("protocols", short_help="List the protocols, or the folds of one.")
@click.argument("name", required=False, shell_complete=PROTOCOL_NAMES)
@store_option
@settings_options("scheme", "db", "train_db", "test_db", "k", "fold_seed", "inner", "train_subjects")
@json_option
def protocols_command(name: str | None, store: Path | None, flags: dict[str, Any], as_json: bool) -> None:
    """List the protocols; with NAME and a store, the folds that it cuts."""
    from mer_bench.protocols.splits import PROTOCOLS, get_protocol
    from mer_bench.report.terminal import align

    if name is None:
        if as_json:
            click.echo(json.dumps({p.name: f"{p.title}: {p.summary}" for p in PROTOCOLS.values()}, indent=1))
            return
        for protocol in PROTOCOLS.values():
            click.echo(f"{protocol.name:<9} {protocol.title}: {protocol.summary}")
        return
    get_protocol(name)
    from mer_bench.runs.data import find_store, read_population
    from mer_bench.settings import RunSettings

    run = RunSettings(protocol=name, **flags)
    population = read_population(find_store(store), run)
    folds = run.splitter().cut(population)
    rows = [
        {
            "fold": fold.name,
            "train": population.counts(fold.train).tolist(),
            "inner": population.counts(fold.inner).tolist(),
            "test": population.counts(fold.test).tolist(),
        }
        for fold in folds.folds
    ]
    if as_json:
        content = {
            "protocol": name,
            "classes": population.classes,
            "digest": folds.digest(),
            "folds": rows,
            "warnings": folds.warnings,
        }
        click.echo(json.dumps(content, indent=1))
        return
    click.echo(
        f"{name}: {len(folds)} folds, {len(population.labels)} samples; "
        f"{'/'.join(population.classes)} per fold"
    )
    sides = ["train", *(["inner"] if run.inner else []), "test"]
    table = [["fold", *sides]]
    table += [[str(row["fold"]), *("/".join(map(str, row[side])) for side in sides)] for row in rows]
    click.echo("\n".join(align(table)))
    for warning in folds.warnings:
        click.echo(f"warning: {warning}")
