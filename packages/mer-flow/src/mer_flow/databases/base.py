"""What every database shares: the reading of a sheet, checked row by row, and the search for its frames.

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

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from mer_flow.databases.completeness import load
from mer_flow.databases.corrections import MIDPOINT, Interval, correct
from mer_flow.databases.layout import ClipFolder, ClipLocator, subfolders
from mer_flow.databases.reading import AppliedCorrection, Notes, RawRow, SheetReading
from mer_flow.databases.recognise import fitting
from mer_flow.databases.sheets import (
    Form,
    Grid,
    SheetMatch,
    explain_mismatch,
    find_form,
    frame,
    objective_class,
    read_workbook,
    sheet_files,
    text,
    word,
)
from mer_flow.samples import UNKNOWN_FRAME, Sample, SampleTable, row_fault
from mer_flow.work.errors import LayoutError, SheetError
from mer_flow.work.suggest import unknown

#: The licence of databases that are given out against a signed agreement.
BY_AGREEMENT = "academic research, by signed agreement with its authors; not to be passed on"


class Database(ABC):
    """One micro-expression database: how its sheets are read and where its frames lie.

    Attributes:
        name: As on the command line, and as its entry point is called.
        title: As a table prints it.
        fps: Frames per second.
        licence: On what terms its frames, and what is made of them, may be used.
        has_apex: Whether its sheets give apexes.
        forms: Column forms that give samples, the most wanted first.
        refused: Column forms of the database that give none, and why.
        needed: Fields whose values a reading cannot do without.
        releases: Layouts of its frames, the most wanted first; `cropped...` means that they are face crops.
        example: Paths of frames in them, for messages.
        synthetic: Module with its synthetic twin (see `mer_flow.synthetic.tree`); empty where it has none.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    fps: ClassVar[float]
    licence: ClassVar[str] = "not stated by the package that reads it"
    has_apex: ClassVar[bool] = True
    forms: ClassVar[tuple[Form, ...]]
    refused: ClassVar[tuple[tuple[Form, str], ...]] = ()
    needed: ClassVar[tuple[str, ...]] = ("subject", "filename", "onset", "apex", "offset", "emotion")
    releases: ClassVar[tuple[str, ...]]
    example: ClassVar[str]
    synthetic: ClassVar[str] = ""

    @abstractmethod
    def names(self, row: int, values: dict[str, Any], notes: Notes) -> tuple[str, str]:
        """Return a row's subject and clip in their stable form, as `sub01` and `EP02_01f`.

        Args:
            row: Its number as a spreadsheet shows it.
            values: Field of the form -> cell.
            notes: Takes doubts about the row.

        Raises:
            ValueError: The row gives no sample; the message says why.
        """

    @abstractmethod
    def clip_folders(self, root: Path) -> Iterable[ClipFolder]:
        """Find every clip folder below a root; `mer_flow.databases.layout.walk` helps."""

    @abstractmethod
    def keys(self, sample: Sample, release: str) -> tuple[str, ...]:
        """Return the keys under which `clip_folders` may have a sample's folder, best first."""

    def choose(self, sample: Sample, folders: tuple[Path, ...], release: str) -> Path | None:
        """Return the folder with a sample's frames of those under its key."""
        return folders[0]

    def rows(self, match: SheetMatch, grids: Sequence[Grid], notes: Notes) -> Iterator[RawRow]:
        """Yield the rows of a recognised sheet, in its order; `grids` is every sheet of its workbook.

        Rows that give no sample, and doubts, go to `notes`.
        """
        for row, values in match.data():
            clip, subject = text(values["filename"]), text(values["subject"])
            try:
                if not clip:
                    raise ValueError("no Filename")
                yield RawRow(row, *self.names(row, values, notes), values)
            except ValueError as error:
                notes.drop(row, f"{subject}/{clip}".strip("/"), str(error))

    def form_name(self, match: SheetMatch) -> str:
        """Return the name under which the manifest has the form of a sheet."""
        return match.form.name

    def row_count(self, match: SheetMatch) -> int:
        """Count the rows by which the manifest knows a sheet."""
        return sum(1 for _, values in match.data() if text(values["filename"]))

    def read(self, root: Path | None, sheet: Path | None) -> SheetReading:
        """Read the samples of a copy of the database.

        Args:
            root: The copy's root; may be `None` if a sheet is given.
            sheet: The annotation sheet; `None` to look for it below the root.

        Raises:
            SheetError: There is no sheet, or it cannot be used.
            LayoutError: The root is no folder.
        """
        if sheet is None and root is not None and not Path(root).is_dir():
            what = "is a file" if Path(root).exists() else "does not exist"
            raise LayoutError(f"{self.name}: root {root} {what}. Give the database's folder with --root DIR.")
        if sheet is None and root is not None:
            sheet = self.find_sheet(root)
        if sheet is None:
            others = list(sheet_files(Path(root))) if root is not None else []
            if len(others) != 1:
                raise SheetError(self._no_sheet(root, others))
            sheet = others[0]  # the reading says what is wrong with the only candidate
        return self.read_sheet(sheet)

    def read_sheet(self, path: Path) -> SheetReading:
        """Read an annotation sheet, recognised by its columns and never by its name.

        Raises:
            SheetError: The file is missing or unreadable, has no known form, lacks a column, or lost the
                values of a column's formulas.
        """
        path = Path(path)
        grids = read_workbook(path)
        match = find_form(grids, self.forms)
        if match is None:
            raise SheetError(self._unknown_sheet(path, grids))
        match.require_values(self.needed)
        return self._parse(match, grids)

    def find_sheet(self, root: Path) -> Path | None:
        """Find the best annotation sheet below a root by content; `None` if there is none.

        Several published versions are ranked by the manifest (a newer one wins), unknown ones come last; of
        equal ones the nearest is taken.
        """
        best: tuple[int, int, Path] | None = None
        files: dict[str, Path] = {}
        for path in sheet_files(Path(root)):
            files.setdefault(os.path.realpath(path), path)  # links may lead to one sheet in many ways
        for path in files.values():
            try:
                grids = read_workbook(path)
                match = find_form(grids, self.forms)
                reading = self._parse(match, grids) if match else None
            except SheetError:
                continue  # an unreadable or foreign workbook is not this database's sheet
            if reading is None:
                continue
            version = load(self.name).version(reading.form, reading.rows)
            rank = version.rank if version else -1
            if best is None or (rank, reading.rows) > best[:2]:
                best = (rank, reading.rows, path)
        return best[2] if best else None

    def _parse(self, match: SheetMatch, grids: Sequence[Grid]) -> SheetReading:
        notes = Notes()
        if match.grid.recomputed:
            notes.warn(
                f"{match.grid.recomputed} formula(s) of sheet '{match.grid.name}' had lost their value "
                "and were recomputed; the file was re-saved by a program that does not compute formulas"
            )
        form, count = self.form_name(match), self.row_count(match)
        rows = tuple(self.rows(match, grids, notes))
        if load(self.name).version(form, count) is None:
            known = ", ".join(f"{v.rows}: {v.name}" for v in load(self.name).versions if v.form == form)
            notes.warnings.insert(
                0, f"{count} rows of the form '{form}' are no published version (known: {known or 'none'})"
            )
        return self.reading(match.grid.path, form, count, rows, notes)

    def reading(
        self, path: Path, form: str, count: int, rows: Iterable[RawRow], notes: Notes
    ) -> SheetReading:
        """Check rows, apply the reviewed corrections, and put together what came of them.

        Args:
            path: The workbook, or the root whose folders were read.
            form: The form's name, or `folders`.
            count: Rows by which the manifest knows the version.
            rows: The rows, in order.
            notes: What was said of them so far.
        """
        known = load(self.name).version(form, count)
        samples = tuple(self._samples(rows, notes))
        same = [s.sample_id for s in samples if s.apex >= 0 and s.apex == s.onset]
        if same:
            notes.warn(
                f"{len(same)} sample(s) have apex == onset, so no motion between them: {_first(same)}; "
                "kept, as the sheet is (mer-flow build --apex-at-onset spot or drop changes that)"
            )
        if known is not None and known.note:
            notes.warn(known.note)
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
        seen: dict[str, tuple[int, list[str]]] = {}
        for row in rows:
            content = [text(row.values.get(column)) for column in ("onset", "apex", "offset")]
            content.append(word(row.values.get("emotion")))
            if row.key in seen:
                first, before = seen[row.key]
                how = "an exact duplicate" if content == before else f"another reading ({', '.join(content)})"
                notes.drop(row.row, row.key, f"{how} of row {first}, which is kept")
                continue
            try:
                sample = self._sample(row, notes)
            except ValueError as error:
                notes.drop(row.row, row.key, str(error))
                continue
            seen[row.key] = (row.row, content)
            yield sample

    def _sample(self, row: RawRow, notes: Notes) -> Sample:
        """Make one row's sample; a ValueError says why there is none."""
        where = f"row {row.row} ({row.key})" if row.row else row.key
        values, apex_source = self._interval(row, where, notes)
        if values.onset is None:
            raise ValueError("no onset")
        # No database has a frame 0, so a 0 says that the annotator had no number.
        if values.onset == 0:
            notes.warn(f"{where}: onset 0 is no frame; kept, the nearest file stands in for it")
        if values.apex == 0:
            values.apex = None
        if values.offset == 0:
            values.offset = None
            notes.warn(f"{where}: offset 0 is no frame; taken as unknown")
        if values.offset is not None and values.offset < values.onset:
            raise ValueError(f"offset {values.offset} lies before onset {values.onset}")
        if values.apex_is_outside():
            span = f"[{values.onset}, {values.offset if values.offset is not None else '?'}]"
            notes.warn(f"{where}: apex {values.apex} lies outside {span}; taken as unknown")
            values.apex = None
        elif values.apex is None and self.has_apex:
            notes.warn(f"{where}: apex is '{text(row.values.get('apex'))}'; taken as unknown")
        if values.apex is None and values.offset is None:
            raise ValueError("neither apex nor offset is known")
        objective = row.values.get("objective")
        if text(objective) and not objective_class(objective):
            notes.warn(f"{where}: '{text(objective)}' is no objective class (1 to 7, I to VII)")
        sample = Sample(
            sample_id=f"{self.name}/{row.key}",
            database=self.name,
            subject=f"{self.name}/{row.subject}",
            clip=row.clip,
            onset=values.onset,
            apex=UNKNOWN_FRAME if values.apex is None else values.apex,
            offset=UNKNOWN_FRAME if values.offset is None else values.offset,
            apex_source="none" if values.apex is None else apex_source,
            emotion=values.emotion,
            action_units=text(row.values.get("action_units")),
            objective_class=objective_class(objective),
            fps=row.fps or self.fps,
        )
        if fault := row_fault(sample):
            raise ValueError(fault)
        return sample

    def _interval(self, row: RawRow, where: str, notes: Notes) -> tuple[Interval, str]:
        """Return a row's frame numbers and emotion after the reviewed corrections, and the apex's source."""
        numbers: dict[str, int | None] = {}
        for column in ("onset", "apex", "offset"):
            try:
                numbers[column] = frame(row.values.get(column))
            except ValueError as error:
                if column == "onset":
                    raise ValueError(f"onset: {error}") from error
                numbers[column] = None
                notes.warn(f"{where}: {column}: {error}; taken as unknown")
        values = Interval(**numbers, emotion=word(row.values.get("emotion")))
        apex_source = "sheet"
        sample_id = f"{self.name}/{row.key}"
        for fix, old, new in correct(sample_id, values, load(self.name).corrections):
            if fix.column == "apex":
                apex_source = "midpoint" if fix.new == MIDPOINT else "corrected"
            notes.corrections.append(
                AppliedCorrection(row.row, sample_id, fix.column, old, new, fix.reason, fix.source)
            )
        return values, apex_source

    def _columns(self) -> str:
        return " or ".join(", ".join(form.required.values()) for form in self.forms)

    def _no_sheet(self, root: Path | None, others: Sequence[Path]) -> str:
        looked = f" None of these is one: {_first([path.name for path in others])}." if others else ""
        return (
            f"{self.name}: no annotation sheet {'below ' + str(root) if root else 'given'}.{looked} "
            f"Expected a workbook with the columns {self._columns()}. Give it with --sheet FILE"
            f"{', which also says why a file is refused' if others else ''}."
        )

    def _unknown_sheet(self, path: Path, grids: Sequence[Grid]) -> str:
        for form, why in self.refused:
            if find_form(grids, [form]) is not None:
                return f"{path} is {form.title}: {why}"
        for name, match in fitting(grids):
            if name != self.name:
                what = f"{path} is {match.form.title}, not a sheet of {self.name}"
                return f"{what}. Use --db {name}, or the right file."
        return (
            f"{path} is no known version of {self.title}'s sheet: expected the columns {self._columns()}. "
            f"{explain_mismatch(grids, self.forms)} Use the authors' file, or restore the column."
        )

    def locate(self, root: Path, release: str = "auto") -> ClipLocator:
        """Scan a copy's folders once and say where each clip's frames lie.

        Args:
            root: The copy's root, or any folder between it and the clips.
            release: `auto`, or one of the database's releases.

        Raises:
            LayoutError: The root is missing or is laid out as no known release.
            UsageError: The release is unknown.
        """
        root = Path(root)
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise LayoutError(
                f"{self.name}: root {root} {what}. Expected a folder with clips such as {self.example}."
            )
        if release not in ("auto", *self.releases):
            raise unknown(f"release of {self.name}", release, ("auto", *self.releases))
        groups: dict[str, dict[str, tuple[Path, ...]]] = {}
        for clip in self.clip_folders(root):
            group = groups.setdefault(clip.release, {})
            group[clip.key] = (*group.get(clip.key, ()), clip.path)
        if not groups:
            got = subfolders(root)
            listed = ", ".join(got[:6]) + (" ..." if len(got) > 6 else "") if got else "no folders"
            raise LayoutError(
                f"{self.name}: root {root} is laid out as no known release ({', '.join(self.releases)}). "
                f"Expected frames such as {self.example}; found: {listed}. "
                "Point --root at the folder that holds the release."
            )
        if release == "auto":
            release = next((name for name in self.releases if name in groups), next(iter(groups)))
        if release not in groups:
            has = ", ".join(f"{name} ({len(found)} clips)" for name, found in groups.items())
            raise LayoutError(f"{self.name}: root {root} has no clips of release '{release}'; it has: {has}")
        keys, choose = partial(self.keys, release=release), partial(self.choose, release=release)
        return ClipLocator(self.name, root, release, groups[release], keys, choose)


def _first(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (" ..." if len(names) > limit else "")
