"""Recomputes plain formulas whose stored value a re-saved workbook lost.

SAMM's `Duration` and SMIC-E's frame columns are formulas. A program that does not compute (openpyxl, some
converters) writes them without values; what such sheets use is arithmetic, cell references and SUM, which
this module evaluates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)(?![A-Za-z0-9_!])
      | (?P<function>[A-Za-z]+)\(
      | (?P<sheet>'(?:[^']|'')+'!|[^\s'!()+\-*/,:;=<>&\[\]]+!)?
        \$?(?P<column>[A-Za-z]{1,3})\$?(?P<row>\d+)(?::\$?(?P<column2>[A-Za-z]{1,3})\$?(?P<row2>\d+))?
      | (?P<operator>[-+*/(),])
    )""",
    re.VERBOSE,
)


class UncomputableError(ValueError):
    """A formula uses something beyond arithmetic, references and the few known functions."""


_FUNCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "SUM": sum,
    "MIN": min,
    "MAX": max,
    "ABS": lambda values: abs(values[0]),
}


def column_number(letters: str) -> int:
    """Returns the 1-based number of a column given by letters.

    >>> column_number("A"), column_number("AB")
    (1, 28)
    """
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


class FormulaEvaluator:
    """Evaluates formulas of one workbook.

    Args:
        lookup: Called with (sheet name, row, column), both 1-based; returns the cell's stored value, or its
            formula text starting with `=` where no value is stored.

    >>> cells = {(1, 1): 40, (1, 2): 12, (1, 3): "=SUM(A1-B1)+1"}
    >>> FormulaEvaluator(lambda sheet, row, column: cells.get((row, column))).cell("MICRO_ONLY", 1, 3)
    29.0
    """

    def __init__(self, lookup: Callable[[str, int, int], Any]):
        self._lookup = lookup
        self._open: set[tuple[str, int, int]] = set()

    def cell(self, sheet: str, row: int, column: int) -> Any:
        """Returns the value of one cell, computing its formula if it has no stored value.

        Raises:
            UncomputableError: The formula, or one it refers to, is not plain arithmetic.
        """
        value = self._lookup(sheet, row, column)
        if not (isinstance(value, str) and value.startswith("=")):
            return value
        key = (sheet, row, column)
        if key in self._open:
            raise UncomputableError(f"circular reference at {sheet}!R{row}C{column}")
        self._open.add(key)
        try:
            parser = _Parser(value[1:], sheet, self)
            result = parser.expression()
            parser.end()
            return result
        finally:
            self._open.discard(key)

    def number(self, sheet: str, row: int, column: int) -> float:
        """Returns a referred cell as a number; an empty cell counts 0, as in a spreadsheet."""
        value = self.cell(sheet, row, column)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UncomputableError(f"{sheet}!R{row}C{column} holds {value!r}, not a number")
        return float(value)


class _Parser:
    """Recursive descent over one formula."""

    def __init__(self, text: str, sheet: str, book: FormulaEvaluator):
        self._sheet = sheet
        self._book = book
        self._tokens: list[re.Match[str]] = []
        position = 0
        text = text.strip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise UncomputableError(f"cannot compute '={text}'")
            self._tokens.append(match)
            position = match.end()
        self._next = 0

    def _operator(self) -> str | None:
        if self._next < len(self._tokens):
            return self._tokens[self._next]["operator"]
        return None

    def end(self) -> None:
        if self._next != len(self._tokens):
            raise UncomputableError("text after the end of a formula")

    def expression(self) -> float:
        value = self._term()
        while (operator := self._operator()) in ("+", "-"):
            self._next += 1
            right = self._term()
            value = value + right if operator == "+" else value - right
        return value

    def _term(self) -> float:
        value = self._factor()
        while (operator := self._operator()) in ("*", "/"):
            self._next += 1
            right = self._factor()
            if operator == "/" and right == 0:
                raise UncomputableError("division by zero")
            value = value * right if operator == "*" else value / right
        return value

    def _factor(self) -> float:
        operator = self._operator()
        if operator in ("+", "-"):
            self._next += 1
            value = self._factor()
            return -value if operator == "-" else value
        if operator == "(":
            self._next += 1
            value = self.expression()
            self._close()
            return value
        if self._next >= len(self._tokens) or operator is not None:
            raise UncomputableError("incomplete formula")
        token = self._tokens[self._next]
        self._next += 1
        if token["number"] is not None:
            return float(token["number"])
        if token["function"] is not None:
            return self._call(token["function"].upper())
        values = self._reference(token)
        if len(values) != 1:
            raise UncomputableError("a range stands where a number is needed")
        return values[0]

    def _call(self, name: str) -> float:
        if name not in _FUNCTIONS:
            raise UncomputableError(f"function {name} is not known")
        values: list[float] = []
        while True:
            token = self._tokens[self._next] if self._next < len(self._tokens) else None
            if token is not None and token["column2"] is not None:
                self._next += 1
                values.extend(self._reference(token))
            else:
                values.append(self.expression())
            if self._operator() == ",":
                self._next += 1
                continue
            self._close()
            return float(_FUNCTIONS[name](values))

    def _close(self) -> None:
        if self._operator() != ")":
            raise UncomputableError("a bracket is not closed")
        self._next += 1

    def _reference(self, token: re.Match[str]) -> list[float]:
        sheet = self._sheet
        if token["sheet"] is not None:
            sheet = token["sheet"][:-1]
            if sheet.startswith("'"):
                sheet = sheet[1:-1].replace("''", "'")
        column, row = column_number(token["column"]), int(token["row"])
        column2 = column_number(token["column2"]) if token["column2"] else column
        row2 = int(token["row2"]) if token["row2"] else row
        return [
            self._book.number(sheet, r, c)
            for r in range(min(row, row2), max(row, row2) + 1)
            for c in range(min(column, column2), max(column, column2) + 1)
        ]
