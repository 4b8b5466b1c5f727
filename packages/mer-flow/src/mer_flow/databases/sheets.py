"""Reading helpers for annotation sheets: any workbook form to grids of cells, headers found by content."""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_flow.databases.formulas import FormulaEvaluator, UncomputableError
from mer_flow.work.errors import SheetError

#: Texts that stand for "not known" in a frame column.
MISSING_MARKS = frozenset({"", "/", "\\", "-", "--", "?", "na", "n/a", "nan", "none", "null"})

#: What `find_sheet` looks at; a sheet given by the user may have any name.
SHEET_SUFFIXES = (".xlsx", ".xlsm", ".xls", ".csv")

_HEADER_SEARCH_ROWS = 60
_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7}


class LostValue:
    """Stands in a grid for a formula whose value was not stored and could not be recomputed."""

    def __repr__(self) -> str:
        return "<formula without a stored value>"


LOST = LostValue()


@dataclass(frozen=True)
class Grid:
    """One sheet of a workbook as rows of Python values; row i is what a spreadsheet shows as row i + 1.

    Attributes:
        path: The workbook.
        name: The sheet's name.
        rows: Cell values; `None` is empty, `LOST` a formula without a value.
        recomputed: How many formulas had lost their value and were recomputed.
    """

    path: Path
    name: str
    rows: tuple[tuple[Any, ...], ...]
    recomputed: int = 0


@dataclass(frozen=True)
class Form:
    """The columns by which one kind of sheet is recognised.

    Attributes:
        name: As in `jpgindex`.
        title: What a person calls such a sheet.
        required: Column name as written by the authors, for each field the reader needs.
        optional: The same for fields it can do without.
        also: More accepted spellings per field.
        any_of: At least one of these columns must be there as well (tells similar forms apart).
        absent: None of these columns may be there.
    """

    name: str
    title: str
    required: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    any_of: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def spellings(self, key: str) -> tuple[str, ...]:
        """Returns the accepted normalised spellings of a field's column."""
        own = self.required.get(key) or self.optional[key]
        return tuple(normalise(name) for name in (own, *self.also.get(key, ())))


