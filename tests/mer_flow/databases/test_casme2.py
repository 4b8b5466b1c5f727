"""CASME II: sheet forms, marks, objective classes, folders."""

from __future__ import annotations

import re

import pytest

from mer_flow.databases import get_database
from mer_flow.work.errors import LayoutError, SheetError, UsageError

ROWS = [
    ("01", "EP02_01f", 46, 59, 86, "happiness", "6+12"),
    ("04", "EP12_01f", 261, "/", 321, "disgust", 4),
    ("05", "EP09_05f", 69, 69, 90, "disgust", "?"),
    ("26", "EP09f", 10, 20, 30, "others", "L2"),
]


@pytest.fixture
def casme2():
    return get_database("casme2")


@pytest.mark.parametrize("name", ["CASME2-coding-20140508.xlsx", "any other name.xlsx", "misnamed.xls"])
def test_coding_form_is_read_whatever_the_file_is_called(casme2, casme2_sheet, tmp_path, name):
    reading = casme2.read_sheet(casme2_sheet(tmp_path / name, ROWS))
    first = reading.table["casme2/sub01/EP02_01f"]
    assert (first.subject, first.onset, first.apex, first.offset) == ("casme2/sub01", 46, 59, 86)
    assert (first.emotion, first.action_units, first.apex_source, first.fps) == (
        "happiness",
        "6+12",
        "sheet",
        200.0,
    )
    assert reading.table["casme2/sub04/EP12_01f"].action_units == "4"
    assert (reading.form, reading.rows) == ("coding", 4)


def test_an_xlsx_saved_under_an_xls_name_is_read(casme2, casme2_sheet, tmp_path):
    path = casme2_sheet(tmp_path / "a.xlsx", ROWS).rename(tmp_path / "CASME2_label.xls")
    assert len(casme2.read_sheet(path).table) == 4


def test_subjects_as_numbers_and_frames_as_text_are_read_alike(casme2, casme2_sheet, tmp_path):
    text_rows = [
        (int(s), f" {clip} ", str(a), str(b), float(c), e.upper(), au) for s, clip, a, b, c, e, au in ROWS
    ]
    plain = casme2.read_sheet(casme2_sheet(tmp_path / "a.xlsx", ROWS))
    other = casme2.read_sheet(casme2_sheet(tmp_path / "b.xlsx", text_rows))
    assert plain.table == other.table


def test_the_older_xls_without_blank_columns(casme2, casme2_sheet, tmp_path):
    reading = casme2.read_sheet(casme2_sheet(tmp_path / "CASME2_label_Ver_2.xls", ROWS, compact=True))
    assert reading.form == "coding-compact"
    assert reading.table["casme2/sub26/EP09f"].offset == 30


@pytest.mark.parametrize("mark", ["/", "", None, "-", "?", 0, "n/a"])
def test_missing_marks_leave_the_apex_unknown(casme2, casme2_sheet, tmp_path, mark):
    reading = casme2.read_sheet(
        casme2_sheet(tmp_path / "a.xlsx", [("04", "EP12_01f", 261, mark, 321, "disgust")])
    )
    sample = reading.table[0]
    assert (sample.apex, sample.apex_source) == (-1, "none")
    assert any("row 2 (sub04/EP12_01f)" in warning for warning in reading.warnings)


def test_apex_equal_to_onset_is_kept_and_said(casme2, casme2_sheet, tmp_path):
    reading = casme2.read_sheet(casme2_sheet(tmp_path / "a.xlsx", ROWS))
    assert reading.table["casme2/sub05/EP09_05f"].apex == 69
    assert any("1 sample(s) have apex == onset" in w and "sub05/EP09_05f" in w for w in reading.warnings)


