"""The synthetic sheets have the real formats, quirks included."""

from __future__ import annotations

import numpy as np
import openpyxl
import pytest

from mer_flow.databases import get_database
from mer_flow.synthetic import synthetic_databases
from mer_flow.synthetic.casting import AMPLITUDE_BANDS, Plan
from mer_flow.synthetic.layouts import casme2, casme3, samm, smic
from mer_flow.synthetic.tree import twin_of

DATABASES = ("casme2", "samm", "smic", "casme3")


def plan_of(database: str, subjects: int = 6, clips: int = 6, seed: int = 0) -> Plan:
    rng = np.random.default_rng([seed, DATABASES.index(database), 0])
    return twin_of(database).plan(subjects, clips, rng)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Sheets of the default size, without frames: folder and plan per database."""
    folder = tmp_path_factory.mktemp("sheets")
    plans = {}
    for name in DATABASES:
        (folder / name).mkdir()
        plans[name] = plan_of(name)
        twin_of(name).write_sheets(folder / name, plans[name])
    return folder, plans


def rows_of(path, sheet, formulas=False):
    book = openpyxl.load_workbook(path, data_only=not formulas)
    return [list(row) for row in book[sheet].iter_rows(values_only=True)]


def test_casme2_sheet(written):
    folder, plans = written
    path = folder / "casme2" / casme2.SHEET
    assert openpyxl.load_workbook(path).sheetnames == ["Sheet1", "Sheet2", "Sheet3"]
    header, *rows = rows_of(path, "Sheet1")
    assert header == [
        *("Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None),
        *("Action Units", "Estimated Emotion"),
    ]
    assert len(rows) == 36
    assert {row[0] for row in rows} == {"01", "02", "03", "04", "05", "06"}
    assert all(row[2] is None and row[6] is None for row in rows)
    assert [row[4] for row in rows].count("/") == 1
    assert [row[7] for row in rows].count("?") == 1
    assert {type(row[7]) for row in rows} == {int, str}
    assert sum(row[4] == row[5] for row in rows) == 1
    assert all(row[8] == row[8].lower() for row in rows)
    assert {"others", "sadness", "repression"} <= {row[8] for row in rows}
    names = plans["casme2"].quirks["irregular-name"]
    assert len(names) == 3
    assert {len(name.rpartition("/")[2].split("_")) for name in names} == {1, 2, 3}
    objective = rows_of(folder / "casme2" / casme2.OBJECTIVE_SHEET, "Sheet1")
    assert objective[0] == ["Subject", "Filename", "Objective Class"]
    assert [row[:2] for row in objective[1:]] == [row[:2] for row in rows]
    assert {row[2] for row in objective[1:]} <= set(range(1, 8))


def test_samm_sheet(written):
    folder, plans = written
    path = folder / "samm" / samm.SHEET
    assert openpyxl.load_workbook(path).sheetnames == ["MICRO_ONLY"]
    lines = rows_of(path, "MICRO_ONLY")
    assert [cell for row in lines[:13] for cell in row[1:] if cell is not None] == []
    assert lines[13] == [
        *("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame"),
        *("Duration", "Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes"),
    ]
    rows, formulas = lines[14:], rows_of(path, "MICRO_ONLY", formulas=True)[14:]
    assert len(rows) == 36
    for number, (row, formula) in enumerate(zip(rows, formulas, strict=True), start=15):
        assert formula[6] == f"=SUM(F{number}-D{number})+1"
        assert row[6] == row[5] - row[3] + 1  # the cached value
        assert row[1].startswith(row[0] + "_") and len(row[0]) == 3
        assert row[1].split("_")[1] == str(row[2])
        assert row[7] == "Micro - 1/2"
        assert row[9][0].isupper() and row[9][1:].islower()
    assert sum(not row[3] <= row[4] <= row[5] for row in rows) == 1
    assert "Other" in {row[9] for row in rows}
    assert any(str(row[8]).endswith(" ") for row in rows)
    assert any(" or " in str(row[8]) for row in rows)
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    widths = {len(clip.pattern.format(n=1).partition("_")[2]) - len(".jpg") for clip in plans["samm"].clips}
    assert widths == {4, 5}


def test_smic_sheet(written):
    folder, plans = written
    path = folder / "smic" / smic.SHEET
    assert openpyxl.load_workbook(path).sheetnames == ["HS", "VIS", "Sheet2", "Sheet3"]
    header, *rows = rows_of(path, "HS")
    assert header == [
        *("Subject", "Filename", None, "OnsetF", "OffsetF", "Onset2F", "Offset2F", "Onset3F", "Offset3F"),
        *(None, "FirstF", "LastF", "TotalMF1", "TotalMF2", "TotalMF3", "TotalVL", "Emotion"),
    ]
    formulas = rows_of(path, "HS", formulas=True)[1:]
    assert len(rows) == 35  # one of the 36 clips is the second expression of another's row
    clips = {clip.cells["filename"]: clip for clip in plans["smic"].clips}
    for row, formula in zip(rows, formulas, strict=True):
        clip = clips[row[1]]
        assert isinstance(row[0], int) and row[1].startswith(f"s{row[0]}_")
        assert (row[3], row[4]) == (clip.onset, clip.offset)
        assert str(formula[4]).startswith("=D") and str(formula[10]).startswith("=")
        assert row[10] < row[3] and row[11] >= row[4] and row[15] == row[11] - row[10] + 1
    into_vis = [row for row in formulas if str(row[10]).startswith("=VIS!")]
    assert len(into_vis) == 12  # subjects 12 and 19
    second = [row for row in rows if row[5] is not None]
    assert [row[1] for row in second] == ["s3_ne_02"]
    assert second[0][14] < 0  # a dragged formula: no third expression
    differing = [row for row in rows if "_sur_" in row[1] and row[16] == "negative"]
    assert len(differing) == 1
    digits = {len(clip.pattern.format(n=clip.onset)) - len("image.bmp") for clip in plans["smic"].clips}
    assert digits == {6, 7, 8}


def test_casme3_sheet(written):
    folder, plans = written
    path = folder / "casme3" / casme3.SHEET
    assert openpyxl.load_workbook(path).sheetnames == ["label", "Sheet1", "Sheet3"]
    header, *rows = rows_of(path, "label")
    assert header == ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"]
    assert len(rows) == 36
    assert {row[6] for row in rows} <= {"I", "II", "III", "IV", "V", "VI", "VII"}
    assert all(isinstance(row[5], str) for row in rows)
    assert [row[7] for row in rows].count("Others") == 1
    assert sum(row[4] == 0 for row in rows) == 1
    assert sum(row[3] == row[2] for row in rows) == 1
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    upper = [clip for clip in plans["casme3"].clips if clip.cells["filename"].isupper()]
    assert len(upper) == 1
    assert upper[0].folder.split("/")[2] == upper[0].cells["filename"].lower()
    missing = [clip for clip in plans["casme3"].clips if clip.missing]
    assert len(missing) == 4 and sum(clip.apex in clip.missing for clip in missing) == 1
    videos = [clip.folder for clip in plans["casme3"].clips]
    assert len(set(videos)) < len(videos)  # some videos hold two micro-expressions


@pytest.mark.parametrize("database", DATABASES)
def test_readers_take_every_sheet_row(written, database):
    folder, plans = written
    sheet = twin_of(database).SHEET
    reading = get_database(database).read_sheet(folder / database / sheet)
    clips = {clip.sample_id: clip for clip in plans[database].clips}
    assert set(reading.table.sample_ids) == set(clips)
    odd = {name for ids in plans[database].quirks.values() for name in ids}
    for sample in reading.table:
        clip = clips[sample.sample_id]
        assert sample.onset == clip.onset
        assert sample.emotion == clip.role.emotion
        if sample.sample_id not in odd:
            assert sample.offset == clip.offset
            assert sample.apex == (clip.apex if database != "smic" else -1)


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("subjects, clips", [(1, 1), (2, 3), (30, 4), (3, 13)])
def test_any_size_can_be_planned(database, subjects, clips):
    plan = plan_of(database, subjects, clips)
    ids = [clip.sample_id for clip in plan.clips]
    assert len(set(ids)) == len(ids) == subjects * clips
    assert len({clip.sample_id.split("/")[1] for clip in plan.clips}) == subjects
    for clip in plan.clips:
        assert clip.onset < clip.apex <= clip.offset
        assert clip.onset - clip.padding > 0
        assert AMPLITUDE_BANDS[0][0] <= clip.role.amplitude <= AMPLITUDE_BANDS[-1][1]
    files = [(clip.folder, n) for clip in plan.clips for n in range(clip.onset - 2, clip.offset + 3)]
    assert len(set(files)) == len(files)  # clips of one video do not touch
    if subjects * clips < 6:
        assert not plan.quirks


@pytest.mark.parametrize("database", DATABASES)
def test_plan_follows_the_seed(database):
    assert plan_of(database, seed=3) == plan_of(database, seed=3)
    assert plan_of(database, seed=3) != plan_of(database, seed=4)


@pytest.mark.parametrize("database", DATABASES)
def test_every_class_and_band_occurs(database):
    plan = plan_of(database)
    kinds = [clip.role.kind for clip in plan.clips]
    assert kinds.count("n") >= 15 and kinds.count("p") == 9 and kinds.count("s") == 9
    bands = [sum(clip.role.amplitude >= low for low, _ in AMPLITUDE_BANDS) for clip in plan.clips]
    assert all(bands.count(band) >= 6 for band in range(1, 5))


def test_every_twin_has_a_random_stream_of_its_own():
    ours = [name for name in synthetic_databases() if name in DATABASES]
    assert ours == list(DATABASES)  # in the order of their streams
    assert [twin_of(name).STREAM for name in DATABASES] == [0, 1, 2, 3]
