"""Progress of training: one live line with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from mer_flow.work.progress import PLAIN_INTERVAL, duration


class TrainingProgress:
    """Shows fold-epochs done and the time left, over all seeds.

    Args:
        seeds: The run's seeds, in order.
        stream: Where to write; standard error by default.
        quiet: Write nothing.
        prefix: What each line begins with.
        later: Called with the seconds left; returns what each line ends with.
    """

    def __init__(
        self,
        seeds: tuple[int, ...],
        stream: TextIO | None = None,
        quiet: bool = False,
        prefix: str = "",
        later: Callable[[float], str] | None = None,
    ):
        self._seeds = seeds
        self._prefix, self._later = prefix, later
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
        end = self._later(left) if self._later else ""
        told = f"{done:,}/{total:,} fold-epochs, {rate:,.0f}/s, {duration(left)} left"
        return f"{self._prefix}{which}{told}{end}"

    def close(self) -> None:
        """Ends the live line."""
        if self._live and self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


class LeaderboardProgress:
    """Shows which model of a leaderboard is in training, and the time left for it and for those to come.

    Args:
        names: The models, in order.
        seeds: Each one's seeds.
        estimates: Seconds each was estimated to take; None where it was not.
        stream: Where to write; standard error by default.
        quiet: Write nothing.
    """

    def __init__(
        self,
        names: Sequence[str],
        seeds: Sequence[tuple[int, ...]],
        estimates: Sequence[float | None],
        stream: TextIO | None = None,
        quiet: bool = False,
    ):
        self._names, self._seeds, self._estimates = names, seeds, estimates
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._current: TrainingProgress | None = None
        self._place = 0
        self._begin = time.monotonic()
        self._taken = self._estimated = 0.0

    def begin(self, place: int) -> None:
        """Says that the training of a model begins."""
        self.end()
        self._place, self._begin = place, time.monotonic()
        prefix = f"model {place + 1} of {len(self._names)}, {self._names[place]}"
        if not self._quiet:
            self._stream.write(f"{prefix}\n")
            self._stream.flush()
        self._current = TrainingProgress(
            self._seeds[place], self._stream, self._quiet, f"{prefix}: ", self.later
        )

    def __call__(self, place: int, seed: int, done: int, total: int) -> None:
        """Takes `done` of `total` fold-epochs of a seed of the model in training."""
        if self._current is not None:
            self._current(seed, done, total)

    def later(self, left: float) -> str:
        """Writes what is left after the model in training.

        Args:
            left: Seconds left for that model.
        """
        to_come = self._estimates[self._place + 1 :]
        if not to_come:
            return ""
        known = [seconds for seconds in to_come if seconds is not None]
        if len(known) < len(to_come):
            return f"; {len(to_come)} more model{'s' if len(to_come) > 1 else ''} to come"
        # An estimate is off by the same factor for most models, so those that are done correct the others.
        factor = self._taken / self._estimated if self._estimated else 1.0
        return f"; {duration(left + factor * sum(known))} for all models"

    def end(self) -> None:
        """Ends the live line of the model in training, and learns from the time it took."""
        if self._current is None:
            return
        self._current.close()
        self._current = None
        estimate = self._estimates[self._place]
        if estimate:
            self._taken += time.monotonic() - self._begin
            self._estimated += estimate
