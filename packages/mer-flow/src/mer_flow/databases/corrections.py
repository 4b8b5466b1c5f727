"""Reviewed fixes of sheet errors: data with reason and source, applied only where the old value matches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from mer_flow.work.errors import UsageError

#: Columns that a correction may change.
CORRECTABLE = ("onset", "apex", "offset", "emotion")

#: As `old` of an apex: any value outside [onset, offset]. As `new`: the middle of the interval.
OUTSIDE, MIDPOINT = "outside", "midpoint"


@dataclass(frozen=True, slots=True)
class Correction:
    """One reviewed fix, as written in `corrections.toml`.

    Attributes:
        sample_id: The row it is for.
        column: One of `CORRECTABLE`.
        old: The wrong value as in the sheet (a frame number or a text), or `OUTSIDE`.
        new: The right value, or `MIDPOINT`.
        reason: What is wrong with the old value.
        source: Who says so.
    """

    sample_id: str
    column: str
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
        """Returns `(onset + offset) // 2`, the middle frame most loaders use."""
        if self.onset is None or self.offset is None:
            return None
        return (self.onset + self.offset) // 2


@cache
def load_corrections(database: str) -> tuple[Correction, ...]:
    """Returns the reviewed corrections of one database, in file order.

    Raises:
        UsageError: The corrections file is not as it must be.

    >>> [c.new for c in load_corrections("casme3") if c.sample_id == "casme3/spNO.149/d_112"]
    [160]
    """
    from mer_flow.databases.completeness import read_toml

    entries = read_toml("corrections.toml").get(database, [])
    corrections = []
    for number, entry in enumerate(entries, start=1):
        try:
            correction = Correction(**entry)
        except TypeError as error:
            raise UsageError(f"corrections.toml, {database} entry {number}: {error}") from error
        if correction.column not in CORRECTABLE:
            raise UsageError(
                f"corrections.toml, {database} entry {number}: column '{correction.column}' "
                f"cannot be corrected; expected one of {', '.join(CORRECTABLE)}"
            )
        corrections.append(correction)
    return tuple(corrections)


def correct(
    sample_id: str, values: Interval, corrections: Iterable[Correction]
) -> list[tuple[Correction, int | str, int | str]]:
    """Applies to one row, in place, the corrections whose old value it still has.

    A row in which somebody already mended the value, or which never had it, is left alone.

    Args:
        sample_id: The row's id.
        values: Its values, changed in place.
        corrections: The reviewed corrections of the database.

    Returns:
        What was applied: (correction, old value, new value), frame numbers or text.

    >>> row = Interval(onset=2327, apex=2363, offset=0, emotion="others")
    >>> fix = Correction("casme3/spNO.40/e_2327", "offset", 0, 2403, "no offset", "v2 .xls")
    >>> [(old, new) for _, old, new in correct("casme3/spNO.40/e_2327", row, [fix])], row.offset
    ([(0, 2403)], 2403)
    >>> correct("casme3/spNO.40/e_2327", row, [fix])
    []
    """
    applied = []
    for correction in corrections:
        if correction.sample_id != sample_id:
            continue
        old = getattr(values, correction.column)
        if correction.old == OUTSIDE:
            if not values.apex_is_outside():
                continue
        elif old != correction.old:
            continue
        new = values.midpoint() if correction.new == MIDPOINT else correction.new
        if new is None:
            continue
        setattr(values, correction.column, new)
        applied.append((correction, old, new))
    return applied
