"""Reviewed fixes of sheet errors: data with reason and source, applied only where the old value matches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mer_flow.work.settings import Settings

#: As `old` of an apex: any value outside [onset, offset]. As `new`: the middle of the interval.
OUTSIDE, MIDPOINT = "outside", "midpoint"


class Correction(Settings):
    """One reviewed fix, as a manifest has it.

    Attributes:
        old: The wrong value as in the sheet (a frame number or a text), or `OUTSIDE`.
        new: The right value, or `MIDPOINT`.
        reason: What is wrong with the old value.
        source: Who says so.
    """

    where = "corrections"
    what = "key"

    sample_id: str
    column: Literal["onset", "apex", "offset", "emotion"]
    old: int | str
    new: int | str
    reason: str
    source: str


@dataclass(slots=True)
class Interval:
    """The correctable values of one row while it is being read; `None` is "not known"."""

    onset: int | None
    apex: int | None
    offset: int | None
    emotion: str

    def apex_is_outside(self) -> bool:
        """Whether the apex is known and lies outside [onset, offset]."""
        if self.apex is None or self.onset is None:
            return False
        return self.apex < self.onset or (self.offset is not None and self.apex > self.offset)

    def midpoint(self) -> int | None:
        """Return `(onset + offset) // 2`, the middle frame most loaders use."""
        if self.onset is None or self.offset is None:
            return None
        return (self.onset + self.offset) // 2


def correct(
    sample_id: str, values: Interval, corrections: Iterable[Correction]
) -> list[tuple[Correction, int | str, int | str]]:
    """Apply to one row, in place, the corrections whose old value it still has.

    A row in which somebody already mended the value, or which never had it, is left alone.

    Returns:
        What was applied: (correction, old value, new value), frame numbers or text.

    >>> row = Interval(onset=2327, apex=2363, offset=0, emotion="others")
    >>> fix = Correction(sample_id="a/b/c", column="offset", old=0, new=2403, reason="none", source="v2 .xls")
    >>> [(old, new) for _, old, new in correct("a/b/c", row, [fix])], row.offset
    ([(0, 2403)], 2403)
    >>> correct("a/b/c", row, [fix])
    []
    """
    applied = []
    for correction in corrections:
        old = getattr(values, correction.column)
        there = values.apex_is_outside() if correction.old == OUTSIDE else old == correction.old
        new = values.midpoint() if correction.new == MIDPOINT else correction.new
        if correction.sample_id == sample_id and there and new is not None:
            setattr(values, correction.column, new)
            applied.append((correction, old, new))
    return applied
