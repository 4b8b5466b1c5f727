"""SMIC: folders of the basic release, SMIC-E sheets with several micro-expressions per row."""

from __future__ import annotations

import openpyxl
import pytest

from mer_flow.databases import get_database
from mer_flow.labels import apply_scheme
from mer_flow.work.errors import LayoutError, SheetError

ROWS = [
    (1, "s1_ne_01", "negative", (34208, 30)),
    (3, "s3_ne_02", "negative", (50000, 20), (50100, 11)),
    (4, "s4_ne_04", "negative", (60000, 20), (60100, 25), (60200, 30)),
    (9, "s9_sur_01", "surprise", (70000, 20), (70100, 25), (70100, 25)),
    (18, "s18_sur_03", "negative", (1200000, 20), (1200100, 15), (5, -1199000)),
    (20, "s20_po_01", "positive", (17581039, 40)),
]


@pytest.fixture
def smic():
    return get_database("smic")


def resaved(path):
    """Saves a copy as openpyxl does: formulas kept, their values lost."""
    copy = path.with_name(f"resaved {path.name}")
    openpyxl.load_workbook(path).save(copy)
    return copy


def test_several_micro_expressions_per_row(smic, smic_sheet, tmp_path):
    reading = smic.read_sheet(smic_sheet(tmp_path / "any name.xlsx", ROWS))
    assert (reading.form, reading.rows) == ("smic-e-hs", len(ROWS))
    spans = {s.sample_id.removeprefix("smic/"): (s.onset, s.offset) for s in reading.table}
    assert spans == {
        "s01/s1_ne_01": (34208, 34237),
        "s03/s3_ne_02": (50000, 50019),
        "s03/s3_ne_03": (50100, 50110),  # has no row of its own in this form
        "s04/s4_ne_04": (60000, 60019),
        "s04/s4_ne_05": (60100, 60124),
        "s04/s4_ne_06": (60200, 60229),
        "s09/s9_sur_01": (70000, 70019),
        "s09/s9_sur_02": (70100, 70124),
        "s18/s18_sur_03": (1200000, 1200019),
        "s18/s18_sur_03_me2": (1200100, 1200114),  # not among the 164, so it has no name
        "s20/s20_po_01": (17581039, 17581078),
    }
    assert all(
        (s.apex, s.apex_source, s.fps, s.objective_class) == (-1, "none", 100.0, 0) for s in reading.table
    )
    assert [(row.key, row.reason.split(":")[0]) for row in reading.dropped] == [
        ("s09/s9_sur_01 (micro-expression 3)", "repeats another onset and offset of its row"),
        ("s18/s18_sur_03 (micro-expression 3)", "TotalMF3 is '-1199000'"),
    ]
    assert not any("apex" in warning for warning in reading.warnings)  # SMIC never has one


@pytest.mark.parametrize(
    "second",
    [
        pytest.param((0, 5), id="not there"),
        pytest.param((60100, 0), id="of no length"),
        pytest.param((60000, 20), id="the first again"),
        pytest.param((60100, 25), id="with a row of its own"),
    ],
)
def test_a_third_micro_expression_outlives_a_second_that_is_none(smic, smic_sheet, tmp_path, second):
    rows = [(4, "s4_ne_04", "negative", (60000, 20), second, (60200, 30))]
    rows.append((4, "s4_ne_05", "negative", (60100, 25)))
    table = smic.read_sheet(smic_sheet(tmp_path / "a.xlsx", rows)).table
    assert {s.clip: (s.onset, s.offset) for s in table} == {
        "s4_ne_04": (60000, 60019),
        "s4_ne_05": (60100, 60124),
        "s4_ne_06": (60200, 60229),
    }


