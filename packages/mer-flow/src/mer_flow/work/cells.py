"""Cells of exported tables that a spreadsheet shows as text and does not compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: What a cell begins with that spreadsheets take for a formula.
FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(value: Any) -> Any:
    """Return a cell of a CSV file, a text that looks like a formula with an apostrophe before it.

    Source: https://owasp.org/www-community/attacks/CSV_Injection

    >>> safe_cell("=HYPERLINK(0)"), safe_cell("samm/006"), safe_cell(-3)
    ("'=HYPERLINK(0)", 'samm/006', -3)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_MARKS) else value


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV, without its index; no cell of it is a formula."""
    safe = table.copy()
    texts = safe.select_dtypes(exclude="number").columns
    safe[texts] = safe[texts].map(safe_cell)
    return safe.rename(columns=safe_cell).to_csv(index=False)


def plain_cell(value: Any) -> Any:
    """Return a cell as it was before `safe_cell`.

    >>> plain_cell(safe_cell("=1+1")), plain_cell("'tis")
    ('=1+1', "'tis")
    """
    marked = isinstance(value, str) and value[:1] == "'" and value[1:].startswith(FORMULA_MARKS)
    return value[1:] if marked else value
