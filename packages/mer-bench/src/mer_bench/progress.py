"""Progress of training: one live line with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from mer_flow.progress import PLAIN_INTERVAL, duration


class TrainingProgress:
    """Shows fold-epochs done and the time left, over all seeds.

    Args:
        seeds: The run's seeds, in order.
        stream: Where to write; standard error by default.
        quiet: Write nothing.
    """

    def __init__(self, seeds: tuple[int, ...], stream: TextIO | None = None, quiet: bool = False):
        self._seeds = seeds
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._live = not quiet and self._stream.isatty()
        self._start = self._last = time.monotonic()
        self._before = 0
        self._seed: int | None = None
        self._done = 0
        self._shown = False

    def __call__(self, seed: int, done: int, total: int) -> None:
        """Takes `done` of `total` fold-epochs of a seed."""
        if seed != self._seed:
            self._before += self._done
            self._seed = seed
        self._done = done
        now = time.monotonic()
        due = now - self._last >= (0.2 if self._live else PLAIN_INTERVAL)
        if self._quiet or not (due or (self._live and done == total)):
            return
        self._last, self._shown = now, True
        line = self.line(seed, done, total, now - self._start)
        self._stream.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
        self._stream.flush()

    def line(self, seed: int, done: int, total: int, elapsed: float) -> str:
        """Writes one line of progress.

        Args:
            seed: The seed in training.
            done: Its fold-epochs done.
            total: Its fold-epochs in all.
            elapsed: Seconds since the start, over all seeds.
        """
        rate = (self._before + done) / elapsed if elapsed > 0 else 0.0
        # Seeds to come are taken to have as many folds to train as this one.
        later = len(self._seeds) - self._seeds.index(seed) - 1
        left = (total - done + later * total) / rate if rate else 0.0
        which = f"seed {seed} ({self._seeds.index(seed) + 1} of {len(self._seeds)}): "
        return f"{which}{done:,}/{total:,} fold-epochs, {rate:,.0f}/s, {duration(left)} left"

    def close(self) -> None:
        """Ends the live line."""
        if self._live and self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
