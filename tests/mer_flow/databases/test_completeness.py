"""Manifests: consistent with themselves and the public list, in the wheel, compared with a reading."""

from __future__ import annotations

import csv
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from mer_flow.databases.completeness import SheetVersion, compare, directory, load, megc2019, read_manifest
from mer_flow.databases.corrections import Correction, Interval, correct
from mer_flow.databases.reading import SheetReading
from mer_flow.labels import get_scheme
from mer_flow.samples import Sample, SampleTable
from mer_flow.work.errors import UsageError

DATABASES = ("smic", "samm", "casme2", "casme3")


@pytest.mark.parametrize("name", DATABASES)
def test_each_manifest_adds_up(name):
    manifest = load(name)
    assert manifest.versions
    for version in manifest.versions:
        for table in (version.emotions, version.per_subject):
            assert not table or sum(table.values()) == version.samples, version.name
        assert not version.per_subject or len(version.per_subject) == version.subjects
        assert not version.objective or sum(version.objective.values()) == version.samples
        for scheme, expected in version.schemes.items():
            assert name in get_scheme(scheme).databases
            assert len(expected.counts) == len(get_scheme(scheme).classes)
            assert expected.subjects <= version.subjects
    assert len({(v.form, v.rows) for v in manifest.versions}) == len(manifest.versions)


def test_the_composite_is_442_and_agrees_with_the_manifests():
    clips = megc2019()
    assert Counter(clips.values()) == {0: 250, 1: 109, 2: 83}
    assert len({(database, subject) for database, subject, _ in clips}) == 68
    for name in ("casme2", "samm", "smic"):
        expected = load(name).versions[0].schemes["megc3"]
        mine = {key: label for key, label in clips.items() if key[0] == name}
        assert tuple(Counter(mine.values())[c] for c in range(3)) == expected.counts
        assert len({subject for _, subject, _ in mine}) == expected.subjects


def test_the_shipped_list_is_the_organisers_own(shared_data):
    with (shared_data / "megc2019_combined_3class_gt.csv").open(newline="") as stream:
        assert {tuple(row[:3]): int(row[3]) for row in csv.reader(stream)} == dict(megc2019())


def test_every_correction_is_reviewed():
    seen = set()
    for database in DATABASES:
        for correction in load(database).corrections:
            assert correction.sample_id.startswith(f"{database}/")
            assert correction.reason and correction.source
            assert correction.old != correction.new
            seen.add((correction.sample_id, correction.column))
    assert len(seen) == sum(len(load(d).corrections) for d in DATABASES) == 10


def test_a_correction_needs_the_old_value():
    fix = Correction(
        sample_id="samm/1/a", column="apex", old="outside", new="midpoint", reason="r", source="s"
    )
    row = Interval(10, 50, 20, "fear")
    assert [(old, new) for _, old, new in correct("samm/1/a", row, [fix])] == [(50, 15)]
    assert correct("samm/1/a", row, [fix]) == []
    assert correct("samm/1/b", Interval(10, 50, 20, "fear"), [fix]) == []
    assert correct("samm/1/a", Interval(10, 5, None, "fear"), [fix]) == []  # no middle without an offset


def reading(emotions, form="micro-only", rows=159, database="samm"):
    samples = [
        Sample(
            f"{database}/006/x_{i}", database, f"{database}/006", f"x_{i}", 1, 2, 3, "sheet", e, "", 0, 200.0
        )
        for i, e in enumerate(emotions)
    ]
    return SheetReading(database, "v", Path("sheet.xlsx"), SampleTable(samples), (), (), (), form, rows)


def test_every_deviation_is_named():
    found = {d.kind: d for d in compare(reading(["fear"] * 3))}
    assert list(found) == [
        "samples",
        "subjects",
        "emotions",
        "objective",
        "per-subject",
        "scheme",
        "megc2019",
    ]
    assert found["samples"].message == "expected 159 samples, got 3"
    assert "fear: expected 8, got 3" in found["emotions"].message
    assert len(found["per-subject"].names) == 29
    missing = [d for d in compare(reading(["fear"] * 3)) if d.kind == "megc2019"]
    assert [d.message.split(": ")[1] for d in missing] == ["133 are missing", "3 of ours are not in it"]
    assert len(missing[0].names) == 133


def test_an_unknown_row_count_is_a_deviation_of_its_own():
    first = compare(reading(["fear"] * 3, rows=3))[0]
    assert first.kind == "version"
    assert "known: FACS codes v2 (159 rows, micro-only)" in first.message
    assert str(first).endswith("its counts cannot be checked.")


def test_casme3_is_not_compared_with_the_composite():
    assert [d.kind for d in compare(reading(["sad"], "jpgindex", 1, "casme3"))] == ["version"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"samm\.toml is missing; reinstall"),
        ("versions = [", r"samm\.toml is broken: .*is not TOML"),
        ("[[versions]]\nform = 'b'\nrows = 1", r"samm\.toml is broken: versions\.name is missing"),
        ("[[versions]]\nname = 'a'\nform = 'b'\nrow = 1\nrows = 1", r"key 'versions\.row'; did you mean"),
        ("[[versions]]\nname = 'a'\nform = 'b'\nrows = 'many'", r"samm\.toml is broken: versions\.rows"),
        ("title = 'SAMM'", r"samm\.toml is broken: unknown key 'manifest\.title'"),
    ],
)
def test_missing_and_broken_manifests_say_what_is_wrong(tmp_path, content, message):
    if content is not None:
        (tmp_path / "samm.toml").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_manifest(tmp_path / "samm.toml")


def test_a_database_that_does_not_exist_has_no_manifest():
    with pytest.raises(UsageError, match="did you mean 'samm'"):
        load("sam")


def test_versions_are_found_by_form_and_rows():
    version = load("casme2").version("coding", 255)
    assert isinstance(version, SheetVersion)
    assert version.name == "20140508/20190701"
    assert load("casme2").version("coding-compact", 256) is None


@pytest.mark.slow
@pytest.mark.parametrize("through_sdist", [False, True])
def test_the_wheel_carries_the_manifests(repository, tmp_path, through_sdist):
    pytest.importorskip("build", reason="the `build` front end is not installed")
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    build += [] if through_sdist else ["--wheel"]
    subprocess.run([*build, str(repository / "packages" / "mer-flow")], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    code = (
        "import mer_flow.databases.completeness as m\n"
        "print(m.directory())\n"
        "print(len(m.megc2019()), m.load('casme3').versions[0].rows, len(m.load('casme3').corrections))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(unpacked / "mer_flow" / "manifests"), "442 860 7"]
    shipped = {p.name for p in (unpacked / "mer_flow" / "manifests").iterdir()}
    assert shipped == {p.name for p in directory().iterdir()}
