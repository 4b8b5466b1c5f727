"""Annotation sheets: any workbook as grids of cells, and headers found by their content."""

from __future__ import annotations

import csv
import io
import itertools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_flow.databases.formulas import FormulaEvaluator, UncomputableError
from mer_flow.databases.limits import check_archive, check_file, within
from mer_flow.samples import MOST_FRAMES
from mer_flow.work.errors import LayoutError, SheetError

#: Texts that stand for "not known" in a frame column.
MISSING_MARKS = frozenset({"", "/", "\\", "-", "--", "?", "na", "n/a", "nan", "none", "null"})

_SHEET_SUFFIXES = (".xlsx", ".xlsm", ".xls", ".csv")
_SHEET_SEARCH_DEPTH = 2
_HEADER_SEARCH_ROWS = 60
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii")
_OBJECTIVE = {name: number for number, roman in enumerate(_ROMAN, start=1) for name in (roman, str(number))}


class LostValue:
    """Stands in a grid for a formula whose value was not stored and could not be recomputed."""


LOST = LostValue()


@dataclass(frozen=True)
class Grid:
    """One sheet of a workbook as rows of Python values; row i is what a spreadsheet shows as row i + 1.

    Attributes:
        rows: Cell values; `None` is empty, `LOST` a formula without a value.
        recomputed: How many formulas had lost their value and were recomputed.
    """

    path: Path
    name: str
    rows: tuple[tuple[Any, ...], ...]
    recomputed: int = 0


@dataclass(frozen=True)
class Form:
    """The columns by which one kind of sheet is recognised, by their letters and digits alone.

    Attributes:
        name: As in `jpgindex`.
        title: What a person calls such a sheet.
        required: Field the reader needs -> name of its column, as the authors write it.
        optional: The same for fields it can do without.
        any_of: At least one of these columns must be there as well (tells similar forms apart).
        absent: None of these columns may be there.
    """

    name: str
    title: str
    required: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    any_of: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def lacking(self, names: Mapping[str, int]) -> list[str]:
        """Return the required columns that a header row, as normalised names, does not have."""
        return [column for column in self.required.values() if normalise(column) not in names]

    def fits(self, names: Mapping[str, int]) -> bool:
        """Whether a header row, as normalised names, is one of this form."""
        told = not self.any_of or any(normalise(name) in names for name in self.any_of)
        return told and not self.lacking(names) and not any(normalise(name) in names for name in self.absent)