def test_bad_rows_are_recorded_and_the_rest_goes_on(casme2, casme2_sheet, tmp_path):
    bad = [
        ROWS[0],
        ("01", "EP02_01f", 46, 59, 86, "happiness"),
        ("01", "EP02_01f", 47, 59, 86, "happiness"),
        ("02", "EP01_01", "x12", 30, 40, "others"),
        ("02", "EP01_02", None, 30, 40, "others"),
        ("02", "EP01_03", 50, 45, 40, "others"),
        ("two", "EP01_04", 1, 2, 3, "others"),
        ("02", None, 1, 2, 3, "others"),
        ("02", "EP01_05", 10, "/", "/", "others"),
        ("02", "EP01_06", 10, 5, 40, "others"),
        ("02", "EP01_07", 10, 45, 40, "others"),
        ("02", "EP01_08", 10, "late", 40, "others"),
        (None, None, None, None, None, None, None),
        ROWS[3],
    ]
    reading = casme2.read_sheet(casme2_sheet(tmp_path / "a.xlsx", bad))
    reasons = {row.row: row.reason for row in reading.dropped}
    assert reasons[3] == "an exact duplicate of row 2, which is kept"
    assert reasons[4].startswith("another reading (47, 59, 86")
    assert "'x12' is not a frame number" in reasons[5]
    assert reasons[6] == "no onset"
    assert reasons[7] == "offset 40 lies before onset 50"
    assert "'two' is no subject number" in reasons[8]
    assert reasons[9] == "no Filename"
    assert reasons[10] == "neither apex nor offset is known"
    assert len(reasons) == 8
    kept = [s.clip for s in reading.table]
    assert kept == ["EP02_01f", "EP01_06", "EP01_07", "EP01_08", "EP09f"]
    assert [s.apex for s in reading.table][1:4] == [-1, -1, -1]
    said = "\n".join(reading.warnings)
    assert "row 11 (sub02/EP01_06): apex 5 lies outside [10, 40]" in said
    assert "row 12 (sub02/EP01_07): apex 45 lies outside [10, 40]" in said
    assert "row 13 (sub02/EP01_08): apex: 'late' is not a frame number" in said


def test_objective_classes_lying_next_to_the_sheet_are_joined(casme2, casme2_sheet, workbook, tmp_path):
    path = casme2_sheet(tmp_path / "coding.xlsx", ROWS)
    assert all(s.objective_class == 0 for s in casme2.read_sheet(path).table)
    rows = [
        ("Subject", "Filename", "Objective Class"),
        ("01", "EP02_01f", 6),
        (4, "EP12_01f", 7),
        ("26", "ep09f", "III"),
    ]
    workbook(tmp_path / "renamed by somebody.xlsx", {"Sheet1": rows})
    (tmp_path / "broken.xlsx").write_bytes(b"PK\x03\x04 not a workbook")
    reading = casme2.read_sheet(path)
    assert [s.objective_class for s in reading.table] == [6, 7, 0, 3]
    assert any("broken.xlsx" in warning for warning in reading.warnings)


def test_the_objective_file_given_as_the_sheet_is_refused(casme2, workbook, tmp_path):
    path = workbook(
        tmp_path / "a.xlsx", {"Sheet1": [("Subject", "Filename", "Objective Class"), ("01", "EP02_01f", 6)]}
    )
    with pytest.raises(SheetError, match="objective classes: it has no frame numbers"):
        casme2.read_sheet(path)


def test_a_missing_column_is_named_with_what_the_sheet_has(casme2, workbook, tmp_path):
    rows = [
        ("Subject", "Filename", "OnsetFrame", "OffsetFrame", "Estimated Emotion"),
        ("01", "EP02_01f", 1, 3, "x"),
    ]
    path = workbook(tmp_path / "a.xlsx", {"Sheet1": rows})
    with pytest.raises(
        SheetError, match=r"lacks column\(s\) 'ApexFrame'; it has: Subject, Filename, OnsetFrame"
    ):
        casme2.read_sheet(path)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (
            "Subject,Filename",
            r"The nearest: sheet 'a', row 1, lacks .*'ApexFrame'.*it has: Subject, Filename\.",
        ),
        ("Subject,Name", r"No sheet has a header row with such columns; sheets: 'a' \(2 rows\)"),
    ],
)
def test_two_columns_make_a_sheet_the_nearest_and_one_does_not(casme2, tmp_path, header, told):
    (tmp_path / "a.csv").write_text(f"{header}\n1,EP01\n")
    with pytest.raises(SheetError, match=told):
        casme2.read_sheet(tmp_path / "a.csv")


