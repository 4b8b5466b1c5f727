"""Which database an annotation sheet is of, told by its columns alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mer_flow.databases.registry import DATABASES, database_names
from mer_flow.databases.sheets import Grid, SheetMatch, find_form, read_workbook
from mer_flow.work.errors import SheetError


def fitting(grids: Sequence[Grid]) -> Iterator[tuple[str, SheetMatch]]:
    """Yield every usable database that has a form for a workbook's columns, and where they match."""
    for name, database in DATABASES.usable():
        if (match := find_form(grids, database.forms)) is not None:
            yield name, match


def recognise_sheet(path: Path) -> tuple[str, str]:
    """Recognise the database of an annotation sheet.

    Args:
        path: The workbook, or a CSV file.

    Returns:
        The database's name, and what a person calls such a sheet. A form that gives no samples counts where
            nothing else fits: its reader says why.

    Raises:
        SheetError: The file cannot be read, or it has the columns of no database, or of several.
    """
    grids = read_workbook(path)
    found = {name: match.form.title for name, match in fitting(grids)} or {
        name: form.title
        for name, database in DATABASES.usable()
        for form, _ in database.refused
        if find_form(grids, [form]) is not None
    }
    if len(found) != 1:
        names = ", ".join(sorted(found or database_names()))
        whose = "several databases; give" if found else "no database; to hear what it lacks, give"
        raise SheetError(f"annotation sheet {path} has the columns of {whose} --db with one of {names}")
    ((name, title),) = found.items()
    return name, title