@dataclass(frozen=True)
class SheetMatch:
    """A grid recognised as a form.

    Attributes:
        header: 0-based index of the header row in `grid.rows`.
        columns: 0-based column of each field that is there.
    """

    grid: Grid
    form: Form
    header: int
    columns: Mapping[str, int]

    def data(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row number as a spreadsheet shows it, field -> value) for every row with any text in it."""
        for index, cells in enumerate(self.grid.rows[self.header + 1 :], start=self.header + 2):
            if any(text(cell) or cell is LOST for cell in cells):
                yield index, {key: _at(cells, column) for key, column in self.columns.items()}

    def require_values(self, keys: Sequence[str]) -> None:
        """Refuse a table whose needed columns hold formulas without values.

        Raises:
            SheetError: Such cells exist; the message counts them and says how to mend the file.
        """
        lost = [(row, key) for row, values in self.data() for key in keys if values.get(key) is LOST]
        if lost:
            header = self.grid.rows[self.header]
            names = ", ".join(dict.fromkeys(text(_at(header, self.columns[key])) for _, key in lost))
            raise SheetError(
                f"{self.grid.path}, sheet '{self.grid.name}': {len(lost)} cell(s) of column(s) {names} are "
                f"formulas without a stored value (first: row {lost[0][0]}) and could not be recomputed. "
                "The file was re-saved by a program that does not compute formulas. Open it in Excel or "
                "LibreOffice Calc, save it there, and try again, or use the authors' original file."
            )


def _at(cells: Sequence[Any], column: int) -> Any:
    return cells[column] if column < len(cells) else None


def normalise(name: object) -> str:
    """Reduce a column name to lower-case letters and digits.

    >>> normalise(" Onset Frame"), normalise("OnsetFrame")
    ('onsetframe', 'onsetframe')
    """
    return re.sub(r"[^0-9a-z]", "", str(name).lower())


def text(value: object) -> str:
    """Return a cell as stripped text; whole numbers without a decimal point, empty and lost cells as "".

    >>> text(4.0), text(" R1+R2 "), text(None)
    ('4', 'R1+R2', '')
    """
    if value is None or value is LOST:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(str(value).split())


def word(value: object) -> str:
    """Return a cell as lower-case text, for emotions."""
    return text(value).lower()


def frame(value: object) -> int | None:
    """Return a frame number, `None` for a mark that says "not known".

    Raises:
        ValueError: The cell holds something else; the message quotes it.

    >>> frame("355"), frame(46.0), frame("/")
    (355, 46, None)
    """
    shown = text(value)
    if shown.lower() in MISSING_MARKS:
        return None
    try:
        number = float(shown)
    except ValueError:
        number = float("nan")
    if not number.is_integer() or not 0 <= number <= MOST_FRAMES:
        raise ValueError(f"'{shown}' is not a frame number")
    return int(number)


def objective_class(value: object) -> int:
    """Return an objective class 1 to 7 from a digit or a Roman numeral; 0 where the cell has neither.

    >>> objective_class("VII"), objective_class("iv "), objective_class(3.0), objective_class(None)
    (7, 4, 3, 0)
    """
    return _OBJECTIVE.get(word(value), 0)


def sheet_files(root: Path, depth: int = _SHEET_SEARCH_DEPTH) -> Iterator[Path]:
    """Yield possible sheets below a root, nearest first, without the lock files of open workbooks."""
    if not root.is_dir():
        return
    try:
        present = [path for path in sorted(root.iterdir()) if not path.name.startswith((".", "~$"))]
    except PermissionError as error:
        raise LayoutError(
            f"cannot read folder {root}: {error.strerror}; give yourself read permission"
        ) from error
    yield from (path for path in present if path.suffix.lower() in _SHEET_SUFFIXES and not path.is_dir())
    for path in present if depth else ():
        yield from sheet_files(path, depth - 1)


def read_workbook(path: Path) -> tuple[Grid, ...]:
    """Read every sheet of an Excel workbook (`.xlsx`, `.xls`) or a CSV file, whatever its suffix says.

    Formulas give their stored values; plain arithmetic without one is recomputed.

    Raises:
        SheetError: The file is missing, unreadable, truncated, no workbook, or beyond the limits of
            `mer_flow.databases.limits`.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise SheetError(f"annotation sheet {path} {what}; give the workbook itself with --sheet FILE")
    try:
        check_file(path)
        # As a stream, since openpyxl refuses workbooks by their suffix.
        content = path.read_bytes()
        if content.startswith(b"PK"):
            return _read_xlsx(path, content)
        if content.startswith(b"\xd0\xcf\x11\xe0"):
            return _read_xls(path)
        if b"\0" in content[:4096]:
            raise SheetError(
                f"annotation sheet {path} is neither a workbook (.xlsx, .xls) nor text; give the sheet itself"
            )
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = within(path, path.stem, ([cell or None for cell in row] for row in lines))
        return (Grid(path, path.stem, tuple(rows)),)
    except SheetError:
        raise
    except Exception as error:  # the libraries raise their whole zoo on damaged files
        raise SheetError(
            f"annotation sheet {path} cannot be read ({type(error).__name__}: {error}). Expected "
            "an .xlsx, .xls or .csv file; it may be truncated, damaged or protected by a password. "
            "Copy it again from the authors' release."
        ) from error


