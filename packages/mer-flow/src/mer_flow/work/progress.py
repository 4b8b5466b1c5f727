"""Progress of long work: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

#: Seconds between two plain lines where the output is no terminal.
PLAIN_INTERVAL = 15.0


def duration(seconds: float) -> str:
    """Writes seconds as a person reads them.

    >>> duration(7.4), duration(95), duration(7300)
    ('7 s', '1 min 35 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Progress:
    """Counts finished items and says how many are left and for how long.

    Args:
        label: What is being done, as in "build samm".
        total: Items to do.
        stream: Where to write; standard error unless given.
        quiet: Write nothing.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None, quiet: bool = False):
        self.label = label
        self.total = total
        self.done = 0
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._live = not quiet and self._stream.isatty()
        self._start = time.monotonic()
        self._last = self._start

    def advance(self, note: str = "") -> None:
        """Counts one item as finished; `note` is shown beside the count."""
        self.done += 1
        now = time.monotonic()
        if self._quiet:
            return
        if self._live:
            self._stream.write(f"\r\x1b[K{self._line(now)}{f'  {note}' if note else ''}"[:200])
            self._stream.flush()
        elif now - self._last >= PLAIN_INTERVAL:
            self._last = now
            self._stream.write(self._line(now) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Ends the live line."""
        if self._live and self.done:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _line(self, now: float) -> str:
        elapsed = now - self._start
        rate = self.done / elapsed if elapsed > 0 else 0.0
        left = (self.total - self.done) / rate if rate else 0.0
        return f"{self.label}: {self.done}/{self.total}, {rate:.2f}/s, {duration(left)} left"
