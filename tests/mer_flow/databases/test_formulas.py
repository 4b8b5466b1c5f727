"""Plain formulas without stored values, and what is beyond them."""

from __future__ import annotations

import pytest

from mer_flow.databases.formulas import FormulaEvaluator, UncomputableError

CELLS = {
    ("HS", 1, 1): 10,
    ("HS", 1, 2): 2.5,
    ("HS", 2, 1): "=A1*2",
    ("HS", 2, 2): "text",
    ("HS", 3, 1): "=A3+1",
    ("VIS", 1, 1): 7,
    ("my sheet", 1, 1): 8,
    ("it's", 1, 1): 9,
}


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("A1+B1-1", 11.5),
        ("SUM(A1-B1)+1", 8.5),
        ("SUM(A1:B1,A2)", 32.5),
        ("-(A1 - 2*3) / 4", -1.0),
        ("VIS!A1*4+$A$1", 38.0),
        ("'my sheet'!A1 + 'it''s'!A1", 17.0),
        ("SUM(VIS!A1:A2)", 7.0),
        ("Z99+1", 1.0),
        ("ABS(B1-A1)", 7.5),
        ("MAX(A1,B1)-MIN(A1,B1)", 7.5),
        ("1e2+.5", 100.5),
        ("+A2", 20.0),
    ],
)
def test_arithmetic(formula, value):
    cells = {**CELLS, ("HS", 9, 9): f"={formula}"}
    assert FormulaEvaluator(lambda *key: cells.get(key)).cell("HS", 9, 9) == value


@pytest.mark.parametrize(
    "formula",
    [
        "A3",
        "B2+1",
        "1/0",
        "VLOOKUP(A1,B1,2)",
        "IF(A1>2,1,0)",
        "A1+",
        "(A1",
        "A1 B1",
        "A1:B1",
        "[1]Book!A1",
        "SUM(A1",
        "",
    ],
)
def test_what_is_beyond_it_says_so(formula):
    cells = {**CELLS, ("HS", 9, 9): f"={formula}"}
    with pytest.raises(UncomputableError):
        FormulaEvaluator(lambda *key: cells.get(key)).cell("HS", 9, 9)