def test_another_databases_sheet_is_recognised(casme2, samm_sheet, casme3_sheet, tmp_path):
    samm = samm_sheet(tmp_path / "a.xlsx", [("006", "006_1_2", 10, 20, 30, "Anger", 1)])
    with pytest.raises(SheetError, match=r"a SAMM sheet, not a sheet of casme2\. Use --db samm"):
        casme2.read_sheet(samm)
    casme3 = casme3_sheet(tmp_path / "b.xlsx", [("spNO.1", "a", "1", "2", "3", "4", "I", "happy")])
    with pytest.raises(SheetError, match="Use --db casme3"):
        casme2.read_sheet(casme3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"PK\x03\x04 truncated", "cannot be read"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 truncated", "cannot be read"),
        (b"\x00\x01\x02", "neither a workbook"),
        (b"", "no known version of CASME II's sheet"),
        (b"just,some\ntext,here\n", "No sheet has a header row"),
    ],
)
def test_unreadable_sheets_say_why_and_what_to_do(casme2, tmp_path, content, message):
    path = tmp_path / "sheet.xlsx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SheetError, match=message) as caught:
        casme2.read_sheet(path)
    assert str(path) in str(caught.value)


def test_a_folder_given_as_the_sheet_is_called_one(casme2, tmp_path):
    with pytest.raises(SheetError, match=re.escape(f"annotation sheet {tmp_path} is a folder; give the wor")):
        casme2.read_sheet(tmp_path)


def test_a_csv_copy_is_read(casme2, tmp_path):
    path = tmp_path / "copy.csv"
    path.write_text(
        "Subject,Filename,OnsetFrame,ApexFrame,OffsetFrame,Action Units,Estimated Emotion\n"
        "01,EP1,1,2,3,4,Fear\n"
    )
    assert casme2.read_sheet(path).table[0].emotion == "fear"


def test_find_sheet_looks_at_content_and_prefers_a_published_version(
    casme2, casme2_sheet, workbook, tmp_path
):
    assert casme2.find_sheet(tmp_path) is None
    with pytest.raises(SheetError, match=re.escape(f"no annotation sheet below {tmp_path}. Expected a")):
        casme2.read(tmp_path, None)
    workbook(tmp_path / "a list.xlsx", {"Sheet1": [("nothing", "here")]})
    (tmp_path / "a truncated copy.xlsx").write_bytes(b"PK\x03\x04 truncated")
    (tmp_path / "~$open.xlsx").write_bytes(b"lock")
    (tmp_path / "deep").mkdir()
    casme2_sheet(tmp_path / "my selection.xlsx", ROWS)
    rows = [(f"{i % 26 + 1:02d}", f"EP01_{i}", 10, 20, 30, "others") for i in range(255)]
    whole = casme2_sheet(tmp_path / "deep" / "z.xlsx", rows)
    assert casme2.find_sheet(tmp_path) == whole
    assert casme2.read(tmp_path, None).version == "20140508/20190701"
    nearer = casme2_sheet(tmp_path / "z.xlsx", rows)
    assert casme2.find_sheet(tmp_path) == nearer


def test_the_256_row_sheet_is_known_and_said(casme2, casme2_sheet, tmp_path):
    rows = [(f"{i % 26 + 1:02d}", f"EP01_{i}", 10, "/" if i < 21 else 20, 30, "others") for i in range(256)]
    reading = casme2.read_sheet(casme2_sheet(tmp_path / "a.xlsx", rows))
    assert reading.version == "updated"
    assert sum(s.apex_source == "none" for s in reading.table) == 21
    assert any("256-row" in warning for warning in reading.warnings)


LAYOUTS = {
    "raw": ("CASME2_RAW/CASME2-RAW/sub01/EP02_01f/img{n}.jpg", False),
    "selected": ("CASME2_RAW_selected/CASME2_RAW_selected/sub01/EP02_01f/img{n}.jpg", False),
    "cropped": ("Cropped-updated/Cropped/sub01/EP02_01f/reg_img{n}.jpg", True),
}


