"""CAS(ME)^3: sheet forms, Roman numerals, corrections, folders; the published v2 sheet itself."""

from __future__ import annotations

from collections import Counter

import pytest

from mer_flow.databases import get_database
from mer_flow.databases.completeness import compare
from mer_flow.labels import apply_scheme
from mer_flow.work.errors import LayoutError, SheetError

ROWS = [
    ("spNO.1", "a", "355", "359", "360", "5", "II", "others"),
    ("spNO.1", "a", "10", "12", "20", "4", "VII", "disgust"),
    ("spNO.14", "J", "28", "30", "40", "R12", "i", "Happy"),
    ("spNO.168", "a", "7", "7", "20", "T28+14", "V", "Others"),
]
V2 = "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"


@pytest.fixture
def casme3():
    return get_database("casme3")


def test_rows_of_the_jpgindex_form(casme3, casme3_sheet, tmp_path):
    table = casme3.read_sheet(casme3_sheet(tmp_path / "whatever.xlsx", ROWS)).table
    names = ("spNO.1/a_355", "spNO.1/a_10", "spNO.14/J_28", "spNO.168/a_7")
    assert table.sample_ids == tuple(f"casme3/{name}" for name in names)
    assert [s.objective_class for s in table] == [2, 7, 1, 5]
    assert [s.emotion for s in table] == ["others", "disgust", "happy", "others"]
    assert (table[0].onset, table[0].apex, table[0].offset, table[0].fps) == (355, 359, 360, 30.0)


def test_numbers_xls_and_additional_columns_change_nothing(casme3, casme3_sheet, tmp_path):
    plain = casme3.read_sheet(casme3_sheet(tmp_path / "a.xlsx", ROWS)).table
    rows = [
        (s.replace("spNO.", "SPno. "), f, int(a), float(b), int(c), *r, 5, 4) for s, f, a, b, c, *r in ROWS
    ]
    v1 = casme3.read_sheet(casme3_sheet(tmp_path / "v1.xls", rows, extra=(None, None), sheet="Sheet1"))
    assert v1.table == plain
    shade = casme3.read_sheet(
        casme3_sheet(tmp_path / "b.xlsx", [(*r, "dark") for r in ROWS], extra=("shade",))
    )
    assert shade.table == plain


def test_corrections_apply_only_to_the_old_value(casme3, casme3_sheet, tmp_path):
    wrong = [
        ("spNO.149", "d", 112, 83, 358, "", "VII", "fear"),
        ("spNO.216", "d", 3647, 2668, 2694, "", "VII", "others"),
        ("spNO.216", "e", 0, 0, 25, "", "VII", "others"),
        ("spNO.40", "e", 1812, 1824, 0, "", "VII", "others"),
        ("spNO.40", "e", 2327, 2363, 0, "", "VII", "others"),
        ("spNO.214", "c", 5, 5, 3460, "", "VII", "disgust"),
    ]
    reading = casme3.read_sheet(casme3_sheet(tmp_path / "a.xlsx", wrong))
    assert {
        (c.row, c.sample_id.removeprefix("casme3/"), c.column, c.old, c.new) for c in reading.corrections
    } == {
        (2, "spNO.149/d_112", "apex", 83, 160),
        (3, "spNO.216/d_3647", "onset", 3647, 2647),
        (4, "spNO.216/e_0", "onset", 0, 1),
        (4, "spNO.216/e_0", "apex", 0, 1),
        (5, "spNO.40/e_1812", "offset", 0, 1845),
        (6, "spNO.40/e_2327", "offset", 0, 2403),
        (7, "spNO.214/c_5", "offset", 3460, 34),
    }
    assert all(s.onset <= s.apex <= s.offset for s in reading.table)
    sources = ["corrected", "sheet", "corrected", "sheet", "sheet", "sheet"]
    assert [s.apex_source for s in reading.table] == sources
    mended = [
        ("spNO.149", "d", 112, 167, 358, "", "VII", "fear"),
        ("spNO.40", "e", 1812, 1824, 1840, "", "I", "sad"),
    ]
    assert casme3.read_sheet(casme3_sheet(tmp_path / "b.xlsx", mended)).corrections == ()


def test_unreviewed_errors_are_recorded(casme3, casme3_sheet, tmp_path):
    rows = [
        ("spNO.1", "a", 50, 40, 60, "", "I", "sad"),
        ("spNO.1", "a", 70, 72, 60, "", "I", "sad"),
        ("spNO.1", "b", 70, 72, 0, "", "I", "sad"),
        ("spNO.1", "b", 70, 73, 90, "", "I", "sad"),
        ("nobody", "b", 70, 73, 90, "", "I", "sad"),
        ("spNO.1", "c", 70, 0, 90, "", "IX", "sad"),
        ("spNO.1", "d", 0, 0, 25, "", "I", "sad"),
    ]
    reading = casme3.read_sheet(casme3_sheet(tmp_path / "a.xlsx", rows))
    assert [(row.row, row.reason.split(",")[0]) for row in reading.dropped] == [
        (3, "offset 60 lies before onset 70"),
        (5, "another reading (70"),
        (6, "Subject is not spNO.<number>"),
    ]
    assert [(s.clip, s.apex, s.offset) for s in reading.table] == [
        ("a_50", -1, 60),
        ("b_70", 72, -1),
        ("c_70", -1, 90),
        ("d_0", -1, 25),
    ]
    assert any("row 8 (spNO.1/d_0): onset 0 is no frame; kept" in warning for warning in reading.warnings)
    assert any("offset 0 is no frame" in warning for warning in reading.warnings)
    assert any("'IX' is no objective class" in warning for warning in reading.warnings)


def test_the_au_emotion_form_leaves_macro_expressions_out(casme3, workbook, tmp_path):
    header = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Expression type", "Objective class")
    rows = [
        header,
        ("spNO.1", "a", 355, 359, 360, "5", "Micro-expression", "II"),
        ("spNO.1", "b", 300, 330, 400, "5", "Macro-expression", "II"),
        ("spNO.2", "a", 10, 12, 20, "4", "micro-expression", "VII"),
    ]
    old = [
        ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Valence", "emotion"),
        ("spNO.1", "A", 355, 359, 360, "5", -1, "disgust"),
    ]
    v2 = casme3.read_sheet(workbook(tmp_path / "v2.xls", {"AU+Emotion": rows, "eye blink": []}))
    assert (v2.form, v2.rows) == ("au-emotion", 2)
    assert [s.emotion for s in v2.table] == ["", ""]
    assert [(row.key, row.reason) for row in v2.dropped] == [("spNO.1/b", "a macro-expression")]
    assert set(apply_scheme(v2.table, "casme3-3").dropped.values()) == {"the sheet gives no emotion"}
    v1 = casme3.read_sheet(workbook(tmp_path / "v1.xls", {"AU+Emotion": rows, "Sheet1": old}))
    assert [s.emotion for s in v1.table] == ["disgust", ""]


def test_sheets_that_give_no_samples_say_what_they_are(casme3, casme3_sheet, workbook, tmp_path):
    part_c = [("sub", "count", "onset", "offset", "au", "emotion"), (1, 1, 10, 20, "4", "negative")]
    with pytest.raises(SheetError, match="Part C sheet: it counts frames by their order"):
        casme3.read_sheet(workbook(tmp_path / "c.xlsx", {"mockCrimeME": part_c}))
    old = [
        ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Valence", "emotion"),
        ("spNO.1", "a", 1, 2, 3, "", 1, "x"),
    ]
    with pytest.raises(SheetError, match="old CAS\\(ME\\)\\^3 list"):
        casme3.read_sheet(workbook(tmp_path / "old.xlsx", {"Sheet1": old}))
    macro = [(f"spNO.{i % 90 + 1}", "a", i, i + 1, i + 40, "4", "I", "sad") for i in range(2100)]
    with pytest.raises(SheetError, match="2100 rows: that is the macro-expression sheet"):
        casme3.read_sheet(casme3_sheet(tmp_path / "mae.xlsx", macro))
    with pytest.raises(SheetError, match="No sheet has a header row"):
        casme3.read_sheet(
            workbook(tmp_path / "wrong.xlsx", {"Sheet1": [("spNO.1", "a", 1, 2, 3, "4", "I", "sad")]})
        )


def test_v2_wins_over_v1_in_one_folder(casme3, casme3_sheet, tmp_path):
    rows = [(f"spNO.{i % 90 + 1}", "a", i + 1, i + 2, i + 4, "4", "I", "sad") for i in range(921)]
    casme3_sheet(tmp_path / "a_v1.xlsx", rows)
    v2 = casme3_sheet(tmp_path / "b_v2.xlsx", rows[:860])
    assert casme3.find_sheet(tmp_path) == v2
    assert casme3.read(tmp_path, None).version == "JpgIndex v2"


LAYOUTS = {
    "raw": "part_A_split/part_A/spNO.{s}/{l}/color/{n}.jpg",
    "clips": "Part_A_ME_clip/frame/spNO.{s}_{l}_{o}/{n}.jpg",
    "selected": "ME_A/spNO.{s}/{l}/color/{n}.jpg",
}


@pytest.mark.parametrize("release", LAYOUTS)
def test_each_layout(casme3, casme3_sheet, touch, tmp_path, release):
    table = casme3.read_sheet(casme3_sheet(tmp_path / "a.xlsx", ROWS)).table
    pattern = LAYOUTS[release]
    for s in table:
        letter, onset = s.clip.lower().split("_")
        if release == "selected" and s.clip == "a_10":
            letter = "a2"
        number = s.subject.rpartition(".")[2]
        touch(
            tmp_path / "copy",
            *(pattern.format(s=number, l=letter, o=onset, n=n) for n in range(s.onset, s.offset)),
        )
    depth = pattern.replace("/color/", "/depth/").replace("/frame/", "/depth/").replace(".jpg", ".png")
    touch(tmp_path / "copy", depth.format(s=1, l="a", o=355, n=355), "depth/spNO.1/a/166.png")
    touch(
        tmp_path / "copy", "Part_A_ME_clip/video/spNO.1_a_355.mp4", "Part_A_MaE_clip/frame/spNO.1_a_10/1.jpg"
    )
    locator = casme3.locate(tmp_path / "copy")
    assert (locator.release, locator.frames_are_cropped) == (release, False)
    for s in table:
        folder = locator.folder(s)
        assert (folder / f"{s.onset}.jpg").is_file(), s.sample_id
        assert "depth" not in folder.parts


