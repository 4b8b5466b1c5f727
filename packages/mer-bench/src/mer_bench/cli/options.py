"""Options of several commands, declared once; each of a setting bears the name of its field in `settings`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mer_bench.errors import UsageError
from mer_flow.cli.options import DATABASE_NAMES, SCHEME_NAMES, WHERE, completing, given, packed

if TYPE_CHECKING:
    from mer_bench.runs.part import Part

_Command = TypeVar("_Command", bound=Callable[..., Any])


def only_store(context: click.Context, _: click.Parameter | None, stores: tuple[Path, ...]) -> Path | None:
    """Return the store of a command that reads one; UsageError where several are given."""
    if len(stores) > 1:
        raise UsageError(
            f"`mer-bench {context.info_name}` reads one store, got {len(stores)}: "
            f"{', '.join(map(str, stores))}; only `mer-bench run` joins several"
        )
    return next(iter(stores), None)


store_option = click.option(
    "--store",
    type=click.Path(path_type=Path),
    multiple=True,  # which only tells a second one from the first
    callback=only_store,
    help="The store; else the variable MER_BENCH_STORE.",
)
stores_option = click.option(
    "--store",
    "stores",
    type=click.Path(path_type=Path),
    multiple=True,
    help="The store, or several for a joint input; else the variable MER_BENCH_STORE.",
)


def _of_file(context: click.Context, _: click.Parameter, model: str | None) -> Any:
    if model is None or context.resilient_parsing:
        return None
    from mer_bench.models.registry import Registry

    return Registry().find(model)


kept_model_option = click.option(
    "--model",
    metavar="FILE.py:FUNCTION",
    callback=_of_file,
    help="The model, where no installed package has it.",
)
runs_option = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs."
)

MODEL_NAMES = completing("mer_bench.models")
PROTOCOL_NAMES = completing("mer_bench.protocols.splits:PROTOCOLS")
_COMPLETED = {
    "protocol": PROTOCOL_NAMES,
    "scheme": SCHEME_NAMES,
    **dict.fromkeys(("db", "train_db", "test_db"), DATABASE_NAMES),
}

#: Field of `RunSettings`, `TrainingSettings` or `Where` -> what its option takes, and says of itself.
SETTINGS: dict[str, tuple[type, str]] = {
    "protocol": (str, "cde, loso, hde, cross-db or kfold."),
    "scheme": (str, "Label scheme.  [default: megc3]"),
    "db": (tuple, "Database, may be given several times; loso takes one.  [default: all]"),
    "train_db": (tuple, "Training database of cross-db; may be given several times."),
    "test_db": (tuple, "Test database of cross-db; may be given several times."),
    "k": (int, "Folds of kfold.  [default: 5]"),
    "fold_seed": (int, "Decides kfold's folds, the inner and the kept training subjects.  [default: 0]"),
    "variant": (str, "The model's named option set."),
    "recipe": (str, "The model's named recipe."),
    "seeds": (str, "A count (3 means 0,1,2) or a list (0,1,5; seed 7 alone: 7,).  [default: 1, seed 0]"),
    "inner": (bool, "Reserve whole training subjects to choose the epoch."),
    "inner_fraction": (float, "Share of the training subjects reserved.  [default: 0.2]"),
    "train_subjects": (int, "Train every fold on so many subjects: a learning curve.  [default: all]"),
    "view": (str, "What the model reads, as in whole-28."),
    "normalisation": (str, "How it is scaled, as in scaled."),
    "shuffle_labels": (int, "Sanity control: permute all labels first, by this seed."),
    "headline": (str, "Selection that counts, fixed before the run: last or tail.  [default: last]"),
    "tail_epochs": (int, "Last epochs that tail averages.  [default: half of them]"),
    "device": (str, "auto, cpu, cuda or cuda:<n>.  [default: auto]"),
    "engine": (
        str,
        "local: a fold per process; stacked: many in one step; auto: stacked on CUDA, else local.",
    ),
    "workers": (int, "Processes of local.  [default: one per core]"),
    "chunk": (int, "Folds stacked at once.  [default: what memory holds]"),
    "deterministic": (bool, "Bit-identical repetition."),
    "precision": (str, "Matrix products on a GPU: auto, float32 or tf32.  [default: auto]"),
    "compile": (bool, "Stacked folds through torch.compile."),
    **WHERE,
}


def settings_options(*names: str) -> Callable[[_Command], _Command]:
    """Add the options of some settings; the command receives those given as the dict `flags`."""

    def decorate(command: _Command) -> _Command:
        command = given("flags", *names)(command)
        for name in reversed(names):
            kind, text = SETTINGS[name]
            flag = f"--{name.replace('_', '-')}"
            if kind is bool:
                command = click.option(f"{flag}/--no-{flag[2:]}", default=None, help=text)(command)
            else:
                taken = {"multiple": True} if kind is tuple else {"type": kind}
                option = click.option(flag, help=text, shell_complete=_COMPLETED.get(name), **taken)
                command = option(command)
        return command

    return decorate


@dataclass(frozen=True)
class Asked:
    """Settings as given on the command line: a TOML file, texts of `--set`, flags."""

    config: Path | None
    sets: tuple[str, ...]
    flags: dict[str, Any]


def layers_options(*names: str) -> Callable[[_Command], _Command]:
    """Add `--config`, `--set` and the options of some settings; the command receives them as `asked`."""

    def decorate(command: _Command) -> _Command:
        command = settings_options(*names)(packed(Asked, "asked")(command))
        sets = click.option(
            "--set", "sets", multiple=True, metavar="KEY=VALUE", help="A recipe field or a model option."
        )
        config = click.option(
            "--config", type=click.Path(path_type=Path), help="Settings as TOML; --set and flags win over it."
        )
        return config(sets(command))

    return decorate


@dataclass(frozen=True)
class Doing:
    """How `run` goes about it, by its options."""

    limit: int | None
    shard: str | None
    dry_run: bool
    yes: bool
    out: Path
    quiet: bool
    as_json: bool

    @property
    def part(self) -> Part:
        """Which folds are trained."""
        from mer_bench.runs.part import Part, Shard

        return Part(self.limit, Shard.parse(self.shard) if self.shard else None)

    @property
    def silent(self) -> bool:
        """Whether nothing is said but the result."""
        return self.quiet or self.as_json
