"""What work takes: seconds per stage, and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Clock:
    """Add up the seconds spent in each named stage.

    Args:
        seconds: Stage -> seconds so far; added to in place.

    Attributes:
        stage: The stage entered last.

    >>> clock = Clock()
    >>> with clock("decode"):
    ...     pass
    >>> list(clock.seconds), clock.stage
    (['decode'], 'decode')
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self.stage = "start"

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block as part of a stage."""
        self.stage = stage
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process, MB; 0 where the system does not tell.

    On Linux `getrusage` would report the parent's peak for a child that was just forked from it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(peaks[0]) / 2**10 if peaks else 0.0
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes
