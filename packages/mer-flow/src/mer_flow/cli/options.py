"""Options that several commands take, and how a command receives many of them as one typed object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def packed(kind: type, parameter: str) -> Callable[[_Command], _Command]:
    """Hand a command some of its options as one object.

    Args:
        kind: A dataclass; every field of it is the name of an option.
        parameter: The command's parameter that receives it.

    Returns:
        A decorator, to stand below the options.
    """

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def call(**values: Any) -> Any:
            values[parameter] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            return command(**values)

        return call  # type: ignore[return-value]

    return decorate


def given(parameter: str, *names: str) -> Callable[[_Command], _Command]:
    """Hand a command those of its options that were given, by name, to be merged with other settings.

    Args:
        parameter: The command's parameter that receives them, a dict.
        names: The options.

    Returns:
        A decorator, to stand below the options.
    """

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def call(**values: Any) -> Any:
            taken = {name: values.pop(name) for name in names}
            values[parameter] = {name: value for name, value in taken.items() if value not in (None, ())}
            return command(**values)

        return call  # type: ignore[return-value]

    return decorate


@dataclass(frozen=True)
class Source:
    """A copy of a database.

    Attributes:
        database: Registered name, as in `samm`.
        root: Its tree; None for the environment's or the config file's.
        sheet: Annotation sheet; None to search for it in the tree.
        release: `auto`, or the release to read.
    """

    database: str
    root: Path | None = None
    sheet: Path | None = None
    release: str = "auto"


def database_options(command: _Command) -> _Command:
    """Add the options that name a copy of a database; the command receives them as `source`."""
    command = packed(Source, "source")(command)
    for option in (
        click.option("--release", default="auto", show_default=True, help="Which release to read."),
        click.option(
            "--sheet",
            type=click.Path(path_type=Path),
            help="Annotation sheet; searched in the tree unless given.",
        ),
        click.option(
            "--root",
            type=click.Path(path_type=Path),
            help="The database's tree; else MER_FLOW_<DB>_ROOT, else the config file.",
        ),
        click.option("--db", "database", required=True, help="Database; `mer-flow databases` lists them."),
    ):
        command = option(command)
    return command
