"""What installed packages bring through entry points: named at once, imported when asked for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Generic, TypeVar

from mer_flow.work.errors import UsageError
from mer_flow.work.suggest import unknown

_Thing = TypeVar("_Thing")

#: Seconds that the import of a package may take; PyTorch from a cold disk takes half of it.
IMPORT_LIMIT = 60.0


class _OverdueError(BaseException):
    """A stranger's code took too long; no `except Exception` of its own stops this."""


@contextmanager
def contained(seconds: float = 0.0) -> Iterator[None]:
    """Run a stranger's code: what would end the program, as `sys.exit`, becomes an error like any other.

    Ctrl-C stays what it is. Code that leaves by `os._exit`, or never gives the interpreter a turn, is beyond
    it.

    Args:
        seconds: How long it may take, in the main thread of a system with alarms; 0 for as long as it likes.

    Raises:
        RuntimeError: The code raised what is no `Exception`, or took too long.

    >>> with contained():
    ...     raise SystemExit(0)
    Traceback (most recent call last):
    ...
    RuntimeError: it raised SystemExit: 0
    """
    try:
        with _alarm(seconds):
            yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        kind = "" if isinstance(error, _OverdueError) else f"it raised {type(error).__name__}: "
        raise RuntimeError(f"{kind}{error}") from error


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    here = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    if not seconds or not here:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _OverdueError(f"it took longer than {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, ring)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *others)
        signal.signal(signal.SIGALRM, handler)


class Plugins(Generic[_Thing]):
    """The things of one entry-point group by name; iterating gives the names and imports nothing.

    Args:
        group: The group, as in `mer_flow.databases`.
        what: What a message calls one of its things, as in "database".
        make: Called with an entry point's name and object; returns the thing, or raises where it is none.
        own: Things that need no entry point.
        points: The entry points; those of the installed packages by default.
    """

    def __init__(
        self,
        group: str,
        what: str,
        make: Callable[[str, object], _Thing],
        own: Mapping[str, _Thing] | None = None,
        points: Sequence[EntryPoint] | None = None,
    ):
        self.group, self.what = group, what
        self._make = make
        self._things = dict(own or {})
        self._given = points

    @cached_property
    def _points(self) -> dict[str, list[EntryPoint]]:
        points = entry_points(group=self.group) if self._given is None else self._given
        found: dict[str, list[EntryPoint]] = {}
        for point in sorted(points, key=lambda point: (point.name, point.value)):
            found.setdefault(point.name, []).append(point)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._things, *self._points)))

    def __contains__(self, name: object) -> bool:
        return name in self._things or name in self._points

    def add(self, name: str, found: object) -> None:
        """Add a thing to this process alone, as in a notebook; other processes do not know it.

        Args:
            name: What it is called.
            found: What an entry point of that name would give.
        """
        self._things[name] = self._make(name, found)

    def packages(self, name: str) -> str:
        """Return the distributions that bring a name, with their versions; empty for one of our own."""
        dists = [point.dist for point in self._points.get(name, ())]
        return ", ".join(f"{d.name} {d.version}" if d is not None else "an unknown package" for d in dists)

    def __getitem__(self, name: str) -> _Thing:
        """Return one thing, importing it on the first question.

        Raises:
            UsageError: Nobody brings the name (the nearest is suggested), several packages do, or its module
                fails to import.
        """
        if name in self._things:
            return self._things[name]
        points = self._points.get(name, [])
        if not points:
            raise unknown(self.what, name, self)
        if len(points) > 1:
            raise UsageError(
                f"{self.what} '{name}' is registered {len(points)} times, by {self.packages(name)}; "
                f"uninstall one of them or rename its {self.what}"
            )
        try:
            with contained(IMPORT_LIMIT):
                self._things[name] = self._make(name, points[0].load())
        except Exception as error:  # a stranger's module may raise anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UsageError(
                f"{self.what} '{name}' of {self.packages(name)} cannot be used: {reason}. "
                f"Mend or uninstall that package; every other {self.what} works"
            ) from error
        return self._things[name]

    def usable(self) -> Iterator[tuple[str, _Thing]]:
        """Yield every name with its thing, leaving out what cannot be used."""
        for name in self:
            try:
                thing = self[name]
            except UsageError:
                continue
            yield name, thing