@dataclass(frozen=True)
class SheetMatch:
    """A grid recognised as a form.

    Attributes:
        grid: The sheet.
        form: The form it has.
        header: 0-based index of the header row in `grid.rows`.
        columns: 0-based column of each field that is there.
    """

    grid: Grid
    form: Form
    header: int
    columns: Mapping[str, int]

    def data(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (row number as a spreadsheet shows it, field -> value) for every row with any text in it."""
        for index in range(self.header + 1, len(self.grid.rows)):
            cells = self.grid.rows[index]
            if any(text(cell) or cell is LOST for cell in cells):
                yield index + 1, {key: at(cells, column) for key, column in self.columns.items()}

    def require_values(self, *keys: str) -> None:
        """Refuses a table whose needed columns hold formulas without values.

        Raises:
            SheetError: Such cells exist; the message counts them and says how to mend the file.
        """
        lost = [(row, key) for row, values in self.data() for key in keys if values.get(key) is LOST]
        if lost:
            names = ", ".join(dict.fromkeys(self.header_name(key) for _, key in lost))
            raise SheetError(
                f"{self.grid.path}, sheet '{self.grid.name}': {len(lost)} cell(s) of column(s) {names} are "
                f"formulas without a stored value (first: row {lost[0][0]}) and could not be recomputed. "
                "The file was re-saved by a program that does not compute formulas. Open it in Excel or "
                "LibreOffice Calc, save it there, and try again, or use the authors' original file."
            )

    def header_name(self, key: str) -> str:
        """Returns a field's column name as the sheet writes it."""
        return text(at(self.grid.rows[self.header], self.columns[key]))


def at(cells: Sequence[Any], column: int) -> Any:
    """Returns one cell of a row, `None` beyond its end."""
    return cells[column] if column < len(cells) else None


def normalise(name: object) -> str:
    """Reduces a column name to lower-case letters and digits.

    >>> normalise(" Onset Frame"), normalise("OnsetFrame")
    ('onsetframe', 'onsetframe')
    """
    return re.sub(r"[^0-9a-z]", "", str(name).lower())


def text(value: object) -> str:
    """Returns a cell as stripped text; whole numbers without a decimal point, empty and lost cells as "".

    >>> text(4.0), text(" R1+R2 "), text(None)
    ('4', 'R1+R2', '')
    """
    if value is None or value is LOST:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(str(value).split())


def word(value: object) -> str:
    """Returns a cell as lower-case text, for emotions."""
    return text(value).lower()


def frame(value: object) -> int | None:
    """Returns a frame number, `None` for a mark that says "not known".

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
    if not number.is_integer() or number < 0:
        raise ValueError(f"'{shown}' is not a frame number")
    return int(number)


def objective_class(value: object) -> int:
    """Returns an objective class 1 to 7 from a digit or a Roman numeral; 0 where the cell has neither.

    >>> objective_class("VII"), objective_class("iv "), objective_class(3.0), objective_class(None)
    (7, 4, 3, 0)
    """
    shown = word(value)
    if shown in _ROMAN:
        return _ROMAN[shown]
    return int(shown) if shown in {"1", "2", "3", "4", "5", "6", "7"} else 0


def read_workbook(path: Path) -> tuple[Grid, ...]:
    """Reads every sheet of a workbook, whatever its suffix says.

    Args:
        path: An Excel workbook (`.xlsx`, `.xls`) or a comma-separated file.

    Returns:
        One grid per sheet. Formulas give their stored values; plain arithmetic without one is recomputed.

    Raises:
        SheetError: The file is missing, unreadable, truncated or no workbook.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise SheetError(f"annotation sheet {path} {what}; give the workbook itself with --sheet FILE")
    try:
        with path.open("rb") as stream:
            magic = stream.read(8)
        if magic.startswith(b"PK"):
            return _read_xlsx(path)
        if magic.startswith(b"\xd0\xcf\x11\xe0"):
            return _read_xls(path)
        return _read_csv(path)
    except SheetError:
        raise
    except Exception as error:  # the libraries raise their whole zoo on damaged files
        raise SheetError(
            f"annotation sheet {path} cannot be read ({type(error).__name__}: {error}). Expected "
            "an .xlsx, .xls or .csv file; it may be truncated, damaged or protected by a password. "
            "Copy it again from the authors' release."
        ) from error


def _read_xlsx(path: Path) -> tuple[Grid, ...]:
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl warns of extensions that hold no cell values
        # As streams, since openpyxl refuses workbooks by their suffix.
        values = openpyxl.load_workbook(io.BytesIO(path.read_bytes()), data_only=True)
        formulas = openpyxl.load_workbook(io.BytesIO(path.read_bytes())) if _has_formulas(path) else None
    stored = {
        sheet.title: [list(row) for row in sheet.iter_rows(values_only=True)] for sheet in values.worksheets
    }
    if formulas is None:
        return tuple(Grid(path, name, tuple(map(tuple, rows))) for name, rows in stored.items())

    written: dict[tuple[str, int, int], str] = {}
    for sheet in formulas.worksheets:
        for row in sheet.iter_rows():
            for cell in row:
                formula = getattr(cell.value, "text", cell.value)  # an array formula wraps its text
                if cell.data_type == "f" and isinstance(formula, str) and cell.row and cell.column:
                    written[(sheet.title, int(cell.row), int(cell.column))] = formula

    def lookup(name: str, row: int, column: int) -> Any:
        if name not in stored:
            raise UncomputableError(f"no sheet '{name}'")
        rows = stored[name]
        value = rows[row - 1][column - 1] if row <= len(rows) and column <= len(rows[row - 1]) else None
        return written.get((name, row, column)) if value is None else value

    evaluator = FormulaEvaluator(lookup)
    grids = []
    for name, rows in stored.items():
        filled: list[list[Any]] = [list(row) for row in rows]
        recomputed = 0
        for sheet_name, row_number, column in written:
            if sheet_name != name or rows[row_number - 1][column - 1] is not None:
                continue
            try:
                filled[row_number - 1][column - 1] = evaluator.cell(name, row_number, column)
                recomputed += 1
            except UncomputableError:
                filled[row_number - 1][column - 1] = LOST
        grids.append(Grid(path, name, tuple(map(tuple, filled)), recomputed))
    return tuple(grids)


def _has_formulas(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        names = [
            name for name in archive.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml")
        ]
        return any(re.search(rb"<f[ >/]", archive.read(name)) for name in names)


def _read_xls(path: Path) -> tuple[Grid, ...]:
    import xlrd

    with xlrd.open_workbook(str(path)) as book:
        return tuple(
            Grid(
                path,
                sheet.name,
                tuple(
                    tuple(
                        None
                        if kind in (xlrd.XL_CELL_EMPTY, xlrd.XL_CELL_BLANK, xlrd.XL_CELL_ERROR)
                        else value
                        for kind, value in zip(sheet.row_types(i), sheet.row_values(i), strict=True)
                    )
                    for i in range(sheet.nrows)
                ),
            )
            for sheet in book.sheets()
        )


def _read_csv(path: Path) -> tuple[Grid, ...]:
    raw = path.read_bytes()
    if b"\0" in raw[:4096]:
        raise SheetError(
            f"annotation sheet {path} is neither a workbook (.xlsx, .xls) nor text; give the sheet itself"
        )
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = tuple(tuple(cell or None for cell in row) for row in csv.reader(stream))
    return (Grid(path, path.stem, rows),)


def find_form(grids: Sequence[Grid], forms: Sequence[Form]) -> SheetMatch | None:
    """Finds the first sheet that has the columns of one of the forms.

    Args:
        grids: The workbook's sheets.
        forms: What to look for, the most wanted first.

    Returns:
        The match, or `None`.
    """
    for form in forms:
        for grid in grids:
            for index, cells in enumerate(grid.rows[:_HEADER_SEARCH_ROWS]):
                names = _names(cells)
                if _lacking(names, form) or any(normalise(name) in names for name in form.absent):
                    continue
                if form.any_of and not any(normalise(name) in names for name in form.any_of):
                    continue
                fields = (*form.required, *form.optional)
                found = {
                    key: next((names[s] for s in form.spellings(key) if s in names), None) for key in fields
                }
                return SheetMatch(grid, form, index, {k: c for k, c in found.items() if c is not None})
    return None


def explain_mismatch(grids: Sequence[Grid], forms: Sequence[Form]) -> str:
    """Says what the nearest sheet of a workbook lacks, and what it has instead."""
    best: tuple[int, str] = (0, "")
    for form in forms:
        for grid in grids:
            for index, cells in enumerate(grid.rows[:_HEADER_SEARCH_ROWS]):
                names = _names(cells)
                lacking = _lacking(names, form)
                hits = len(form.required) - len(lacking)
                if hits <= best[0]:
                    continue
                got = ", ".join(text(cell) for cell in cells if text(cell))
                if lacking:
                    why = f"lacks column(s) {', '.join(repr(form.required[key]) for key in lacking)}"
                elif form.any_of:
                    why = f"has none of the columns {', '.join(map(repr, form.any_of))} of this form"
                else:
                    why = "has columns that this form never has"
                best = (hits, f"sheet '{grid.name}', row {index + 1}, {why}; it has: {got}")
    if best[0] >= 2:
        return f"The nearest: {best[1]}."
    shapes = ", ".join(f"'{grid.name}' ({len(grid.rows)} rows)" for grid in grids) or "none"
    return f"No sheet has a header row with such columns; sheets: {shapes}."


def _names(cells: Sequence[Any]) -> dict[str, int]:
    names: dict[str, int] = {}
    for column, cell in enumerate(cells):
        if isinstance(cell, str) and normalise(cell):
            names.setdefault(normalise(cell), column)
    return names


def _lacking(names: Mapping[str, int], form: Form) -> list[str]:
    return [key for key in form.required if not any(spelling in names for spelling in form.spellings(key))]