def test_a_subject_that_is_not_the_name_s_is_told(smic, smic_sheet, tmp_path):
    rows = [(5, "s5_po_01", "positive", (10, 20)), ("S05", "s5_po_02", "positive", (50, 20))]
    rows += [(6, "s5_po_03", "positive", (90, 20)), (None, "s5_po_04", "positive", (130, 20))]
    reading = smic.read_sheet(smic_sheet(tmp_path / "a.xlsx", rows))
    assert reading.table.subjects == ("smic/s05",)
    assert [warning for warning in reading.warnings if "differ" in warning] == [
        "row 4: Subject '6' and Filename 's5_po_03' differ; the name is trusted"
    ]


def test_the_name_is_trusted_over_the_emotion(smic, smic_sheet, tmp_path):
    rows = [ROWS[4], (5, "s5_po_01", "surprise", (10, 20)), (5, "s5_po_02", " Positive", (50, 20))]
    reading = smic.read_sheet(smic_sheet(tmp_path / "a.xlsx", rows))
    assert {s.clip: s.emotion for s in reading.table} == {
        "s18_sur_03": "surprise",
        "s18_sur_03_me2": "surprise",
        "s5_po_01": "positive",
        "s5_po_02": "positive",
    }
    assert {(c.row, c.sample_id, c.old, c.new) for c in reading.corrections} == {
        (2, "smic/s18/s18_sur_03", "negative", "surprise"),
        (3, "smic/s05/s5_po_01", "surprise", "positive"),
    }


def test_an_extra_with_a_row_of_its_own_is_not_doubled(smic, smic_sheet, tmp_path):
    rows = [ROWS[1], (3, "s3_ne_03", "negative", (50100, 11))]
    reading = smic.read_sheet(smic_sheet(tmp_path / "orig.xlsx", rows, pairs=2))
    assert [s.clip for s in reading.table] == ["s3_ne_02", "s3_ne_03"]
    assert reading.dropped[0].reason == "is s3_ne_03, which has a row of its own (3)"
    rows[1] = (3, "s3_ne_03", "negative", (50300, 11))
    reading = smic.read_sheet(smic_sheet(tmp_path / "b.xlsx", rows, pairs=2))
    assert [s.clip for s in reading.table] == ["s3_ne_02", "s3_ne_02_me2", "s3_ne_03"]


def test_trailing_text_and_padded_names(smic, smic_sheet, tmp_path):
    rows = [*ROWS[:1], (None, None, None), ("2", "S02_SUR_1", "surprise", (10, 20)), ("note", "see VIS", "")]
    reading = smic.read_sheet(smic_sheet(tmp_path / "a.xlsx", rows))
    assert reading.table.sample_ids == ("smic/s01/s1_ne_01", "smic/s02/s2_sur_01")
    assert [row.reason.split(",")[0] for row in reading.dropped] == [
        "no Filename",
        "Filename is not s<subject>_<ne|po|sur>_<number>",
    ]


def test_a_text_where_a_frame_belongs_drops_only_its_row(smic, workbook, tmp_path):
    header = ("Subject", "Filename", None, "OnsetF", "OffsetF", "FirstF", "LastF", "TotalVL", "Emotion")
    rows = [
        header,
        (3, "s3_ne_20", None, "MISSING <-426679", 20, "MISSING <-426679", 1, 1, "negative"),
        (3, "s3_ne_21", None, 10, 20, "MISSING <-426679", 1, 1, "negative"),
        (3, "s3_ne_22", None, 10, None, 1, 1, 1, "negative"),
    ]
    reading = smic.read_sheet(workbook(tmp_path / "a.xlsx", {"HS": rows}))
    assert reading.table.sample_ids == ("smic/s03/s3_ne_21",)
    assert [row.row for row in reading.dropped] == [2, 4]


def test_a_resaved_copy_is_recomputed_across_sheets(smic, smic_sheet, tmp_path):
    path = smic_sheet(tmp_path / "a.xlsx", ROWS)
    reading = smic.read_sheet(resaved(path))
    assert reading.table == smic.read_sheet(path).table
    assert any("12 formula(s) of sheet 'HS' had lost their value" in warning for warning in reading.warnings)


