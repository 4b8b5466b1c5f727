"""What a sheet or frame may be at most, checked before it is parsed: annotation sheets come by mail.

The largest published sheet (CAS(ME)^3 Part A) has some 3,400 rows and unpacks to 1 MB; the largest frame has
2.2 million pixels. What is larger than the limits here is no sheet and no frame of this field.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mer_flow.work.errors import SheetError

#: Bytes of a sheet's file, and of everything in it unpacked.
MOST_BYTES = 16 << 20
#: How many times larger a workbook may unpack, once it is larger than `_SMALL`.
MOST_RATIO = 100
#: XML elements of a workbook, opened or closed.
MOST_ELEMENTS = 600_000
#: Rows and columns with content, and characters of one cell (Excel's own limit).
MOST_ROWS, MOST_COLUMNS, MOST_TEXT = 20_000, 256, 32_767
#: Formulas that may need each other in a row, and cells that all of a workbook's may read.
MOST_DEPTH, MOST_READS = 100, 200_000
#: Pixels of a frame or map, and bytes of its file.
MOST_PIXELS, MOST_IMAGE_BYTES = 1 << 25, 256 << 20

_SMALL = 4 << 20
#: Rows of an Excel sheet; whole columns may be formatted.
_EXCEL_ROWS = 1 << 20
_ENTITIES = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)


def check_file(path: Path) -> None:
    """Refuse the file of a sheet that is larger than any."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise _too_large(path, f"{size / 1e6:.1f} MB", f"{MOST_BYTES / 1e6:.1f} MB")


def check_archive(path: Path, content: bytes) -> None:
    """Refuse a workbook (`.xlsx`) that unpacks to more than memory or patience hold; nothing is parsed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MOST_BYTES:
            raise _too_large(path, f"{unpacked / 1e6:.1f} MB unpacked", f"{MOST_BYTES / 1e6:.1f} MB")
        if unpacked > max(_SMALL, MOST_RATIO * len(content)):
            raise _too_large(path, f"{unpacked / len(content):.0f} times its size", f"{MOST_RATIO} times")
        elements = 0
        for entry in archive.infolist():
            part = archive.read(entry)
            if _ENTITIES.search(part):
                raise SheetError(f"annotation sheet {path} declares XML entities, which no workbook needs")
            elements += part.count(b"<")
    if elements > MOST_ELEMENTS:
        raise _too_large(path, f"{elements} XML elements", str(MOST_ELEMENTS))


def within(path: Path, sheet: str, rows: Iterable[Iterable[Any]]) -> list[tuple[Any, ...]]:
    """Return a sheet's rows, the first `MOST_ROWS`; refuse a cell beyond them, or one that is too long."""
    kept: list[tuple[Any, ...]] = []
    last = 0
    for number, row in enumerate(rows, start=1):
        cells = tuple(row)
        wide = next((i for i in range(len(cells), 0, -1) if cells[i - 1] is not None), 0)
        if not wide and MOST_ROWS < number <= _EXCEL_ROWS:
            continue
        last = number if wide or number > _EXCEL_ROWS else last
        if last > MOST_ROWS or wide > MOST_COLUMNS:
            where = f"sheet '{sheet}' reaches to row {last}, column {wide}"
            raise _too_large(path, where, f"{MOST_ROWS} rows of {MOST_COLUMNS} columns")
        if long := next((cell for cell in cells if isinstance(cell, str) and len(cell) > MOST_TEXT), None):
            raise _too_large(path, f"a cell of {len(long)} characters in row {number}", str(MOST_TEXT))
        kept.append(cells[:MOST_COLUMNS])
    return kept


def _too_large(path: Path, found: str, expected: str) -> SheetError:
    return SheetError(
        f"annotation sheet {path} is too large to be one: {found}, expected {expected} at most. "
        "Copy it again from the authors' release, or delete what lies beside the table in it."
    )
