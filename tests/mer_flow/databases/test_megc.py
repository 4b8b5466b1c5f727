"""`megc3` on whole copies made up around the organisers' public list gives exactly that list."""

from __future__ import annotations

from collections import Counter

import pytest

from mer_flow.databases import get_database
from mer_flow.databases.completeness import compare, load, megc2019
from mer_flow.labels import apply_scheme, megc_key

CASME2_OBJECTIVE = {1: 25, 2: 15, 3: 99, 4: 26, 5: 20, 6: 1, 7: 69}
SAMM_OBJECTIVE = {1: 24, 2: 13, 3: 20, 4: 8, 5: 3, 6: 7, 7: 84}
NAMES = {1: "happiness", 2: "surprise"}


def official(database):
    return [(subject, clip, label) for (db, subject, clip), label in megc2019().items() if db == database]


def fill(rows, per_subject, emotions):
    """Adds invented clips until every subject has its number of rows, with the emotions given."""
    have = Counter(subject for subject, *_ in rows)
    pool = [emotion for emotion, count in emotions.items() for _ in range(count)]
    # One pass over the subjects at a time, so that each gets one of the first emotions.
    wanted = [(i, s) for s, n in per_subject.items() for i in range(n - have[s])]
    for (i, subject), emotion in zip(sorted(wanted), pool, strict=True):
        rows.append((subject, f"made_up_{i}", emotion))
    return sorted(rows)


def classes(subjects, with_class, counts):
    """Gives each row an objective class so that exactly the subjects in `with_class` have one of I to V."""
    low = [c for c in (1, 2, 3, 4, 5) for _ in range(counts[c])]
    high = [c for c in (6, 7) for _ in range(counts[c])]
    chosen = [None] * len(subjects)
    firsts = {s: subjects.index(s) for s in with_class}
    order = [*firsts.values(), *(i for i, s in enumerate(subjects) if s in firsts and i != firsts[s])]
    for i in order:
        chosen[i] = (low or high).pop()
    return [c if c is not None else high.pop() for c in chosen]


@pytest.fixture(scope="module")
def casme2(casme2_sheet, workbook, tmp_path_factory):
    rows, disgust = [], 61
    for subject, clip, label in official("casme2"):
        emotion = NAMES.get(label) or ("disgust" if disgust > 0 else "repression")
        disgust -= label == 0
        rows.append((subject, clip, emotion))
    rows += [("sub04", "EP12_01f", "disgust"), ("sub05", "EP09_05f", "disgust")]
    per_subject = load("casme2").versions[0].per_subject
    rows = fill(rows, per_subject, {"others": 99, "sadness": 7, "fear": 2})
    cells = []
    for subject, clip, emotion in rows:
        apex = {"EP12_01f": "/", "EP09_05f": 69}.get(clip, 80) if emotion == "disgust" else 80
        if (subject, clip) not in {("sub04", "EP12_01f"), ("sub05", "EP09_05f")}:
            apex = 80
        cells.append((subject[3:], clip, 69, apex, 99, emotion))
    root = tmp_path_factory.mktemp("casme2")
    numbers = classes([r[0] for r in rows], list(per_subject), CASME2_OBJECTIVE)
    joined = [("Subject", "Filename", "Objective Class")]
    joined += [(row[0], row[1], number) for row, number in zip(cells, numbers, strict=True)]
    workbook(root / "classes.xlsx", {"Sheet1": joined})
    casme2_sheet(root / "coding.xlsx", cells)
    return get_database("casme2").read(root, None)


@pytest.fixture(scope="module")
def samm(samm_sheet, tmp_path_factory):
    # Two subjects with one clip take fear, which samm-5 leaves out: it has 27 of the 29 subjects.
    listed = official("samm")
    alone = [
        s
        for s, n in Counter(s for s, *_ in listed).items()
        if n == 1 and (s, 0) in {(x, y) for x, _, y in listed}
    ]
    alone = [s for s in alone if load("samm").versions[0].per_subject[f"{int(s):03d}"] == 1][:2]
    first = {s: clip for s, clip, label in reversed(listed) if label == 0 and s not in alone}
    pool = (
        ["anger"] * (57 - len(first)) + ["contempt"] * 12 + ["disgust"] * 9 + ["fear"] * 6 + ["sadness"] * 6
    )
    rows = []
    for subject, clip, label in listed:
        if label:
            emotion = NAMES[label]
        elif subject in alone:
            emotion = "fear"
        else:
            emotion = "anger" if first[subject] == clip else pool.pop()
        rows.append((f"{int(subject):03d}", clip, emotion))
    assert not pool
    per_subject = load("samm").versions[0].per_subject
    rows = fill(rows, per_subject, {"other": 26})
    numbers = classes([r[0] for r in rows], list(per_subject)[:21], SAMM_OBJECTIVE)
    cells = []
    for i, ((subject, clip, emotion), number) in enumerate(zip(rows, numbers, strict=True)):
        name = f"{subject}_9_{i}" if clip.startswith("made_up") else clip
        apex = 900 if name in {"028_4_1", "032_3_1"} else 120
        cells.append((subject, name, 100, apex, 140, emotion.capitalize(), number))
    path = samm_sheet(tmp_path_factory.mktemp("samm") / "sheet.xlsx", cells)
    return get_database("samm").read(None, path)


@pytest.fixture(scope="module")
def smic_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("smic")
    for subject, clip, label in official("smic"):
        number = int(subject[1:])
        emotion = ("negative", "positive", "surprise")[label]
        folder = root / f"SMIC_all_raw/HS/s{number}/micro/{emotion}/s{number}{clip[3:]}"
        folder.mkdir(parents=True)
        for n in (100, 101):
            (folder / f"image{n:06d}.bmp").touch()
    return root


