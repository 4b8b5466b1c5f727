"""The SampleTable: its order, its look-ups, and the rows that it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.mer_flow.stores import sample_of

from mer_flow.samples import COLUMNS, MOST_FRAMES, UNKNOWN_FRAME, Sample, SampleTable, row_fault
from mer_flow.work.errors import SheetError

ROW = sample_of("samm", "006", "006_1_2", "anger")
ROWS = [
    ROW,
    sample_of("casme2", "s10", "c2", "disgust"),
    sample_of("casme2", "s2", "c10", "surprise"),
    sample_of("samm", "006", "006_1_1", "fear"),
]
IDS = ("samm/006/006_1_2", "casme2/s10/c2", "casme2/s2/c10", "samm/006/006_1_1")


def test_a_table_keeps_the_order_of_the_sheet_and_finds_rows_by_place_and_id() -> None:
    table = SampleTable(iter(ROWS))
    assert list(table) == ROWS and len(table) == 4
    assert table.sample_ids == IDS
    assert table.subjects == ("samm/006", "casme2/s10", "casme2/s2")
    assert table.databases == ("samm", "casme2")
    assert table[2] == table["casme2/s2/c10"] == ROWS[2] and table[-1] == ROWS[3]
    assert "casme2/s2/c10" in table and "casme2/s2/c1" not in table
    assert table.select([IDS[3], IDS[1]]).sample_ids == (IDS[3], IDS[1])
    assert table == SampleTable(ROWS) != SampleTable(ROWS[::-1]) and table != ROWS
    assert repr(table) == "SampleTable(4 samples, 3 subjects)"


def test_columns_have_their_types_and_a_frame_has_them_all() -> None:
    table = SampleTable(ROWS)
    for name in ("onset", "apex", "offset", "objective_class"):
        assert table.column(name).dtype == np.int64
    assert table.column("fps").dtype == np.float64 and table.column("emotion").dtype == object
    assert table.column("clip").tolist() == ["006_1_2", "c2", "c10", "006_1_1"]
    frame = table.to_frame()
    assert tuple(frame.columns) == COLUMNS
    assert frame.sample_id.tolist() == list(IDS) and frame.offset.tolist() == [31] * 4
    unknown = SampleTable([replace(ROW, apex=UNKNOWN_FRAME)]).column("apex")
    assert unknown.dtype == np.int64 and unknown.tolist() == [-1]


def test_an_id_that_occurs_twice_is_refused_by_name() -> None:
    with pytest.raises(SheetError, match=r"1 sample_id\(s\) occur more than once: samm/006/006_1_2\. "):
        SampleTable([*ROWS, ROW])
    many = [sample_of("smic", "s1", f"c{i}", "negative") for i in range(1, 7)]
    with pytest.raises(SheetError, match=r"6 sample_id.*: smic/s1/c1, .*, smic/s1/c5 \.\.\."):
        SampleTable([*many, *many])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"onset": MOST_FRAMES, "offset": -MOST_FRAMES, "emotion": "", "clip": "É 1"}, ""),
        ({"sample_id": "casme2/006/a"}, "must begin with 'samm/', and sample_id does not"),
        ({"sample_id": "a/b"}, "sample_id 'a/b' and subject 'samm/006' must begin with 'samm/'"),
        ({"subject": "006"}, "must begin with 'samm/', and subject does not"),
        ({"sample_id": "samm/006/."}, "it has a part '.'"),
        ({"sample_id": "samm/006/.."}, "it has a part '..'"),
        ({"subject": "samm//6"}, "it has a part ''"),
        ({"subject": "samm/ "}, "it has a part ' '"),
        ({"database": "samm/006", "subject": "samm/006/a"}, "cannot name a database"),
        ({"emotion": "an\x07ger"}, "emotion 'an\\x07ger' holds the control character '\\x07'"),
        ({"clip": "\ud800"}, "clip '\\ud800' holds the control character"),
        ({"apex": 10**9 + 1}, "apex is 1000000001, expected a number up to 1000000000"),
        ({"onset": -(10**9) - 1}, "onset is -1000000001, expected"),
        ({"fps": float("nan")}, "fps is nan, expected"),
        ({"fps": float("inf")}, "fps is inf, expected"),
    ],
)  # fmt: skip
def test_a_row_whose_names_or_numbers_cannot_be_is_told(changes: dict[str, object], fault: str) -> None:
    row: Sample = replace(ROW, **changes)
    assert fault in row_fault(row)
    assert bool(fault) == bool(row_fault(row))
