"""`mer-bench ensemble`: the mean of finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from mer_bench.cli.options import runs_option
from mer_bench.cli.telling import tell_derived
from mer_flow.cli.options import json_option, packed


@dataclass(frozen=True)
class Averaging:
    """How members are averaged; as the options of the command say."""

    mean: str
    selection: str | None
    weights: Literal["equal", "fitted"]
    seeds: str | None
    pool_seeds: bool


@click.command("ensemble", short_help="Average the probabilities of finished runs; a run of its own.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What tables call it.")
@click.option(
    "--mean",
    type=click.Choice(["log-probability", "probability"]),
    default="log-probability",
    show_default=True,
    help="What is averaged.",
)
@click.option(
    "--selection",
    type=click.Choice(["last", "tail"]),
    help="Which epochs of the members count.  [default: their headline]",
)
@click.option(
    "--weights",
    type=click.Choice(["equal", "fitted"]),
    default="equal",
    show_default=True,
    help="fitted: in each fold on the other folds' records.",
)
@click.option("--seeds", metavar="N|LIST", help="Take these seeds of members that have several.")
@click.option("--pool-seeds", is_flag=True, help="Average over the seeds too; the result has one.")
@runs_option
@json_option
@packed(Averaging, "averaging")
def ensemble_command(
    runs: tuple[Path, ...], name: str, averaging: Averaging, out: Path, as_json: bool
) -> None:
    """Average what finished RUNS say of each held-out sample, and keep it as a run of its own.

    Members may be any models, recipes, inputs and stores, with the same samples, labels and folds; anything
    else is refused. Name them before looking at their scores: a set of members that was picked by the figures
    it gives is a leak like the oracle (`mer-bench choose` picks without one).

    Seed k of the ensemble takes seed k of each member that has several; a member of one seed, as a
    classifier, goes into all.

    \b
    Examples:
      mer-bench ensemble runs/ststnet-cde-* runs/bi-woof-cde-* --name two-averaged
      mer-bench ensemble runs/ahmsa-cde-* --name five-seeds --pool-seeds --selection tail
    """
    from mer_bench.runs.derived import check_name, derived_manifest, write_derived
    from mer_bench.runs.directory import RunDirectory
    from mer_bench.runs.manifest import Derived
    from mer_bench.scores.compare import common_headline
    from mer_bench.scores.ensemble import combine_by, ensemble_weights
    from mer_bench.scores.members import read_members
    from mer_bench.settings import parse_seeds

    check_name(name)
    seeds = None if averaging.seeds is None else parse_seeds(averaging.seeds)
    selection = averaging.selection or common_headline([RunDirectory(path) for path in runs])
    members = read_members(runs, selection, seeds, averaging.pool_seeds)
    weights = ensemble_weights(members, averaging.mean, averaging.weights == "fitted")
    derived = Derived(
        how="ensemble",
        members=members.members,
        selection=selection,
        mean=averaging.mean,
        weights=averaging.weights,
    )
    manifest = derived_manifest(name, derived, members.manifests, tuple(members.scores), members.digest())
    results = members.results("ensemble", combine_by(averaging.mean), weights)
    tell_derived(write_derived(out, manifest, results), as_json)
