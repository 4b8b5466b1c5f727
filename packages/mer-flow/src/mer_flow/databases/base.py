"""What every database reader shares: the reading of a sheet, checked row by row, and what came of it.

One bad row never stops the rest. After the reviewed corrections, a row

* without a filename, subject or onset, with an offset before its onset, or with neither apex nor offset,
  is dropped;
* that repeats the sample of an earlier row is dropped, the earlier one kept;
* whose apex lies outside [onset, offset], or is no number, is kept with its apex unknown (`apex_source` is
  `none`), since the interval is what the databases' users trust; the apex is then spotted like SMIC's;
* whose apex equals its onset is kept as it is, and counted.

Every drop and every doubt is recorded with the row's number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mer_flow.databases.corrections import MIDPOINT, Interval, correct, load_corrections
from mer_flow.databases.layout import ClipLocator
from mer_flow.databases.reading import AppliedCorrection, Notes, RawRow, SheetReading
from mer_flow.databases.sheets import (
    SHEET_SUFFIXES,
    Form,
    Grid,
    SheetMatch,
    explain_mismatch,
    find_form,
    frame,
    objective_class,
    read_workbook,
    text,
    word,
)
from mer_flow.work.errors import LayoutError, SheetError

if TYPE_CHECKING:
    from mer_flow.samples import Sample

_SHEET_SEARCH_DEPTH = 2


class Database(ABC):
    """One micro-expression database: how its sheets are read and where its frames lie."""

    name: ClassVar[str]
    title: ClassVar[str]
    fps: ClassVar[float]
    has_apex: ClassVar[bool]
    #: Column forms that give samples, the most wanted first.
    forms: ClassVar[tuple[Form, ...]]
    #: Column forms of the database that give none, and why.
    refused: ClassVar[tuple[tuple[Form, str], ...]] = ()
    #: Columns whose values a reading cannot do without.
    needed: ClassVar[tuple[str, ...]] = ("subject", "filename", "onset", "apex", "offset", "emotion")

    def read_sheet(self, path: Path) -> SheetReading:
        """Reads an annotation sheet, recognised by its columns and never by its name.

        Args:
            path: The workbook.

        Returns:
            Samples after reviewed corrections, and everything that was dropped or doubtful.

        Raises:
            SheetError: The file is missing or unreadable, has no known form, lacks a column, or lost the
                values of a column's formulas.
        """
        path = Path(path)
        grids = read_workbook(path)
        match = find_form(grids, self.forms)
        if match is None:
            raise SheetError(self._unknown_sheet(path, grids))
        match.require_values(*(key for key in self.needed if key in match.columns))
        return self._parse(match, grids)

    def find_sheet(self, root: Path) -> Path | None:
        """Finds the best annotation sheet below a root by content; `None` if there is none.

        Several published versions are ranked by the manifest (a newer one wins), unknown ones come last.
        """
        from mer_flow.databases.completeness import load

        manifest = load(self.name)
        best: tuple[int, int, Path] | None = None
        for path in _sheet_files(Path(root)):
            try:
                grids = read_workbook(path)
                match = find_form(grids, self.forms)
                if match is None:
                    continue
                reading = self._parse(match, grids)
            except SheetError:
                continue  # an unreadable or foreign workbook is not this database's sheet
            version = manifest.version(reading.form, reading.rows)
            rank = version.rank if version else -1
            if best is None or (rank, reading.rows) > best[:2]:
                best = (rank, reading.rows, path)
        return best[2] if best else None

    def read(self, root: Path | None, sheet: Path | None) -> SheetReading:
        """Reads the samples of a copy of the database.

        Args:
            root: The copy's root; may be `None` if a sheet is given.
            sheet: The annotation sheet; `None` to look for it below the root.

        Raises:
            SheetError: There is no sheet, or it cannot be used.
            LayoutError: The root is no folder.
        """
        if sheet is not None:
            return self.read_sheet(Path(sheet))
        if root is not None and not Path(root).is_dir():
            what = "is a file" if Path(root).exists() else "does not exist"
            raise LayoutError(f"{self.name}: root {root} {what}. Give the database's folder with --root DIR.")
        found = self.find_sheet(Path(root)) if root is not None else None
        if found is None:
            others = list(_sheet_files(Path(root))) if root is not None else []
            if len(others) == 1:
                return self.read_sheet(others[0])  # raises, and says what is wrong with the only candidate
            looked = f" None of these is one: {_first([path.name for path in others])}." if others else ""
            raise SheetError(
                f"{self.name}: no annotation sheet {'below ' + str(root) if root else 'given'}.{looked} "
                f"Expected a workbook with the columns {self._columns()}. Give it with --sheet FILE"
                f"{', which also says why a file is refused' if others else ''}."
            )
        return self.read_sheet(found)

    @abstractmethod
    def locate(self, root: Path, release: str = "auto") -> ClipLocator:
        """Scans a copy's folders once and says where each clip's frames lie.

        Args:
            root: The copy's root, or any folder between it and the clips.
            release: `auto`, or one of the database's releases.

        Raises:
            LayoutError: The root is missing or is laid out as no known release.
            UsageError: The release is unknown.
        """

    @abstractmethod
    def _rows(self, match: SheetMatch, grids: Sequence[Grid], notes: Notes) -> Iterator[RawRow]:
        """Yields the rows of a recognised sheet in its order; bad ones go to `notes.dropped`."""

    def _form_name(self, match: SheetMatch) -> str:
        return match.form.name

    def _row_count(self, match: SheetMatch) -> int:
        return sum(1 for _, values in match.data() if text(values["filename"]))

    def _parse(self, match: SheetMatch, grids: Sequence[Grid]) -> SheetReading:
        notes = Notes()
        if match.grid.recomputed:
            notes.warnings.append(
                f"{match.grid.recomputed} formula(s) of sheet '{match.grid.name}' had lost their value "
                "and were recomputed; the file was re-saved by a program that does not compute formulas"
            )
        rows = tuple(self._rows(match, grids, notes))
        return self._reading(match.grid.path, self._form_name(match), self._row_count(match), rows, notes)

    def _reading(
        self, path: Path, form: str, count: int, rows: Iterable[RawRow], notes: Notes
    ) -> SheetReading:
        from mer_flow.databases.completeness import load
        from mer_flow.samples import SampleTable

        known = load(self.name).version(form, count)
        if known is None and form != "folders":
            versions = ", ".join(f"{v.rows}: {v.name}" for v in load(self.name).versions if v.form == form)
            notes.warnings.insert(
                0, f"{count} rows of the form '{form}' are no published version (known: {versions or 'none'})"
            )
        samples = tuple(self._samples(rows, notes))
        same = [s.sample_id for s in samples if s.apex >= 0 and s.apex == s.onset]
        if same:
            notes.warnings.append(
                f"{len(same)} sample(s) have apex == onset, so no motion between them: {_first(same)}; "
                "kept, as the sheet is (mer-flow build --apex-at-onset spot or drop changes that)"
            )
        if known is not None and known.note:
            notes.warnings.append(known.note)
        return SheetReading(
            database=self.name,
            version=known.name if known else f"{form}, {count} {'clips' if form == 'folders' else 'rows'}",
            path=path,
            table=SampleTable(samples),
            corrections=tuple(notes.corrections),
            dropped=tuple(sorted(notes.dropped, key=lambda row: row.row)),
            warnings=tuple(notes.warnings),
            form=form,
            rows=count,
        )

    def _samples(self, rows: Iterable[RawRow], notes: Notes) -> Iterator[Sample]:
        """Checks each row, applies the corrections and yields the samples that remain."""
        seen: dict[str, tuple[int, tuple[Any, ...]]] = {}
        corrections = load_corrections(self.name)
        for row in rows:
            sample_id = f"{self.name}/{row.subject}/{row.clip}"
            key = f"{row.subject}/{row.clip}"
            content = (text(row.onset), text(row.apex), text(row.offset), word(row.emotion))
            if sample_id in seen:
                first, before = seen[sample_id]
                how = "an exact duplicate" if content == before else f"another reading ({', '.join(content)})"
                notes.drop(row.row, key, f"{how} of row {first}, which is kept")
                continue
            sample = self._sample(row, sample_id, key, corrections, notes)
            if sample is not None:
                seen[sample_id] = (row.row, content)
                yield sample

    def _sample(self, row: RawRow, sample_id: str, key: str, corrections: Any, notes: Notes) -> Sample | None:
        from mer_flow.samples import UNKNOWN_FRAME, Sample

        where = f"row {row.row} ({key})" if row.row else key
        numbers: dict[str, int | None] = {}
        for column in ("onset", "apex", "offset"):
            try:
                numbers[column] = frame(getattr(row, column))
            except ValueError as error:
                if column == "onset":
                    notes.drop(row.row, key, f"onset: {error}")
                    return None
                numbers[column] = None
                notes.warnings.append(f"{where}: {column}: {error}; taken as unknown")
        values = Interval(numbers["onset"], numbers["apex"], numbers["offset"], word(row.emotion))
        apex_source = "sheet"
        for correction, old, new in correct(sample_id, values, corrections):
            if correction.column == "apex":
                apex_source = "midpoint" if correction.new == MIDPOINT else "corrected"
            notes.corrections.append(
                AppliedCorrection(
                    row.row, sample_id, correction.column, old, new, correction.reason, correction.source
                )
            )
        if values.onset is None:
            notes.drop(row.row, key, "no onset")
            return None
        # No database has a frame 0, so a 0 says that the annotator had no number.
        if values.onset == 0:
            notes.warnings.append(f"{where}: onset 0 is no frame; kept, the nearest file stands in for it")
        if values.apex == 0:
            values.apex = None
        if values.offset == 0:
            values.offset = None
            notes.warnings.append(f"{where}: offset 0 is no frame; taken as unknown")
        if values.offset is not None and values.offset < values.onset:
            notes.drop(row.row, key, f"offset {values.offset} lies before onset {values.onset}")
            return None
        if values.apex_is_outside():
            span = f"[{values.onset}, {values.offset if values.offset is not None else '?'}]"
            notes.warnings.append(f"{where}: apex {values.apex} lies outside {span}; taken as unknown")
            values.apex = None
        elif values.apex is None and self.has_apex:
            notes.warnings.append(f"{where}: apex is '{text(row.apex)}'; taken as unknown")
        if values.apex is None and values.offset is None:
            notes.drop(row.row, key, "neither apex nor offset is known")
            return None
        number = objective_class(row.objective)
        if number == 0 and text(row.objective):
            notes.warnings.append(
                f"{where}: '{text(row.objective)}' is no objective class (1 to 7, I to VII)"
            )
        return Sample(
            sample_id=sample_id,
            database=self.name,
            subject=f"{self.name}/{row.subject}",
            clip=row.clip,
            onset=values.onset,
            apex=UNKNOWN_FRAME if values.apex is None else values.apex,
            offset=UNKNOWN_FRAME if values.offset is None else values.offset,
            apex_source="none" if values.apex is None else apex_source,
            emotion=values.emotion,
            action_units=text(row.action_units),
            objective_class=number,
            fps=row.fps or self.fps,
        )

    def _columns(self) -> str:
        return " or ".join(", ".join(form.required.values()) for form in self.forms)

    def _unknown_sheet(self, path: Path, grids: Sequence[Grid]) -> str:
        for form, why in self.refused:
            if find_form(grids, [form]) is not None:
                return f"{path} is {form.title}: {why}"
        from mer_flow.databases import DATABASES, get_database

        for other in DATABASES:
            if other != self.name and (match := find_form(grids, get_database(other).forms)) is not None:
                what = f"{path} is {match.form.title}, not a sheet of {self.name}"
                return f"{what}. Use --db {other}, or the right file."
        return (
            f"{path} is no known version of {self.title}'s sheet: expected the columns {self._columns()}. "
            f"{explain_mismatch(grids, self.forms)} Use the authors' file, or restore the column."
        )


def _first(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (" ..." if len(names) > limit else "")


def _sheet_files(root: Path, depth: int = _SHEET_SEARCH_DEPTH) -> Iterator[Path]:
    """Yields possible sheets below a root, nearest first, without the lock files of open workbooks."""
    if not root.is_dir():
        return
    folders = []
    try:
        present = sorted(root.iterdir())
    except PermissionError as error:
        raise LayoutError(
            f"cannot read folder {root}: {error.strerror}; give yourself read permission"
        ) from error
    for path in present:
        if path.name.startswith((".", "~$")):
            continue
        if path.is_dir():
            folders.append(path)
        elif path.suffix.lower() in SHEET_SUFFIXES:
            yield path
    if depth:
        for folder in folders:
            yield from _sheet_files(folder, depth - 1)
