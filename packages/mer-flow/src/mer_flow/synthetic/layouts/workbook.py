"""Workbooks whose bytes depend on their content alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from mer_flow.work.errors import MissingDependencyError


@contextmanager
def new_workbook(path: Path) -> Iterator[Any]:
    """Opens an `xlsxwriter.Workbook` that is written when the block ends.

    Raises:
        MissingDependencyError: XlsxWriter is absent.
    """
    try:
        import xlsxwriter
    except ImportError as error:
        raise MissingDependencyError(
            f"writing the synthetic sheets needs XlsxWriter ({error}); "
            "install it with: pip install 'mer-flow[demo]'"
        ) from error
    workbook = xlsxwriter.Workbook(str(path))
    # Otherwise the time of writing goes into the file.
    workbook.set_properties({"created": datetime(2020, 1, 1)})
    yield workbook
    workbook.close()


def write_header(sheet: Any, row: int, names: tuple[str, ...]) -> None:
    """Writes a header row; an empty name leaves its cell blank."""
    for column, name in enumerate(names):
        if name:
            sheet.write_string(row, column, name)
