"""What reading a sheet gives: the samples, and what was corrected, dropped or doubted on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_flow.samples import SampleTable


@dataclass(frozen=True, slots=True)
class AppliedCorrection:
    """A sheet value that was replaced.

    Attributes:
        row: The row as a spreadsheet shows it; 0 where the sample comes from folders.
        sample_id: The sample.
        column: `onset`, `apex`, `offset` or `emotion`.
        old: The value in the sheet.
        new: The value in its place.
        reason: What was wrong.
        source: Who says so.
    """

    row: int
    sample_id: str
    column: str
    old: int | str
    new: int | str
    reason: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that gave no sample.

    Attributes:
        row: The row as a spreadsheet shows it; 0 for a folder.
        key: What the row is about, as far as it says.
        reason: Why it gave no sample.
    """

    row: int
    key: str
    reason: str


@dataclass(frozen=True)
class SheetReading:
    """What a sheet (or the folders of a release) gave.

    Attributes:
        database: The database.
        version: The published version, or form and row count where it is none.
        path: The workbook, or the root whose folders were read.
        table: The samples.
        corrections: Reviewed fixes that were applied.
        dropped: Rows that gave no sample.
        warnings: What a user should know of rows that were kept.
        form: The column form, or `folders`.
        rows: Rows with a filename (for folders: clip folders).
    """

    database: str
    version: str
    path: Path
    table: SampleTable
    corrections: tuple[AppliedCorrection, ...]
    dropped: tuple[DroppedRow, ...]
    warnings: tuple[str, ...]
    form: str = ""
    rows: int = 0


@dataclass(slots=True)
class RawRow:
    """One row as a database's reader hands it on: names in their stable form, values as in the sheet."""

    row: int
    subject: str
    clip: str
    onset: Any
    apex: Any
    offset: Any
    emotion: Any
    action_units: Any = None
    objective: Any = None
    fps: float = 0.0


@dataclass
class Notes:
    """Collects what is said about rows while they are read."""

    corrections: list[AppliedCorrection] = field(default_factory=list)
    dropped: list[DroppedRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def drop(self, row: int, key: str, reason: str) -> None:
        """Records a row that gives no sample."""
        self.dropped.append(DroppedRow(row, key, reason))
