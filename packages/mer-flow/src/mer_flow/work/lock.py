"""One writer per store and per run: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mer_flow.work.errors import LockHeldError

#: Seconds; `holder` holds a free lock for a moment.
_LOOK = 0.3


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting no longer than others look who holds it, and remove it afterwards.

    Args:
        path: The lock file; it names its holder while it is held.

    Raises:
        LockHeldError: Another process, or another place in this one, holds it; the message names the holder.
        OSError: The file cannot be made.
    """
    lock = FileLock(path, timeout=_LOOK)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockHeldError(holder(path) or "unknown process") from error
    try:
        path.write_text(f"pid {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for this file sees that it is gone
        lock.release()


def holder(path: Path) -> str | None:
    """Return who holds a lock file, as in `pid 4711 on host`; None where nobody does."""
    lock = FileLock(path, timeout=0)
    try:
        text = path.read_text(encoding="utf-8").strip()
        lock.acquire()
    except FileNotFoundError:
        return None
    except Timeout:
        return text or "unknown process"
    lock.release()
    return None