def keys(reading):
    return {
        megc_key(reading.table[i]): label for i, label in apply_scheme(reading.table, "megc3").labels.items()
    }


def test_the_three_databases_together_are_the_organisers_list(casme2, samm, smic_root):
    smic = get_database("smic").read(smic_root, None)
    ours = keys(casme2) | keys(samm) | keys(smic)
    assert ours == dict(megc2019())
    assert len(ours) == 442
    assert Counter(ours.values()) == {0: 250, 1: 109, 2: 83}
    assert Counter(db for db, *_ in ours) == {"casme2": 145, "smic": 164, "samm": 133}
    assert len({(db, subject) for db, subject, _ in ours}) == 68


def test_casme2_is_complete_and_its_dropped_rows_have_reasons(casme2):
    assert compare(casme2) == ()
    dropped = apply_scheme(casme2.table, "megc3").dropped
    assert dropped["casme2/sub04/EP12_01f"].endswith("its apex is marked '/' in the sheet")
    assert dropped["casme2/sub05/EP09_05f"].endswith("its apex equals its onset")
    assert casme2.table["casme2/sub04/EP12_01f"].apex_source == "none"
    assert Counter(apply_scheme(casme2.table, "megc3").dropped_by_reason().values()) == Counter(
        [99, 7, 2, 1, 1]
    )
    assert apply_scheme(casme2.table, "casme2-5").counts() == (32, 25, 63, 27, 99)


def test_samm_is_complete(samm):
    assert compare(samm) == ()
    assert [c.sample_id for c in samm.corrections] == ["samm/028/028_4_1", "samm/032/032_3_1"]
    assert apply_scheme(samm.table, "samm-5").counts() == (57, 12, 26, 15, 26)
    assert apply_scheme(samm.table, "megc3").dropped_by_reason() == {
        "emotion 'other' has no class in this scheme": 26
    }


def test_objective_classes_of_both_are_megc2018s(casme2, samm):
    one, two = (apply_scheme(reading.table, "objective-5") for reading in (casme2, samm))
    assert (len(one.labels), len(two.labels)) == (185, 68)
    subjects = {r.table[i].subject for r, seen in ((casme2, one), (samm, two)) for i in seen.labels}
    assert len(subjects) == 47


def test_smic_folders_are_complete_and_each_loss_is_named(smic_root):
    smic = get_database("smic")
    assert compare(smic.read(smic_root, None)) == ()
    folder = smic_root / "SMIC_all_raw/HS/s1/micro/negative/s1_ne_02"
    hidden = smic_root / "hidden"
    folder.rename(hidden)
    try:
        gone = compare(smic.read(smic_root, None))
        folder.mkdir()
        deviations = compare(smic.read(smic_root, None))
        folder.rmdir()
    finally:
        hidden.rename(folder)
    assert [d.message for d in gone] == [d.message for d in deviations]
    assert gone[0].message == "expected 164 samples, got 163"
    assert [d.kind for d in deviations] == ["samples", "emotions", "per-subject", "scheme", "megc2019"]
    assert deviations[0].names == ("s01/s1_ne_02",)
    assert deviations[1].message == "samples per emotion differ: negative: expected 70, got 69"
    assert (
        deviations[3].message == "megc3: expected 164 = 70/51/43 from 16 subjects, got 163 = 69/51/43 from 16"
    )
    assert deviations[4].names == ("s01/s01_ne_02",)


def smic_e_rows(left_out):
    rows = []
    for subject, clip, label in official("smic"):
        name = f"s{int(subject[1:])}{clip[3:]}"
        if name in left_out:
            continue
        emotion = "negative" if name == "s18_sur_03" else ("negative", "positive", "surprise")[label]
        spans = [(1000, 20)]
        if name in {"s20_ne_06", "s20_ne_09", "s20_sur_02", "s18_ne_01", "s18_sur_03"}:
            spans.append((2000, 20))
        rows.append([int(subject[1:]), name, emotion, *spans])
    return rows


def test_the_162_row_sheet_lacks_two_clips_of_the_list(smic_sheet, tmp_path):
    rows = smic_e_rows({"s1_ne_02", "s2_sur_05"})
    reading = get_database("smic").read_sheet(smic_sheet(tmp_path / "a.xlsx", rows, pairs=2))
    assert reading.version == "SMIC-E HS orig"
    deviations = compare(reading)
    assert [d.kind for d in deviations] == ["megc2019"]
    assert deviations[0].names == ("s01/s01_ne_02", "s02/s02_sur_05")


def test_the_157_row_sheet_gives_four_clips_by_further_pairs(smic_sheet, tmp_path):
    hidden = {"s3_ne_03", "s4_ne_05", "s4_ne_06", "s9_sur_02"}
    rows = smic_e_rows({"s1_ne_02", "s2_sur_05", "s3_ne_20", *hidden})
    for row in rows:
        row += {
            "s3_ne_02": [(3000, 11)],
            "s4_ne_04": [(3000, 20), (4000, 20)],
            "s9_sur_01": [(3000, 20), (3000, 20)],
            "s20_ne_06": [(7, -900)],
        }.get(row[1], [])
    reading = get_database("smic").read_sheet(smic_sheet(tmp_path / "a.xlsx", rows))
    assert (reading.version, reading.rows, len(reading.table)) == ("SMIC-E HS 2014/2019", 157, 166)
    deviations = compare(reading)
    assert [d.kind for d in deviations] == ["megc2019"]
    assert deviations[0].names == ("s01/s01_ne_02", "s02/s02_sur_05", "s03/s03_ne_20")
    assert (
        sum(
            "further micro-expression" in why for why in apply_scheme(reading.table, "megc3").dropped.values()
        )
        == 5
    )
