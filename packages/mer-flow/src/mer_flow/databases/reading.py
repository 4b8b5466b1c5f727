"""What reading a sheet gives: the samples, and what was corrected, dropped or doubted on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_flow.samples import SampleTable


@dataclass(frozen=True, slots=True)
class AppliedCorrection:
    """A sheet value that was replaced, as `Correction` has it; `row` is 0 where there is no sheet."""

    row: int
    sample_id: str
    column: str
    old: int | str
    new: int | str
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that gave no sample; `row` is 0 for a folder, `key` what it is about, as far as it says."""

    row: int
    key: str
    reason: str


@dataclass(slots=True)
class RawRow:
    """One row of a sheet with its names in their stable form.

    Attributes:
        row: As a spreadsheet shows it; 0 for a folder.
        subject: The subject's own name, as in `sub01`.
        clip: The clip's name, unique within the subject.
        values: Values as in the sheet: `onset`, `apex`, `offset`, `emotion`, `action_units`, `objective`, and
            whatever else the form names.
        fps: Frames per second where they differ from the database's.
    """

    row: int
    subject: str
    clip: str
    values: dict[str, Any]
    fps: float = 0.0

    @property
    def key(self) -> str:
        """What a message calls the row: `sub01/EP02_01f`."""
        return f"{self.subject}/{self.clip}"


@dataclass
class Notes:
    """What is said about rows while they are read."""

    corrections: list[AppliedCorrection] = field(default_factory=list)
    dropped: list[DroppedRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def drop(self, row: int, key: str, reason: str) -> None:
        """Record a row that gives no sample."""
        self.dropped.append(DroppedRow(row, key, reason))

    def warn(self, text: str) -> None:
        """Record what a user should know of a row that is kept."""
        self.warnings.append(text)


@dataclass(frozen=True)
class SheetReading:
    """What a sheet (or the folders of a release) gave.

    Attributes:
        version: The published version, or form and row count where it is none.
        path: The workbook, or the root whose folders were read.
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
