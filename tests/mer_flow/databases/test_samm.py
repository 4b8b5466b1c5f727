"""SAMM: header by content, formula durations, text subjects, folders."""

from __future__ import annotations

import openpyxl
import pytest

from mer_flow.databases import get_database
from mer_flow.synthetic.layouts.samm import COLUMNS
from mer_flow.work.errors import LayoutError, SheetError

ROWS = [
    ("006", "006_1_2", 100, 120, 140, "Anger", 3),
    ("028", "028_4_1", 1000, 900, 1061, "Sadness", 7),
    ("032", "032_3_1", 4000, 4090, 4075, "Contempt", 7),
    ("035", "035_7_2", 50, 60, 90, "Other", 1),
]


@pytest.fixture
def samm():
    return get_database("samm")


@pytest.mark.parametrize("preamble", [0, 1, 9, 13])
def test_the_header_is_found_by_content(samm, samm_sheet, tmp_path, preamble):
    reading = samm.read_sheet(samm_sheet(tmp_path / "a.xlsx", ROWS, preamble=preamble))
    first = reading.table["samm/006/006_1_2"]
    assert (first.subject, first.onset, first.apex, first.offset) == ("samm/006", 100, 120, 140)
    assert (first.emotion, first.action_units, first.objective_class) == ("anger", "4A or 5", 3)
    assert (reading.form, reading.rows) == ("micro-only", 4)
    assert reading.corrections[0].row == preamble + 3  # as a spreadsheet shows it


def test_subjects_that_became_numbers_are_padded_again(samm, samm_sheet, tmp_path):
    numbers = [(int(row[0]), *row[1:]) for row in ROWS]
    plain = samm.read_sheet(samm_sheet(tmp_path / "a.xlsx", ROWS))
    assert samm.read_sheet(samm_sheet(tmp_path / "b.xlsx", numbers)).table == plain.table
    assert plain.table.subjects == ("samm/006", "samm/028", "samm/032", "samm/035")


def test_an_old_xls_copy_is_read(samm, workbook, tmp_path):
    header = (*COLUMNS[:6], "Estimated Emotion")
    path = workbook(
        tmp_path / "a.xls", {"MICRO_ONLY": [("title",), header, (6, "006_1_2", 1, 1.0, 2.0, 3.0, "Fear ")]}
    )
    sample = samm.read_sheet(path).table[0]
    assert (sample.subject, sample.apex, sample.emotion) == ("samm/006", 2, "fear")


def test_the_two_reviewed_apexes_become_midpoints_and_others_unknown(samm, samm_sheet, tmp_path):
    rows = [*ROWS, ("036", "036_1_1", 10, 45, 40, "Fear", 2)]
    reading = samm.read_sheet(samm_sheet(tmp_path / "a.xlsx", rows))
    one, two = reading.table["samm/028/028_4_1"], reading.table["samm/032/032_3_1"]
    assert (one.apex, one.apex_source) == (1030, "midpoint")
    assert (two.apex, two.apex_source) == (4037, "midpoint")
    assert [(c.sample_id, c.column, c.old, c.new) for c in reading.corrections] == [
        ("samm/028/028_4_1", "apex", 900, 1030),
        ("samm/032/032_3_1", "apex", 4090, 4037),
    ]
    assert all(c.reason and c.source for c in reading.corrections)
    other = reading.table["samm/036/036_1_1"]
    assert (other.apex, other.apex_source) == (-1, "none")


def test_a_mended_copy_is_left_alone(samm, samm_sheet, tmp_path):
    rows = [("028", "028_4_1", 1000, 1042, 1061, "Sadness", 7)]
    reading = samm.read_sheet(samm_sheet(tmp_path / "a.xlsx", rows))
    assert reading.corrections == ()
    assert (reading.table[0].apex, reading.table[0].apex_source) == (1042, "sheet")


def test_a_resaved_copy_without_formula_values_is_recomputed(samm, samm_sheet, tmp_path):
    path = samm_sheet(tmp_path / "a.xlsx", ROWS)
    book = openpyxl.load_workbook(path)  # keeps the formulas and loses their values
    book.save(tmp_path / "b.xlsx")
    reading = samm.read_sheet(tmp_path / "b.xlsx")
    assert reading.table == samm.read_sheet(path).table
    assert any("4 formula(s)" in warning and "recomputed" in warning for warning in reading.warnings)
    assert not any("Duration" in warning for warning in reading.warnings)


