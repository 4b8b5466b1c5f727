"""The databases by name: brought by packages through the entry points `mer_flow.databases`, ours as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mer_flow.work.errors import UsageError
from mer_flow.work.plugins import Plugins

if TYPE_CHECKING:
    import pandas as pd

    from mer_flow.databases.base import Database

GROUP = "mer_flow.databases"


def _database(name: str, found: object) -> Database:
    if not (isinstance(found, type) and hasattr(found, "read_sheet") and hasattr(found, "locate")):
        raise TypeError(f"expected a subclass of mer_flow.databases.base.Database, got {found!r}")
    database: Database = found()
    if database.name != name:
        raise ValueError(f"the class calls itself '{database.name}'; give both the same name")
    return database


DATABASES: Plugins[Database] = Plugins(GROUP, "database", _database)


def database_names() -> tuple[str, ...]:
    """Return every registered name, without importing any database.

    >>> {"smic", "samm", "casme2", "casme3"} <= set(database_names())
    True
    """
    return tuple(DATABASES)


def get_database(name: str) -> Database:
    """Return a database by name.

    Raises:
        UsageError: There is no such database (the message suggests the nearest), or its package is broken.

    >>> get_database("samm").fps
    200.0
    """
    return DATABASES[name]


def database_title(name: str) -> str:
    """Return how a table prints a database; a name that is no usable database stays as it is.

    >>> database_title("casme2"), database_title("composite")
    ('CASME II', 'composite')
    """
    try:
        return DATABASES[name].title
    except UsageError:
        return name


def database_licence(name: str) -> str:
    """Return on what terms a database may be used, as its package states it."""
    try:
        return DATABASES[name].licence
    except UsageError:
        return "unknown: no installed package reads it"


def describe_databases() -> list[dict[str, Any]]:
    """Describe every registered database, usable or not.

    Returns:
        For each its `name`, `package`, `title`, `fps` (frames per second), `releases`, `synthetic`,
        whether it has a synthetic twin, and `licence`; in place of the last five `error`, where it cannot be
        used.
    """
    found: list[dict[str, Any]] = []
    for name in DATABASES:
        entry: dict[str, Any] = {"name": name, "package": DATABASES.packages(name)}
        try:
            database = DATABASES[name]
            entry |= {"title": database.title, "fps": database.fps, "releases": list(database.releases)}
            entry |= {"synthetic": bool(database.synthetic), "licence": database.licence}
        except UsageError as error:
            entry["error"] = str(error)
        found.append(entry)
    return found


def databases() -> pd.DataFrame:
    """Return the databases that can be read, a row each by name; columns as of `describe_databases`.

    >>> float(databases().loc["samm", "fps"])
    200.0
    """
    import pandas as pd

    return pd.DataFrame(describe_databases()).set_index("name")
