"""Which copy of which database is meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
