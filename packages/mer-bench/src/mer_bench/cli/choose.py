"""`mer-bench choose`: for each held-out subject the candidate that is best on the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mer_bench.cli.options import MODEL_NAMES, Asked, layers_options, runs_option, stores_option
from mer_bench.cli.telling import tell_derived
from mer_bench.runs.shown import training_shown
from mer_flow.cli.options import json_option, packed, quiet_option

if TYPE_CHECKING:
    from mer_bench.runs.directory import RunDirectory

#: Settings that finished runs leave open.
_OF_FINISHED = ("headline", "seeds")


@dataclass(frozen=True)
class Choosing:
    """How is chosen, and what comes of it; as the options of the command say."""

    name: str
    how: str
    inner_k: int
    out: Path


@click.command("choose", short_help="Choose among runs or models without looking at the held-out subject.")
@click.argument("candidates", nargs=-1, shell_complete=MODEL_NAMES)
@click.option("--name", required=True, help="What tables call it.")
@click.option(
    "--how",
    type=click.Choice(["jackknife", "nested"]),
    required=True,
    help="jackknife: among finished runs; nested: among models, by inner folds.",
)
@click.option(
    "--inner-k",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Inner folds of nested, of whole subjects.",
)
@stores_option
@layers_options(
    *("protocol", "scheme", "db", "k", "fold_seed", "seeds", "shuffle_labels", "headline", "tail_epochs"),
    *("device", "engine", "workers", "precision"),
)
@runs_option
@quiet_option
@json_option
@packed(Choosing, "choosing")
def choose_command(
    candidates: tuple[str, ...],
    choosing: Choosing,
    stores: tuple[Path, ...],
    asked: Asked,
    quiet: bool,
    as_json: bool,
) -> None:
    """Take for each held-out subject the candidate with the best UF1 on the other subjects; a run of its own.

    --how jackknife chooses among finished runs by their records of the other subjects, in seconds. It is not
    nested cross-validation: those records come of networks that trained on the held-out subject; only the
    choice itself never looks at it.

    --how nested chooses among models, spelled as in NAME:VARIANT@RECIPE/VIEW:NORMALISATION or as sections of
    --config, by a k-fold of the other subjects: each candidate is trained --inner-k times per held-out
    subject, never on it, and once for the record that is taken. What is recorded is kept, so the same command
    continues.

    The naive choice, of the candidate that is best on all subjects, is printed beside either and LEAKS.

    \b
    Examples:
      mer-bench choose runs/ststnet-cde-* runs/bi-woof-cde-* --name either --how jackknife
      mer-bench choose bi-woof majority --name either --how nested --protocol cde --store maps.h5
    """
    if choosing.how == "jackknife":
        run = _jackknife(candidates, choosing, stores, asked)
    else:
        run = _nested(candidates, choosing, stores, asked, quiet or as_json)
    tell_derived(run, as_json)


def _jackknife(
    candidates: tuple[str, ...], choosing: Choosing, stores: tuple[Path, ...], asked: Asked
) -> RunDirectory:
    from mer_bench.errors import UsageError
    from mer_bench.runs.derived import check_name, derived_manifest, write_derived
    from mer_bench.runs.directory import RunDirectory
    from mer_bench.runs.manifest import Derived
    from mer_bench.scores.choice import jackknife_scores, one_of, take
    from mer_bench.scores.compare import common_headline
    from mer_bench.scores.members import read_members
    from mer_bench.settings import parse_seeds

    foreign = [f"--{key.replace('_', '-')}" for key in asked.flags if key not in _OF_FINISHED]
    foreign += ["--store"] * bool(stores) + ["--config"] * bool(asked.config) + ["--set"] * bool(asked.sets)
    if foreign:
        raise UsageError(
            f"--how jackknife takes finished runs, whose settings are fixed; leave out {', '.join(foreign)}"
        )
    check_name(choosing.name)
    paths = [Path(candidate) for candidate in candidates]
    seeds = parse_seeds(asked.flags["seeds"]) if "seeds" in asked.flags else None
    selection = asked.flags.get("headline") or common_headline([RunDirectory(path) for path in paths])
    members = read_members(paths, selection, seeds)
    scores = jackknife_scores(members)
    weights = {seed: one_of(each) for seed, each in scores.items()}
    derived = Derived(how="jackknife", members=members.members, selection=selection)
    manifest = derived_manifest(
        choosing.name, derived, members.manifests, tuple(members.scores), members.digest()
    )
    return write_derived(choosing.out, manifest, members.results("jackknife", take, weights, scores))


def _nested(
    candidates: tuple[str, ...], choosing: Choosing, stores: tuple[Path, ...], asked: Asked, silent: bool
) -> RunDirectory:
    from mer_bench.errors import UsageError
    from mer_bench.models.registry import Registry
    from mer_bench.protocols.splits import PROTOCOLS, get_protocol
    from mer_bench.runs.data import find_stores
    from mer_bench.runs.many import Leaderboard, choose
    from mer_bench.scores.nested import choose_nested
    from mer_bench.settings import Layers

    layers = Layers.read(asked.config, asked.sets, asked.flags)
    protocol = layers.common.get("protocol")
    if not protocol:
        raise UsageError(f"no --protocol given; choose one of {', '.join(PROTOCOLS)}")
    get_protocol(protocol)
    registry = Registry()
    chosen = choose(candidates, False, layers, registry)
    board = Leaderboard.plan(chosen, layers, registry, find_stores(stores), choosing.out)
    return choose_nested(board, choosing.name, choosing.inner_k, lambda label: training_shown(label, silent))