def test_lost_values_that_cannot_be_recomputed_are_an_error_with_a_remedy(smic, workbook, tmp_path):
    header = ("Subject", "Filename", None, "OnsetF", "OffsetF", "LastF", "Emotion")
    rows = [header, (1, "s1_ne_01", None, 10, ("=VLOOKUP(B2,VIS!A:C,3)", 20), 30, "negative")]
    path = workbook(tmp_path / "a.xlsx", {"HS": rows, "VIS": []})
    assert smic.read_sheet(path).table[0].offset == 20
    with pytest.raises(
        SheetError, match=r"1 cell\(s\) of column\(s\) OffsetF are formulas .*row 2.*LibreOffice"
    ):
        smic.read_sheet(resaved(path))


def test_the_vis_sheet_is_read_at_its_own_rate(smic, workbook, tmp_path):
    header = ("Subject", "Filename", None, "OnsetF", "OffsetF", "Onset2F", "Offset2F", None)
    header += ("FirstF", "TotalMF1", "TotalMF2", "TotalVL", "Emotion")
    rows = [header, (11, "s11_po_01", None, 100, 108, 120, 130, None, 90, 9, 11, 80, "positive")]
    reading = smic.read_sheet(workbook(tmp_path / "a.xlsx", {"VIS": rows}))
    assert (reading.form, [s.clip for s in reading.table]) == ("smic-e-vis", ["s11_po_01", "s11_po_01_me2"])
    assert {s.fps for s in reading.table} == {25.0}
    assert set(apply_scheme(reading.table, "megc3").dropped.values()) == {
        "a further micro-expression of a long clip, not among the 164 of the basic release",
        "the composite uses the high-speed recordings (SMIC-HS), not VIS or NIR",
    }


RAW = "SMIC_all_raw/HS/s{s}/micro/{e}/s{s}_{c}_{k}/image{n:06d}.bmp"
CROPPED = "SMIC_all_cropped/HS/s{s}/micro/{e}/s{s}_{c}_{k}/reg_image{n:06d}.bmp"
LONG = "SMIC-E_raw image/HS_long/SMIC-HS-E/s{s:02d}/s{s}_{c}_{k}/image{n:06d}.jpg"


def frames(pattern, *, s, c, k, n):
    e = {"ne": "negative", "po": "positive", "sur": "surprise"}[c]
    return [pattern.format(s=s, c=c, k=k, e=e, n=i) for i in n]


@pytest.mark.parametrize(("pattern", "release"), [(RAW, "raw"), (CROPPED, "cropped")])
def test_the_basic_release_is_read_from_its_folders(smic, touch, tmp_path, pattern, release):
    touch(tmp_path, *frames(pattern, s=1, c="ne", k="01", n=range(34208, 34238)))
    touch(tmp_path, *frames(pattern, s=12, c="sur", k="02", n=[1200000, 1200001, 1200003]), "Thumbs.db")
    touch(tmp_path, *frames(pattern, s=2, c="po", k="10", n=[17581039, 17581050]))
    touch(tmp_path, RAW.replace("micro", "non_micro").format(s=1, c="ne", k="09", e="negative", n=5))
    (tmp_path / frames(pattern, s=3, c="ne", k="01", n=[1])[0]).parent.mkdir(parents=True)
    reading = smic.read(tmp_path, None)
    assert {s.sample_id: (s.onset, s.offset, s.emotion) for s in reading.table} == {
        "smic/s01/s1_ne_01": (34208, 34237, "negative"),
        "smic/s02/s2_po_10": (17581039, 17581050, "positive"),
        "smic/s12/s12_sur_02": (1200000, 1200003, "surprise"),
    }
    assert (reading.form, reading.rows) == ("folders", 4)
    assert [(row.row, row.key) for row in reading.dropped] == [(0, "s03/s3_ne_01")]
    assert any("s12/s12_sur_02: 1 frame(s) are missing" in warning for warning in reading.warnings)
    locator = smic.locate(tmp_path)
    assert (locator.release, locator.frames_are_cropped) == (release, release == "cropped")
    assert all(locator.folder(s).is_dir() for s in reading.table)


