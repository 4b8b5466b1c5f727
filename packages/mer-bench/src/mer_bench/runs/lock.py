"""One writing process per run directory: a lock that dies with its holder."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mer_bench.errors import RunError

_LOCK = ".lock"
#: Locks of this process; a record lock does not keep out its own holder.
_HELD: set[str] = set()


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds a run directory for this process.

    Raises:
        RunError: It is being written already.
    """
    path = folder / _LOCK
    key = str(path.resolve())
    with path.open("a+b") as file:
        if key in _HELD or not _try_lock(file):
            raise RunError(
                f"{folder} is being written by process {writer(folder) or 'unknown'}; "
                f"wait for it, or look with `mer-bench status {folder}`"
            )
        _HELD.add(key)
        try:
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
            yield
        finally:
            file.truncate(0)
            _HELD.discard(key)


def writer(folder: Path) -> int | None:
    """Returns the id of the process that is writing a run directory, if one is."""
    try:
        text = (folder / _LOCK).read_text()
    except OSError:
        return None
    if not re.fullmatch(r"\d+", text):
        return None
    try:
        os.kill(int(text), 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return int(text)


def _try_lock(file: Any) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            # A record lock belongs to the process, so it dies with it even where forked workers live on.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
