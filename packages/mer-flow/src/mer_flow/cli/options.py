"""Options that several commands take, and how a command receives many of them as one object."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from mer_flow.databases.source import Source

_Command = TypeVar("_Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

_Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completing(source: str) -> _Completer:
    """Let a shell complete an option or argument by names, which are looked up when Tab is pressed.

    Args:
        source: An entry-point group, whose names are taken without importing anything, or `module:NAME` of
            something that yields names.

    Returns:
        What click takes as `shell_complete`.
    """

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        module, _, attribute = source.partition(":")
        names: Iterable[str] = (
            getattr(importlib.import_module(module), attribute)
            if attribute
            else entry_points(group=source).names
        )
        return [CompletionItem(name) for name in sorted(names) if name.startswith(begun)]

    return complete


DATABASE_NAMES = completing("mer_flow.databases")
SCHEME_NAMES = completing("mer_flow.labels:SCHEMES")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress.")
workers_option = click.option(
    "--workers", type=click.IntRange(1), help="Worker processes.  [default: one per core]"
)


#: Field of `Where` -> what its option takes, and says of itself.
WHERE: dict[str, tuple[type, str]] = {
    "executor": (str, "local: processes of this machine; dask: a cluster.  [default: local]"),
    "scheduler": (str, "A running cluster's scheduler, as in tcp://node7:8786."),
    "cluster": (str, "Start one: local, slurm, pbs, lsf, sge, htcondor, oar or moab.  [default: local]"),
    "cluster_options": (str, "TOML file of the queue's options (cores, memory, walltime, ...) and jobs."),
    "wait": (float, "Seconds to wait for the scheduler and a first worker.  [default: 60]"),
}


def where_options(command: _Command) -> _Command:
    """Add the options that say where tasks run; the command receives those given as the dict `where`."""
    command = given("where", *WHERE)(command)
    for name in reversed(WHERE):
        kind, text = WHERE[name]
        command = click.option(f"--{name.replace('_', '-')}", type=kind, help=text)(command)
    return command


def packed(kind: type, parameter: str) -> Callable[[_Command], _Command]:
    """Hand a command some of its options as one object.

    Args:
        kind: A dataclass; every field of it is the name of an option.
        parameter: The command's parameter that receives it.

    Returns:
        A decorator, to stand below the options.
    """
    names = [field.name for field in fields(kind)]
    return _gathered(parameter, names, lambda values: kind(**values))


def given(parameter: str, *names: str) -> Callable[[_Command], _Command]:
    """Hand a command those of its options that were given, by name, to be merged with other settings.

    Args:
        parameter: The command's parameter that receives them, a dict.
        names: The options.

    Returns:
        A decorator, to stand below the options.
    """
    return _gathered(
        parameter, names, lambda values: {n: value for n, value in values.items() if value not in (None, ())}
    )


def _gathered(
    parameter: str, names: Iterable[str], make: Callable[[dict[str, Any]], Any]
) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def call(**values: Any) -> Any:
            values[parameter] = make({name: values.pop(name) for name in names})
            return command(**values)

        return call  # type: ignore[return-value]

    return decorate


def database_options(command: _Command) -> _Command:
    """Add the options that name a copy of a database; the command receives them as `source`."""
    command = packed(Source, "source")(command)
    path = click.Path(path_type=Path)
    for option in (
        click.option("--release", default="auto", show_default=True, help="Which release to read."),
        click.option("--sheet", type=path, help="Annotation sheet; searched in the tree unless given."),
        click.option(
            "--root", type=path, help="The database's tree; else MER_FLOW_<DB>_ROOT, else the config file."
        ),
        click.option(
            "--db",
            "database",
            required=True,
            shell_complete=DATABASE_NAMES,
            help="Database; `mer-flow databases` lists them.",
        ),
    ):
        command = option(command)
    return command