def _read_xlsx(path: Path, content: bytes) -> tuple[Grid, ...]:
    check_archive(path, content)
    stored = {
        name: within(path, name, ((cell.value for cell in row) for row in rows))
        for name, rows in _sheets(content, values=True)
    }
    written: dict[str, dict[tuple[int, int], str]] = {name: {} for name in stored}
    for name, rows in _sheets(content, values=False) if _has_formulas(content) else ():
        for row, cells in enumerate(itertools.islice(rows, len(stored[name])), start=1):
            for column, cell in enumerate(cells, start=1):
                formula = getattr(cell.value, "text", cell.value)  # an array formula wraps its text
                if cell.data_type == "f" and isinstance(formula, str):
                    written[name][row, column] = formula

    def lookup(name: str, row: int, column: int) -> Any:
        if name not in stored:
            raise UncomputableError(f"no sheet '{name}'")
        value = _at(stored[name][row - 1], column - 1) if row <= len(stored[name]) else None
        return written[name].get((row, column)) if value is None else value

    evaluator = FormulaEvaluator(lookup)
    grids = []
    for name, kept in stored.items():
        filled = [list(row) for row in kept]
        recomputed = 0
        for row_number, column in written[name]:
            if filled[row_number - 1][column - 1] is None:
                try:
                    filled[row_number - 1][column - 1] = evaluator.cell(name, row_number, column)
                    recomputed += 1
                except UncomputableError:
                    filled[row_number - 1][column - 1] = LOST
        grids.append(Grid(path, name, tuple(map(tuple, filled)), recomputed))
    return tuple(grids)


def _sheets(content: bytes, values: bool) -> Iterator[tuple[str, Iterator[Sequence[Any]]]]:
    """Yield name and rows of cells of every sheet, as a stream: nothing is kept of what a row leaves out."""
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl warns of extensions that hold no cell values
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=values)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # what a file says of its size may be wrong
            yield sheet.title, sheet.iter_rows()


def _has_formulas(content: bytes) -> bool:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sheets = [n for n in archive.namelist() if n.startswith("xl/worksheets/") and n.endswith(".xml")]
        return any(re.search(rb"<f[ >/]", archive.read(name)) for name in sheets)


def _read_xls(path: Path) -> tuple[Grid, ...]:
    import xlrd

    empty = (xlrd.XL_CELL_EMPTY, xlrd.XL_CELL_BLANK, xlrd.XL_CELL_ERROR)
    with xlrd.open_workbook(str(path), on_demand=True, ragged_rows=True) as book:
        grids = []
        for sheet in book.sheets():
            rows = (
                [None if cell.ctype in empty else cell.value for cell in sheet.row(i)]
                for i in range(sheet.nrows)
            )
            grids.append(Grid(path, sheet.name, tuple(within(path, sheet.name, rows))))
        return tuple(grids)


def _headers(grids: Sequence[Grid]) -> Iterator[tuple[Grid, int, dict[str, int]]]:
    """Yield every row that may be a header: its sheet, its index, normalised name -> column."""
    for grid in grids:
        for index, cells in enumerate(grid.rows[:_HEADER_SEARCH_ROWS]):
            names: dict[str, int] = {}
            for column, cell in enumerate(cells):
                if isinstance(cell, str) and normalise(cell):
                    names.setdefault(normalise(cell), column)
            yield grid, index, names


def find_form(grids: Sequence[Grid], forms: Sequence[Form]) -> SheetMatch | None:
    """Find the first sheet that has the columns of one of the forms, the most wanted first."""
    headers = list(_headers(grids))
    for form in forms:
        for grid, index, names in headers:
            if form.fits(names):
                wanted = {
                    key: normalise(name) for key, name in (*form.required.items(), *form.optional.items())
                }
                columns = {key: names[name] for key, name in wanted.items() if name in names}
                return SheetMatch(grid, form, index, columns)
    return None


def explain_mismatch(grids: Sequence[Grid], forms: Sequence[Form]) -> str:
    """Say what the nearest sheet of a workbook lacks, and what it has instead."""
    best: tuple[int, str] = (1, "")
    headers = list(_headers(grids))
    for form in forms:
        for grid, index, names in headers:
            lacking = form.lacking(names)
            hits = len(form.required) - len(lacking)
            if hits <= best[0]:
                continue
            if lacking:
                why = f"lacks column(s) {', '.join(map(repr, lacking))}"
            elif form.any_of:
                why = f"has none of the columns {', '.join(map(repr, form.any_of))} of this form"
            else:
                why = "has columns that this form never has"
            got = ", ".join(text(cell) for cell in grid.rows[index] if text(cell))
            best = (hits, f"sheet '{grid.name}', row {index + 1}, {why}; it has: {got}")
    if best[1]:
        return f"The nearest: {best[1]}."
    shapes = ", ".join(f"'{grid.name}' ({len(grid.rows)} rows)" for grid in grids) or "none"
    return f"No sheet has a header row with such columns; sheets: {shapes}."
