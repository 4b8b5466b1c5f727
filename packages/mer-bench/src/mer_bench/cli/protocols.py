"""`mer-bench protocols`: what each cuts."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("protocols", short_help="List the protocols, or the folds of one.")
@click.argument("name", required=False)
@click.option("--store", type=click.Path(path_type=Path), help="Show the folds NAME cuts from this store.")
@click.option("--scheme", default="megc3", show_default=True, help="Label scheme.")
@click.option("--db", multiple=True, help="Database; may be given several times.")
@click.option("--train-db", multiple=True, help="Training database of cross-db.")
@click.option("--test-db", multiple=True, help="Test database of cross-db.")
@click.option("--k", type=int, default=5, show_default=True, help="Folds of kfold.")
@click.option(
    "--fold-seed", type=int, default=0, show_default=True, help="Decides kfold and the inner subjects."
)
@click.option("--inner", is_flag=True, help="Reserve whole training subjects of every fold.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def protocols_command(
    name: str | None,
    store: Path | None,
    scheme: str,
    db: tuple[str, ...],
    train_db: tuple[str, ...],
    test_db: tuple[str, ...],
    k: int,
    fold_seed: int,
    inner: bool,
    as_json: bool,
) -> None:
    """Lists the protocols; with NAME and a store, the folds that it cuts."""
    from mer_bench.protocols.splits import PROTOCOLS, ProtocolOptions, get_protocol
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

    options = ProtocolOptions(db, train_db, test_db, k, fold_seed, inner)
    population = read_population(find_store(store), name, options, scheme)
    folds = get_protocol(name, options).cut(population)
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
    sides = ["train", *(["inner"] if inner else []), "test"]
    table = [["fold", *sides]]
    table += [[str(row["fold"]), *("/".join(map(str, row[side])) for side in sides)] for row in rows]
    click.echo("\n".join(align(table)))
    for warning in folds.warnings:
        click.echo(f"warning: {warning}")
