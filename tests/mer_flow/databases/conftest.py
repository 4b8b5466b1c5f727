"""Writers of annotation sheets in the authors' column forms, with invented values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mer_flow.synthetic.layouts import casme2, casme3, samm, smic

Writer = Callable[..., Path]


def save(path: Path, sheets: dict[str, Sequence[Sequence[Any]]]) -> Path:
    """Writes cells as .xlsx or .xls; a (formula, value) pair becomes a formula with its stored value."""
    if path.suffix == ".xls":
        import xlwt

        book = xlwt.Workbook()
        for name, rows in sheets.items():
            sheet = book.add_sheet(name)
            for r, row in enumerate(rows):
                for c, cell in enumerate(row):
                    if cell not in (None, ""):
                        sheet.write(r, c, cell)
        book.save(str(path))
        return path
    import xlsxwriter

    with xlsxwriter.Workbook(str(path)) as book:
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for r, row in enumerate(rows):
                for c, cell in enumerate(row):
                    if isinstance(cell, tuple):
                        sheet.write_formula(r, c, cell[0], value=cell[1])
                    elif cell not in (None, ""):
                        sheet.write(r, c, cell)
    return path


@pytest.fixture(scope="session")
def workbook() -> Writer:
    """`workbook(path, {sheet name: rows})`."""
    return save


@pytest.fixture(scope="session")
def casme2_sheet() -> Writer:
    """`casme2_sheet(path, rows)`; rows of subject, filename, onset, apex, offset, emotion[, AU]."""

    def write(path: Path, rows: Sequence[Sequence[Any]], compact: bool = False) -> Path:
        cells: list[Sequence[Any]] = [casme2.COLUMNS]
        for subject, filename, onset, apex, offset, emotion, *au in rows:
            cells.append((subject, filename, None, onset, apex, offset, None, *(au or [4]), emotion))
        if compact:
            cells = [[cell for i, cell in enumerate(row) if i not in (2, 6)] for row in cells]
        return save(path, {"Sheet1": cells, "Sheet2": [], "Sheet3": []})

    return write


@pytest.fixture(scope="session")
def samm_sheet() -> Writer:
    """`samm_sheet(path, rows)`; rows of subject, filename, onset, apex, offset, emotion, class."""

    def write(path: Path, rows: Sequence[Sequence[Any]], preamble: int = 13, stored: bool = True) -> Path:
        cells: list[Sequence[Any]] = [(f"preamble {i + 1}",) for i in range(preamble)]
        cells.append(samm.COLUMNS)
        for subject, filename, onset, apex, offset, emotion, objective in rows:
            line = len(cells) + 1
            length = offset - onset + 1 if isinstance(offset, int) and isinstance(onset, int) else 0
            formula = f"=SUM(F{line}-D{line})+1"
            duration = (formula, length) if stored else formula
            frames = (onset, apex, offset, duration)
            cells.append((subject, filename, 1, *frames, "Micro - 1/2", "4A or 5 ", emotion, objective))
        return save(path, {"MICRO_ONLY": cells})

    return write


@pytest.fixture(scope="session")
def casme3_sheet() -> Writer:
    """`casme3_sheet(path, rows, extra=(), sheet="label")`; rows in the order of the authors' columns."""

    def write(
        path: Path, rows: Sequence[Sequence[Any]], extra: Sequence[Any] = (), sheet: str = "label"
    ) -> Path:
        return save(path, {sheet: [(*casme3.COLUMNS, *extra), *rows], "Sheet3": []})

    return write


@pytest.fixture(scope="session")
def smic_sheet() -> Writer:
    """`smic_sheet(path, rows, pairs=3)`; rows of subject, filename, emotion and (onset, length) pairs.

    OffsetF, FirstF and LastF are formulas with stored values, FirstF one into the sheet `VIS`, as in
    the original. A pair of a formula and its value may stand for a length, and any text for an onset.
    """

    def write(path: Path, rows: Sequence[Sequence[Any]], pairs: int = 3) -> Path:
        left_out = set() if pairs == 3 else {7, 8, 14}
        cells: list[list[Any]] = [list(smic.COLUMNS)]
        vis: list[list[Any]] = [list(smic.VIS_COLUMNS)]
        # The formulas name columns of the form without the third pair where that is written.
        total = "M" if pairs == 3 else "K"
        for subject, filename, emotion, *spans in rows:
            line = len(cells) + 1
            row: list[Any] = [None] * len(smic.COLUMNS)
            row[0], row[1], row[16] = subject, filename, emotion
            for i, (onset, length) in enumerate(spans):
                value = length[1] if isinstance(length, tuple) else length
                row[3 + 2 * i] = onset
                row[12 + i] = length
                if i == 0:
                    row[4] = (f"=D{line}+{total}{line}-1", onset + value - 1)
                else:
                    row[4 + 2 * i] = onset + value - 1
            first = spans[0][0] - 50 if spans else 0
            row[10] = (f"=VIS!I{line}*4", first)
            row[11] = first + 200
            cells.append(row)
            vis.append([subject, filename, None, 1, 2, None, None, None, first / 4, 2, None, 9, emotion])
        cells = [[cell for i, cell in enumerate(row) if i not in left_out] for row in cells]
        return save(path, {"HS": cells, "VIS": vis, "Sheet2": [], "Sheet3": []})

    return write


@pytest.fixture
def touch() -> Callable[..., Path]:
    """`touch(root, "a/b/1.jpg", ...)`: makes empty files; neither reader nor locator decodes one."""

    def make(root: Path, *names: str) -> Path:
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return root

    return make
