"""Progress of long work: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Self, TextIO

#: Seconds between two plain lines where the output is no terminal.
PLAIN_INTERVAL = 15.0


def duration(seconds: float) -> str:
    """Write seconds as a person reads them.

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
    """Count steps of long work and say how many are left and for how long.

    Args:
        label: What is being done, as in "build samm".
        total: Steps to do; who does the work says it by `expect` unless given.
        unit: What a step is, as in "fold-epochs".
        stream: Where to write; standard error unless given.
        quiet: Write nothing.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        unit: str = "",
        stream: TextIO | None = None,
        quiet: bool = False,
    ):
        self.label, self.unit, self.quiet = label, unit, quiet
        self.done, self.total = 0, 0
        self.note = ""
        self._stream = stream or sys.stderr
        self._start = self._last = time.monotonic()
        self._bar: tuple[Any, Any] | None = None
        if total is not None:
            self.expect(total)

    def expect(self, total: int, already: int = 0) -> None:
        """Say how many steps there are to do, and how many an earlier call did; the work begins now."""
        if already and not self.quiet:
            print(f"{self.label}: {already:,} are there already, {total:,} to do", file=self._stream)
        self.close()
        self.total = total
        self._start = self._last = time.monotonic()
        if not self.quiet and self._stream.isatty():
            self._bar = self._live()

    def _live(self) -> tuple[Any, Any]:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Live
        from rich.table import Column

        text = Column(no_wrap=True, overflow="ellipsis", ratio=4)
        columns = (
            TextColumn("{task.description}", markup=False, table_column=text),
            BarColumn(None, table_column=Column(ratio=1)),
        )
        live = Live(*columns, console=Console(file=self._stream), expand=True, transient=True)
        live.start()
        return live, live.add_task(self.line(), total=self.total or None)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count steps as done; `note` is shown beside the count."""
        self.reach(self.done + steps, note)

    def reach(self, done: int, note: str = "") -> None:
        """Say how many steps are done in all; `note` is shown beside the count."""
        self.done, self.note = done, note
        now = time.monotonic()
        if self._bar:
            live, task = self._bar
            live.update(task, completed=done, description=self.line())
        elif not self.quiet and now - self._last >= PLAIN_INTERVAL:
            self._last = now
            print(self.line(), file=self._stream, flush=True)

    def line(self) -> str:
        """Return what is shown: label, count, rate, time left, note."""
        elapsed = time.monotonic() - self._start
        rate = self.done / elapsed if elapsed > 0 else 0.0
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.label}: {self.done:,}/{self.total:,}{unit}"
        if rate:
            left = duration((self.total - self.done) / rate)
            text += f", {rate:,.0f}/s, {left} left" if rate >= 10 else f", {rate:.2f}/s, {left} left"
        return f"{text}  {self.note}" if self.note else text

    def close(self) -> None:
        """End the live line."""
        if self._bar:
            self._bar[0].stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