def test_a_clip_in_the_wrong_emotion_folder_keeps_its_name(smic, touch, tmp_path):
    touch(tmp_path, "SMIC_all_raw/HS/s01/micro/negative/s1_sur_01/image000100.bmp")
    reading = smic.read(tmp_path, None)
    assert reading.table[0].emotion == "surprise"
    assert [(c.row, c.old, c.new) for c in reading.corrections] == [(0, "negative", "surprise")]


def test_without_folders_of_emotions_the_names_say_them_and_nothing_is_corrected(smic, touch, tmp_path):
    touch(tmp_path, "SMIC_all_raw/HS/s1/micro/s1_po_01/image000100.bmp")
    reading = smic.read(tmp_path, None)
    assert [(s.clip, s.emotion) for s in reading.table] == [("s1_po_01", "positive")]
    assert reading.corrections == ()


def test_long_clips_hold_the_micro_expressions_without_a_folder(smic, smic_sheet, touch, tmp_path):
    path = smic_sheet(tmp_path / "somewhere.xlsx", ROWS)
    table = smic.read_sheet(path).table
    for s, c, k in [(1, "ne", "01"), (3, "ne", "02"), (4, "ne", "04"), (18, "sur", "03")]:
        touch(tmp_path, *frames(LONG, s=s, c=c, k=k, n=[1]))
    locator = smic.locate(tmp_path)
    assert (locator.release, locator.frames_are_cropped) == ("long", False)
    folders = {s.clip: locator.folder(s) for s in table}
    assert folders["s3_ne_03"] == folders["s3_ne_02"] is not None
    assert folders["s4_ne_06"].name == "s4_ne_04"
    assert folders["s18_sur_03_me2"].name == "s18_sur_03"
    assert folders["s20_po_01"] is None
    assert locator.without_row(table) == ()
    assert smic.read(tmp_path, None).path == path  # the sheet that lies with them
    path.unlink()
    with pytest.raises(SheetError, match="long clips of SMIC-E, but no sheet"):
        smic.read(tmp_path, None)


def test_the_folders_define_the_samples_even_beside_a_sheet(smic, smic_sheet, touch, tmp_path):
    path = smic_sheet(tmp_path / "sheet.xlsx", ROWS)
    touch(tmp_path, *frames(RAW, s=1, c="ne", k="02", n=[5, 6]))
    assert smic.read(tmp_path, None).table.sample_ids == ("smic/s01/s1_ne_02",)
    assert len(smic.read(tmp_path, path).table) == 11
    basic = smic.locate(tmp_path)
    assert basic.folder(smic.read_sheet(path).table["smic/s03/s3_ne_03"]) is None


def test_cameras_and_letter_case(smic, touch, tmp_path):
    hs = touch(tmp_path / "a", *frames(RAW, s=1, c="ne", k="01", n=[5]))
    touch(hs, *(name.replace("/HS/", "/VIS/") for name in frames(RAW, s=11, c="ne", k="01", n=[5])))
    assert smic.locate(hs).release == "raw"
    assert len(smic.locate(hs).folders) == 1
    assert list(smic.locate(hs, "raw-vis").folders) == ["s11_ne_01"]
    assert {s.fps for s in smic.read(hs / "SMIC_all_raw" / "VIS", None).table} == {25.0}
    touch(tmp_path / "b", "smic/hs/S1/MICRO/Negative/S1_NE_01/REG_image000005.BMP")
    locator = smic.locate(tmp_path / "b")
    assert (locator.release, list(locator.folders)) == ("cropped", ["s1_ne_01"])


def test_a_root_with_nothing_in_it(smic, tmp_path):
    with pytest.raises(
        LayoutError, match=r"Expected frames such as SMIC_all_raw/HS/s1/micro/negative/s1_ne_01"
    ):
        smic.read(tmp_path, None)
    with pytest.raises(LayoutError, match="does not exist"):
        smic.read(tmp_path / "nowhere", None)
    with pytest.raises(SheetError, match="no annotation sheet given"):
        smic.read(None, None)