@pytest.mark.parametrize("release", LAYOUTS)
@pytest.mark.parametrize("strip", [0, 1, 2])
def test_each_release_is_found_from_any_folder_above_the_subjects(
    casme2, casme2_sheet, touch, tmp_path, release, strip
):
    pattern, cropped = LAYOUTS[release]
    first = 1 if release == "raw" else 46
    touch(tmp_path / "copy", *(pattern.format(n=n) for n in range(first, 50)), "readme.pdf")
    root = (tmp_path / "copy").joinpath(*pattern.split("/")[:strip])
    sample = casme2.read_sheet(casme2_sheet(tmp_path / "a.xlsx", ROWS)).table[0]
    locator = casme2.locate(root)
    assert (locator.release, locator.frames_are_cropped) == (release, cropped)
    assert locator.folder(sample) == (tmp_path / "copy" / pattern).parent


@pytest.mark.parametrize(
    ("name", "release"),
    [("img1.jpg", "raw"), ("img46.jpg", "selected"), ("REG_img46.jpg", "cropped"), ("Thumbs.db", "selected")],
)
def test_a_renamed_root_is_told_by_its_files(casme2, touch, tmp_path, name, release):
    touch(tmp_path / "faces", f"sub01/EP02_01f/{name}")
    assert casme2.locate(tmp_path / "faces").release == release


def test_releases_side_by_side_can_be_chosen(casme2, casme2_sheet, touch, tmp_path):
    for pattern, _ in LAYOUTS.values():
        touch(tmp_path, pattern.format(n=46))
    touch(
        tmp_path,
        "Cropped-updated/Cropped/sub01/Desktop - Shortcut.lnk",
        "Cropped-updated/Cropped/SUB5/ep09_05F/a1.jpg",
    )
    table = casme2.read_sheet(casme2_sheet(tmp_path / "a.xlsx", ROWS)).table
    assert casme2.locate(tmp_path).release == "raw"
    locator = casme2.locate(tmp_path, "cropped")
    assert locator.folder(table[0]).parts[-3:] == ("Cropped", "sub01", "EP02_01f")
    assert locator.folder(table[2]).name == "ep09_05F"  # letter case and padding differ
    assert locator.folder(table[3]) is None
    with pytest.raises(UsageError, match="unknown release of casme2 'croped'; did you mean 'cropped'"):
        casme2.locate(tmp_path, "croped")


def test_folders_without_a_row_are_told(casme2, casme2_sheet, touch, tmp_path):
    touch(tmp_path, "Cropped/sub01/EP02_01f/reg_img46.jpg", "Cropped/sub09/EP02_02f/reg_img1.jpg")
    table = casme2.read_sheet(casme2_sheet(tmp_path / "a.xlsx", ROWS)).table
    assert [p.name for p in casme2.locate(tmp_path).without_row(table)] == ["EP02_02f"]


def test_wrong_roots_say_what_was_expected_and_found(casme2, touch, tmp_path):
    with pytest.raises(LayoutError, match=r"does not exist. Expected .*sub01/EP02_01f/img46.jpg"):
        casme2.locate(tmp_path / "nowhere")
    touch(tmp_path, "holiday/a.jpg", "file.txt")
    with pytest.raises(LayoutError, match=r"no known release \(raw, selected, cropped\).*found: holiday"):
        casme2.locate(tmp_path)
    with pytest.raises(LayoutError, match="is a file"):
        casme2.locate(tmp_path / "file.txt")
    touch(tmp_path, "Cropped/sub01/EP02_01f/reg_img46.jpg")
    with pytest.raises(LayoutError, match=r"has no clips of release 'raw'; it has: cropped \(1 clips\)"):
        casme2.locate(tmp_path, "raw")


def test_a_refused_workbook_below_the_root_is_named(casme2, tmp_path):
    csv = tmp_path / "coding.csv"
    csv.write_text(
        "Subject,Filename,OnsetFrame,Apx,OffsetFrame,Action Units,Estimated Emotion\n1,EP01,1,2,3,4,x\n"
    )
    with pytest.raises(SheetError, match=r"coding\.csv .*lacks column\(s\) 'ApexFrame'"):
        casme2.read(tmp_path, None)
    (tmp_path / "notes.csv").write_text("a,b\n")
    with pytest.raises(
        SheetError, match=r"None of these is one: coding\.csv, notes\.csv\..*why a file is refused"
    ):
        casme2.read(tmp_path, None)
