"""How the C library keeps memory that worker processes free and need again."""

from __future__ import annotations

import ctypes
import functools

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one.

    By default it gives large blocks back at once, and the page faults of asking again cost a small network a
    tenth of its step; under a Dask nanny, which has it give back more, two thirds. Where the C library is
    another, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    mallopt(_M_MMAP_THRESHOLD, 1 << 25)
