"""How often a test of faults tries: a few times in the suite, as often as promised under `make kills`.

There every test has a share of the time, so that none starves, and fails where that was too short for what is
promised. Long tests are cut into parts, which run side by side.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

_Thing = TypeVar("_Thing")

#: Seconds that `make kills` may take; 0 in the suite.
SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
#: From so many on, what is promised must be reached; with less, set by hand, as much as the time allows.
FULL_SECONDS = 900
#: Parts that a long test is cut into.
PARTS = range(4 if SOAK_SECONDS else 1)
#: Name of the property that carries a test's counts to the table at the end.
TOLD = "faults"


def flipped(content: bytes, bit: int) -> bytes:
    """Return bytes with one bit turned."""
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


class Trials:
    """The trials of one test.

    Args:
        record: pytest's `record_property`.
        kind: What is tried, as in `build killed`.
        few: Trials in the suite.
        many: Trials promised under `make kills`, of all parts together.
        share: Of the time of all processes, for all parts together. Those of all tests add up to 0.85: the
            rest is for what stands before the trials and for tests that have none.
        part: Which of the parts this is; None for a test in one piece.
    """

    def __init__(
        self,
        record: Callable[[str, object], None],
        kind: str,
        few: int,
        many: int,
        share: float,
        part: int | None = None,
    ) -> None:
        self._record, self._kind, self._part = record, kind, part or 0
        self._parts = 1 if part is None else len(PARTS)
        self.wanted = -(-many // self._parts) if SOAK_SECONDS else few
        processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        self._seconds = SOAK_SECONDS * processes * share / self._parts
        self._began = time.monotonic()

    def among(self, things: Iterable[_Thing], wanted: int | None = None) -> Iterator[_Thing]:
        """Yield what to try, spread over all things, while the time lasts."""
        mine, rng = self.mine(list(things)), random.Random(self._part)
        count = min(self.wanted if wanted is None else wanted, len(mine))
        for i in range(count):
            if SOAK_SECONDS and time.monotonic() - self._began > self._seconds:
                return
            yield mine[rng.choice(range(i * len(mine) // count, (i + 1) * len(mine) // count))]

    def mine(self, things: Sequence[_Thing]) -> Sequence[_Thing]:
        """Return those that this part tries, or leaves out as the others do theirs."""
        return things[self._part :: self._parts]

    def end(self, tried: int, found: Mapping[str, int], wrong: Sequence[str] = ()) -> None:
        """Tell the counts, and fail where something went wrong or less was tried than promised."""
        seconds = time.monotonic() - self._began
        told: dict[str, Any] = {"kind": self._kind, "tried": tried, "promised": self.wanted}
        self._record(TOLD, told | {"seconds": seconds, "wrong": len(wrong), "found": dict(found)})
        assert not wrong, wrong
        if not SOAK_SECONDS or SOAK_SECONDS >= FULL_SECONDS:
            assert tried >= self.wanted, f"{tried} of {self.wanted} trials in {seconds:.0f} s"
