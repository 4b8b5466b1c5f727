"""Workbooks whose bytes depend on their content alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

#: Number, text, `(formula, value)`, or nothing.
Cell = int | str | tuple[str, int] | None


def write_workbook(path: Path, sheets: Mapping[str, Iterable[Iterable[Cell]]]) -> None:
    """Write a workbook: numbers as numbers, text as text, formulas with their stored values.

    Args:
        path: Where to write.
        sheets: Name -> rows of cells; None and "" leave a cell blank.
    """
    import xlsxwriter

    with xlsxwriter.Workbook(str(path)) as workbook:
        # Otherwise the time of writing goes into the file.
        workbook.set_properties({"created": datetime(2020, 1, 1)})
        for name, rows in sheets.items():
            sheet = workbook.add_worksheet(name)
            for r, cells in enumerate(rows):
                for c, cell in enumerate(cells):
                    if isinstance(cell, tuple):
                        sheet.write_formula(r, c, cell[0], value=cell[1])
                    elif isinstance(cell, str) and cell:
                        sheet.write_string(r, c, cell)
                    elif isinstance(cell, int):
                        sheet.write_number(r, c, cell)