def test_a_duration_that_contradicts_the_frames_is_said(samm, workbook, tmp_path):
    header = (*COLUMNS[:2], *COLUMNS[3:7], "Estimated Emotion")
    rows = [header, ("013", "013_1_9", 10, 20, 40, 31, "Fear"), ("013", "013_1_8", 10, 20, 40, 82, "Fear")]
    reading = samm.read_sheet(workbook(tmp_path / "a.xlsx", {"x": rows}))
    assert [w for w in reading.warnings if "Duration" in w] == [
        "row 3 (013_1_8): Duration is 82, but offset - onset + 1 is 31; the frames are trusted"
    ]


def test_odd_names_are_dropped_or_trusted(samm, samm_sheet, tmp_path):
    rows = [
        ("006", "notes", 1, 2, 3, "Fear", 1),
        ("006", "007_1_2", 1, 2, 3, "Fear", 9),
        (None, "009_1_2", 1, 2, 3, "Fear", 1),
    ]
    reading = samm.read_sheet(samm_sheet(tmp_path / "a.xlsx", rows))
    assert [row.key for row in reading.dropped] == ["006/notes"]
    assert reading.table.sample_ids == ("samm/007/007_1_2", "samm/009/009_1_2")
    assert any("'006' and Filename '007_1_2' differ" in warning for warning in reading.warnings)
    assert any("'9' is no objective class" in warning for warning in reading.warnings)


def test_sheets_that_are_not_samms(samm, casme2_sheet, workbook, tmp_path):
    with pytest.raises(SheetError, match=r"a CASME II coding sheet, not a sheet of samm\. Use --db casme2"):
        samm.read_sheet(casme2_sheet(tmp_path / "a.xlsx", [("01", "EP02_01f", 1, 2, 3, "fear")]))
    header = (*COLUMNS[:3], "Onset", "Apex", "Offset", "Duration", "Type", "Action Units")
    with pytest.raises(SheetError, match="SAMM Long Videos: it has no emotions"):
        samm.read_sheet(
            workbook(tmp_path / "b.xlsx", {"x": [header, ("006", "006_1_2", 1, 1, 2, 3, 3, "Micro", 4)]})
        )
    header = (*COLUMNS[:4], "Offset Frame", "Estimated Emotion")
    with pytest.raises(SheetError, match=r"version of SAMM's sheet.*lacks column\(s\) 'Apex Frame'"):
        samm.read_sheet(workbook(tmp_path / "c.xlsx", {"x": [header, ("006", "006_1_2", 1, 1, 3, "Fear")]}))


@pytest.mark.parametrize(
    ("files", "release"),
    [
        (("SAMM/SAMM/006/006_1_2/006_05562.jpg", "SAMM/SAMM/035/035_7_2/035_0050.jpg"), "raw"),
        (("6/006_1_2/006_5562.jpg", "35/035_7_2/a.png"), "raw"),
        (("SAMM_CROP/006/006_1_2/1.jpg", "SAMM_CROP/035/035_7_2/1.jpg"), "cropped"),
    ],
)
def test_layouts(samm, samm_sheet, touch, tmp_path, files, release):
    touch(tmp_path, *files)
    table = samm.read_sheet(samm_sheet(tmp_path / "a.xlsx", ROWS)).table
    locator = samm.locate(tmp_path)
    assert (locator.release, locator.frames_are_cropped) == (release, release == "cropped")
    assert locator.folder(table["samm/006/006_1_2"]).name == "006_1_2"
    assert locator.folder(table["samm/035/035_7_2"]).name == "035_7_2"
    assert locator.folder(table["samm/028/028_4_1"]) is None


def test_a_root_without_clips(samm, touch, tmp_path):
    touch(tmp_path, "006/readme.txt")
    with pytest.raises(LayoutError, match=r"SAMM/006/006_1_2/006_05562.jpg; found: 006"):
        samm.locate(tmp_path)