def test_a_wrong_onset_still_names_its_folder(casme3, casme3_sheet, touch, tmp_path):
    row = ("spNO.216", "d", "3647", "2668", "2694", "", "VII", "others")
    table = casme3.read_sheet(casme3_sheet(tmp_path / "a.xlsx", [row])).table
    touch(tmp_path, "frame/spNO.216_d_3647/2668.jpg")
    assert table[0].onset == 2647
    assert casme3.locate(tmp_path).folder(table[0]).name == "spNO.216_d_3647"


def test_undivided_videos_and_depth_only_videos(casme3, casme3_sheet, touch, tmp_path):
    table = casme3.read_sheet(casme3_sheet(tmp_path / "a.xlsx", ROWS)).table
    touch(
        tmp_path, "part_A/spNO.1/a/355.jpg", "part_A/spNO.14/J/depth/28.png", "part_A/spNO.168/A/Color/7.jpg"
    )
    locator = casme3.locate(tmp_path)
    assert locator.folder(table[0]) == tmp_path / "part_A/spNO.1/a"
    assert locator.folder(table[2]) is None
    assert locator.folder(table[3]) == tmp_path / "part_A/spNO.168/A/Color"
    assert casme3.locate(tmp_path / "part_A").folders == locator.folders  # from right above the subjects
    with pytest.raises(LayoutError, match=r"frames such as part_A/spNO\.1/a/color/166\.jpg or .* found: x"):
        touch(tmp_path / "other", "x/1.jpg")
        casme3.locate(tmp_path / "other")


def test_of_equal_letters_the_folder_with_the_sample_s_frames_is_taken(
    casme3, casme3_sheet, touch, tmp_path, monkeypatch
):
    rows = [("spNO.1", "a", 20, 25, 30, "4", "I", "sad"), ("spNO.1", "a", 50, 0, 60, "4", "I", "sad")]
    table = casme3.read_sheet(casme3_sheet(tmp_path / "a.xlsx", rows)).table
    touch(
        tmp_path,
        "ME_A/spNO.1/a/depth/20.png",
        *(f"ME_A/spNO.1/a2/color/{n}.jpg" for n in range(20, 31)),
        *(f"ME_A/spNO.1/a3/color/{n}.jpg" for n in range(50, 61)),
    )
    monkeypatch.chdir(tmp_path / "ME_A/spNO.1/a2/color")  # where Python looks for the files of no folder
    locator = casme3.locate(tmp_path)
    assert [locator.folder(s) for s in table] == [
        tmp_path / "ME_A/spNO.1/a2/color",
        tmp_path / "ME_A/spNO.1/a3/color",
    ]


@pytest.mark.parametrize("root", ["", "CASME3", "CASME3/Part_A", "CASME3/Part_A/ME_A"])
def test_the_selected_release_is_told_from_any_folder_above_the_subjects(casme3, touch, tmp_path, root):
    touch(tmp_path, "CASME3/Part_A/ME_A/spNO.1/a/color/20.jpg")
    locator = casme3.locate(tmp_path / root)
    assert (locator.release, list(locator.folders)) == ("selected", ["1/a"])


def test_the_published_v2_sheet(casme3, shared_data):
    reading = casme3.read_sheet(shared_data / V2)
    table = reading.table
    assert (reading.version, len(table), len(table.subjects)) == ("JpgIndex v2", 860, 94)
    assert reading.dropped == ()
    assert Counter(s.emotion for s in table) == {
        "disgust": 250,
        "surprise": 187,
        "others": 161,
        "fear": 86,
        "anger": 64,
        "sad": 57,
        "happy": 55,
    }
    labelled = apply_scheme(table, "casme3-3")
    assert labelled.counts() == (457, 55, 187)
    assert len({table[i].subject for i in labelled.labels}) == 88
    assert labelled.dropped_by_reason() == {"emotion 'others' has no class in this scheme": 161}
    assert sorted({c.row for c in reading.corrections}) == [130, 710, 751, 752, 798, 800]
    assert len(reading.corrections) == 7
    assert all(s.onset <= s.apex <= s.offset for s in table)
    assert sum(s.apex == s.onset for s in table) == 55
    assert compare(reading) == ()


def test_the_published_v2_sheet_is_found_below_a_root(casme3, shared_data, tmp_path):
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "labels").write_bytes((shared_data / V2).read_bytes())
    assert casme3.find_sheet(tmp_path) is None  # no workbook's suffix
    (tmp_path / "sheets" / "labels").rename(tmp_path / "sheets" / "labels.xls")
    assert casme3.find_sheet(tmp_path) == tmp_path / "sheets" / "labels.xls"
