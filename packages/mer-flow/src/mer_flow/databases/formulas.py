"""Recomputes plain formulas whose stored value a re-saved workbook lost.

SAMM's `Duration` and SMIC-E's frame columns are formulas. A program that does not compute (openpyxl, some
converters) writes them without values; what such sheets use is arithmetic, cell references and SUM.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

from mer_flow.databases.limits import MOST_DEPTH, MOST_READS

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


def _flat(function: Callable[[list[float]], float]) -> Callable[..., float]:
    """Let a function of numbers take ranges too, which are lists."""
    return lambda *values: function([n for v in values for n in (v if isinstance(v, list) else [v])])


_FUNCTIONS = {
    "SUM": _flat(sum),
    "MIN": _flat(min),
    "MAX": _flat(max),
    "ABS": _flat(lambda values: abs(values[0])),
}


_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """Compute a syntax tree of arithmetic; anything else is a KeyError or a ValueError."""
    match node:
        case ast.Constant(value=float() as number):
            return number
        case ast.Name(id=name):
            return names[name]
        case ast.UnaryOp(op=sign, operand=inner):
            return _OPERATORS[type(sign)](_value(inner, names))
        case ast.BinOp(left=left, op=sign, right=right):
            return _OPERATORS[type(sign)](_value(left, names), _value(right, names))
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]):
            return _FUNCTIONS[name](*(_value(inner, names) for inner in given))
    raise ValueError(f"{type(node).__name__} is not arithmetic")


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
        self._known: dict[tuple[str, int, int], float | UncomputableError] = {}
        self._reads = 0

    def cell(self, sheet: str, row: int, column: int) -> Any:
        """Return the value of one cell, computing its formula if it has no stored value.

        Raises:
            UncomputableError: The formula, or one it refers to, is not plain arithmetic, or needs more than
                `limits.MOST_DEPTH` others in a row or `limits.MOST_READS` cells.
        """
        self._reads += 1
        if self._reads > MOST_READS:
            raise UncomputableError(f"its formulas read more than {MOST_READS} cells")
        value = self._lookup(sheet, row, column)
        if not (isinstance(value, str) and value.startswith("=")):
            return value
        key = (sheet, row, column)
        if key not in self._known:
            self._known[key] = self._first(key, value[1:].strip())
        known = self._known[key]
        if isinstance(known, UncomputableError):
            raise UncomputableError(str(known))
        return known

    def _first(self, key: tuple[str, int, int], formula: str) -> float | UncomputableError:
        if key in self._open:
            return UncomputableError(f"circular reference at {key[0]}!R{key[1]}C{key[2]}")
        if len(self._open) >= MOST_DEPTH:
            return UncomputableError(f"more than {MOST_DEPTH} formulas need each other in a row")
        self._open.add(key)
        try:
            return self._compute(formula, key[0])
        except UncomputableError as error:
            return error
        finally:
            self._open.discard(key)

    def _compute(self, formula: str, sheet: str) -> float:
        names: dict[str, Any] = {}
        words: list[str] = []
        position = 0
        while position < len(formula):
            token = _TOKEN.match(formula, position)
            if token is None:
                raise UncomputableError(f"cannot compute '={formula}'")
            position = token.end()
            if token["number"]:
                words.append(repr(float(token["number"])))
            elif token["function"]:
                words += [token["function"].upper(), "("]
            elif token["operator"]:
                words.append(token["operator"])
            else:
                names[f"ref{position}"] = self._reference(token, sheet)
                words.append(f"ref{position}")
        try:
            result = _value(ast.parse(" ".join(words), mode="eval").body, names)
        except (
            SyntaxError,
            KeyError,
            TypeError,
            ValueError,
            ArithmeticError,
            RecursionError,
            MemoryError,
        ) as error:
            raise UncomputableError(f"cannot compute '={formula}': {error}") from error
        if not isinstance(result, int | float):
            raise UncomputableError(f"'={formula}' gives no number")
        return float(result)

    def _reference(self, token: re.Match[str], sheet: str) -> float | list[float]:
        from openpyxl.utils import column_index_from_string as column_number

        if token["sheet"]:
            sheet = token["sheet"][:-1].removeprefix("'").removesuffix("'").replace("''", "'")
        column, row = column_number(token["column"]), int(token["row"])
        if not token["column2"]:
            return self._number(sheet, row, column)
        if (abs(int(token["row2"]) - row) + 1) * (
            abs(column_number(token["column2"]) - column) + 1
        ) > MOST_READS:
            raise UncomputableError(f"{token[0].strip()} has more than {MOST_READS} cells")
        rows, columns = sorted((row, int(token["row2"]))), sorted((column, column_number(token["column2"])))
        return [
            self._number(sheet, r, c)
            for r in range(rows[0], rows[1] + 1)
            for c in range(columns[0], columns[1] + 1)
        ]

    def _number(self, sheet: str, row: int, column: int) -> float:
        value = self.cell(sheet, row, column)
        if value is None:  # an empty cell counts 0, as in a spreadsheet
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UncomputableError(f"{sheet}!R{row}C{column} holds {value!r}, not a number")
        return float(value)
