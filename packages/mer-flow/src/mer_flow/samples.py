"""The SampleTable: one row per micro-expression, one schema for every database."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mer_flow.work.errors import SheetError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: A frame number that is not known (an apex before spotting, a frame of an imported map).
UNKNOWN_FRAME = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """One micro-expression, as its sheet states it after reviewed corrections.

    Attributes:
        sample_id: Unique and stable, `<database>/<subject>/<clip>`, as in `casme2/sub01/EP02_01f`.
        database: A registered name, or any other for imported maps.
        subject: Unique across databases, as in `casme2/sub01`.
        clip: The clip's name; unique within its subject.
        onset: Frame number as in the sheet; `UNKNOWN_FRAME` where there is none, as for the next two.
        apex: Frame number as in the sheet.
        offset: Frame number as in the sheet.
        apex_source: `sheet`, `corrected`, `midpoint`, `spotted:<method>` or `none`.
        emotion: As in the sheet, lower case, stripped.
        action_units: As in the sheet; empty where there are none.
        objective_class: Objective class 1 to 7 (Davison et al. 2018); 0 where there is none.
        fps: Frames per second of the recording.
    """

    sample_id: str
    database: str
    subject: str
    clip: str
    onset: int
    apex: int
    offset: int
    apex_source: str
    emotion: str
    action_units: str
    objective_class: int
    fps: float


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Sample))
INT_COLUMNS = ("onset", "apex", "offset", "objective_class")
#: The largest frame number that is taken for one.
MOST_FRAMES = 10**9


def row_fault(sample: Sample) -> str:
    """Say why a row cannot be kept: its names are paths on other people's disks; empty where it can.

    >>> from dataclasses import replace
    >>> row = Sample("samm/006/a", "samm", "samm/006", "a", 1, 5, 9, "sheet", "anger", "4", 1, 200.0)
    >>> row_fault(row), row_fault(replace(row, sample_id="samm/006/../a"))
    ('', "'samm/006/../a' cannot be a name: it has a part '..'")
    """
    names = {"sample_id": sample.sample_id, "subject": sample.subject}
    for name, value in names.items():
        if not value.startswith(f"{sample.database}/"):
            others = " and ".join(f"{key} {other!r}" for key, other in names.items())
            return f"{others} must begin with '{sample.database}/', and {name} does not"
    for value in (sample.database, sample.sample_id, sample.subject):
        if bad := [part for part in value.split("/") if not part.strip() or part in (".", "..")]:
            return f"{value!r} cannot be a name: it has a part {bad[0]!r}"
    if not sample.database or "/" in sample.database:
        return f"{sample.database!r} cannot name a database"
    for column in fields(sample):
        value = getattr(sample, column.name)
        if isinstance(value, str):
            if bad := [c for c in value if unicodedata.category(c) in ("Cc", "Cs")]:
                return f"{column.name} {value!r} holds the control character {bad[0]!r}"
        elif not abs(value) <= MOST_FRAMES:
            return f"{column.name} is {value}, expected a number up to {MOST_FRAMES}"
    return ""


class SampleTable:
    """An ordered, immutable table of samples; operations return new tables.

    Args:
        samples: The rows, in the sheet's order.

    Raises:
        SheetError: Two rows share a `sample_id`.

    >>> row = Sample("samm/006/a", "samm", "samm/006", "a", 1, 5, 9, "sheet", "anger", "4", 1, 200.0)
    >>> table = SampleTable([row])
    >>> len(table), table.subjects
    (1, ('samm/006',))
    """

    def __init__(self, samples: Iterable[Sample]):
        self._rows = tuple(samples)
        self._index = {row.sample_id: i for i, row in enumerate(self._rows)}
        if len(self._index) != len(self._rows):
            twice = sorted(
                i for i, count in Counter(row.sample_id for row in self._rows).items() if count > 1
            )
            raise SheetError(
                f"{len(twice)} sample_id(s) occur more than once: "
                f"{', '.join(twice[:5])}{' ...' if len(twice) > 5 else ''}. "
                "Expected unique (subject, clip, onset); remove the duplicate rows."
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._rows)

    def __getitem__(self, key: int | str) -> Sample:
        return self._rows[self._index[key] if isinstance(key, str) else key]

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleTable) and self._rows == other._rows

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SampleTable({len(self)} samples, {len(self.subjects)} subjects)"

    @property
    def sample_ids(self) -> tuple[str, ...]:
        """Every `sample_id`, in order."""
        return tuple(self._index)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every subject once, in order of first appearance."""
        return tuple(dict.fromkeys(row.subject for row in self._rows))

    @property
    def databases(self) -> tuple[str, ...]:
        """Every database once, in order of first appearance."""
        return tuple(dict.fromkeys(row.database for row in self._rows))

    def select(self, sample_ids: Sequence[str]) -> SampleTable:
        """Return the rows of these ids, in the order given."""
        return SampleTable(self[sample_id] for sample_id in sample_ids)

    def column(self, name: str) -> np.ndarray:
        """Return one column.

        Args:
            name: One of `COLUMNS`.

        Returns:
            `(N,)` int64, float64 (`fps`) or object (text).
        """
        import numpy as np

        dtype: Any = np.int64 if name in INT_COLUMNS else np.float64 if name == "fps" else object
        return np.array([getattr(row, name) for row in self._rows], dtype=dtype)

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas frame with the columns `COLUMNS`, one row per sample."""
        import pandas as pd

        return pd.DataFrame({name: self.column(name) for name in COLUMNS})
