"""The databases: one module each, loaded on use."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING

from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    from mer_flow.databases.base import Database

#: Every database by name, in teaching order.
DATABASES: tuple[str, ...] = ("smic", "samm", "casme2", "casme3")


@cache
def get_database(name: str) -> Database:
    """Returns a database by name.

    Raises:
        UsageError: There is no such database; the message suggests the nearest.

    >>> get_database("samm").fps
    200.0
    """
    if name not in DATABASES:
        raise unknown("database", name, DATABASES)
    database: Database = importlib.import_module(f"mer_flow.databases.{name}").DATABASE
    return database
