"""Unknown names answered with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from mer_flow.work.errors import UsageError

#: How many valid spellings a message lists: every setting, but not every sample of a store.
LISTED = 60


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for an unknown name: it suggests the nearest and lists the valid ones, up to a limit.

    Args:
        kind: What the name stands for, as in "label scheme".
        name: What was asked for.
        known: Every valid spelling.

    >>> str(unknown("database", "casme", ["casme2", "samm"]))
    "unknown database 'casme'; did you mean 'casme2'? Known: casme2, samm"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    listed = ", ".join(names[:LISTED])
    if len(names) > LISTED:
        listed += f" ... and {len(names) - LISTED} more"
    return UsageError(f"unknown {kind} '{name}'{hint} Known: {listed}")
