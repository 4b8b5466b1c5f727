"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DATABASE_OPTIONS = (
    click.option("--db", "database", required=True, help="Database: smic, samm, casme2 or casme3."),
    click.option(
        "--root",
        type=click.Path(path_type=Path),
        help="The database's tree; else MER_FLOW_<DB>_ROOT, else the config file.",
    ),
    click.option(
        "--sheet",
        type=click.Path(path_type=Path),
        help="Annotation sheet; searched in the tree unless given.",
    ),
    click.option(
        "--release",
        default="auto",
        show_default=True,
        help="Which release to read: raw, selected, cropped, clips.",
    ),
)


def database_options(command: _Command) -> _Command:
    """Adds the options that name a copy of a database: `database`, `root`, `sheet` and `release`."""
    for option in reversed(_DATABASE_OPTIONS):
        command = option(command)
    return command
