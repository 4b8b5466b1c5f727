"""Cells of exported tables that a spreadsheet shows as text and does not compute."""

from __future__ import annotations

from typing import Any

#: What a cell begins with that spreadsheets take for a formula.
FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(value: Any) -> Any:
    """Return a cell of a CSV file, a text that looks like a formula with an apostrophe before it.

    Source: https://owasp.org/www-community/attacks/CSV_Injection

    >>> safe_cell("=HYPERLINK(0)"), safe_cell("samm/006"), safe_cell(-3)
    ("'=HYPERLINK(0)", 'samm/006', -3)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_MARKS) else value


def plain_cell(value: Any) -> Any:
    """Return a cell as it was before `safe_cell`.

    >>> plain_cell(safe_cell("=1+1")), plain_cell("'tis")
    ('=1+1', "'tis")
    """
    marked = isinstance(value, str) and value[:1] == "'" and value[1:].startswith(FORMULA_MARKS)
    return value[1:] if marked else value
