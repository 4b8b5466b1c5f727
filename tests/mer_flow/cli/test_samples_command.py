"""`mer-flow samples` from the command line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import openpyxl
import pytest
from click.testing import CliRunner

from mer_flow.cli import cli
from mer_flow.work.errors import SheetError, UsageError

V2 = "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"


def run(*arguments):
    result = CliRunner().invoke(cli, ["samples", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def sheet(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"])
    for row in (
        ["spNO.1", "a", 10, 12, 20, "4", "I", "Happy"],
        ["spNO.1", "b", 10, 12, 20, "4", "I", "Others"],
        ["spNO.2", "a", 10, 12, 20, "4", "I", "fear"],
        ["spNO.2", "a", 10, 12, 20, "4", "I", "fear"],
        ["spNO.40", "e", 1812, 1824, 0, "4", "I", "others"],
    ):
        book.active.append(row)
    path = tmp_path / "sheet.xlsx"
    book.save(path)
    return path


def test_the_published_sheet_as_text(shared_data):
    output = run("--db", "casme3", "--sheet", shared_data / V2, "--scheme", "casme3-3").output
    assert "casme3: 860 samples of 94 subjects" in output
    assert "scheme casme3-3: 699 = 457/55/187 (negative / positive / surprise) of 88 subjects" in output
    assert "161 dropped: emotion 'others' has no class in this scheme" in output
    assert "corrections applied: 7" in output
    assert "row 130   casme3/spNO.149/d_112: apex 83 -> 160" in output
    assert "rows dropped: 0" in output
    assert "complete: the counts are those of a complete copy" in output


def test_the_published_sheet_as_json(shared_data):
    summary = json.loads(
        run("--db", "casme3", "--sheet", shared_data / V2, "--scheme", "casme3-3", "--json").output
    )
    assert (summary["samples"], summary["subjects"], summary["rows"]) == (860, 94, 860)
    assert summary["scheme"]["classes"] == {"negative": 457, "positive": 55, "surprise": 187}
    assert (summary["scheme"]["samples"], summary["scheme"]["subjects"]) == (699, 88)
    assert len(summary["scheme"]["per_subject"]) == 88
    assert sum(map(sum, summary["scheme"]["per_subject"].values())) == 699
    assert summary["scheme"]["dropped"] == {"emotion 'others' has no class in this scheme": 161}
    assert sorted({c["row"] for c in summary["corrections"]}) == [130, 710, 751, 752, 798, 800]
    assert all(c["source"] for c in summary["corrections"])
    assert summary["deviations"] == []


def test_counts_drops_and_deviations_of_a_partial_sheet(sheet):
    summary = json.loads(run("--db", "casme3", "--sheet", sheet, "--json").output)
    assert summary["emotions"] == {"others": 2, "happy": 1, "fear": 1}
    assert summary["per_subject"] == {"casme3/spNO.1": 2, "casme3/spNO.2": 1, "casme3/spNO.40": 1}
    assert summary["dropped_by_reason"] == {"an exact duplicate of row 4, which is kept": 1}
    assert [d["kind"] for d in summary["deviations"]] == ["version"]
    text = run("--db", "casme3", "--sheet", sheet).output
    assert "rows dropped: 1" in text
    assert "1 an exact duplicate of row 4, which is kept: spNO.2/a_10 row 5" in text
    assert "spNO.40 1" in text
    assert "deviations:" in text
    assert "complete:" not in text


def test_csv_has_the_table_and_the_classes(sheet, tmp_path):
    out = tmp_path / "new" / "table.csv"
    output = run("--db", "casme3", "--sheet", sheet, "--scheme", "casme3-3", "--csv", out).output
    assert f"wrote {out}" in output
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["sample_id"] for row in rows][:2] == ["casme3/spNO.1/a_10", "casme3/spNO.1/b_10"]
    assert [row["class"] for row in rows] == ["positive", "", "negative", ""]
    assert rows[1]["dropped"] == "emotion 'others' has no class in this scheme"
    assert rows[3]["offset"] == "1845"
    with pytest.raises(UsageError, match="cannot write"):
        run("--db", "casme3", "--sheet", sheet, "--csv", out / "below a file" / "x.csv")


def test_the_root_may_come_from_the_environment(sheet, monkeypatch):
    monkeypatch.setenv("MER_FLOW_CASME3_ROOT", str(sheet.parent))
    assert json.loads(run("--db", "casme3", "--json").output)["sheet"] == str(sheet)


def test_the_database_of_a_sheet_is_recognised(sheet, tmp_path):
    found = run("--sheet", sheet)
    assert found.stdout == run("--db", "casme3", "--sheet", sheet).stdout
    assert found.stderr.startswith(f"{sheet} is a CAS(ME)^3") and found.stderr.endswith(": --db casme3\n")
    other = tmp_path / "list.csv"
    other.write_text("database,subject,clip,label\n")
    with pytest.raises(SheetError, match=r"list\.csv has the columns of no database.* --db with .*casme2, "):
        run("--sheet", other)
    both = "Subject,Filename,Onset Frame,Apex Frame,Offset Frame,Estimated Emotion,Duration\n"
    other.write_text(both)  # SAMM's sheet without the column by which it differs from CASME II's
    with pytest.raises(SheetError, match=r"several databases; give --db with one of casme2, samm$"):
        run("--sheet", other)
    other.write_text("Subject,Filename,Objective Class\n")
    with pytest.raises(SheetError, match="CASME II's file of objective classes: it has no frame numbers"):
        run("--sheet", other)
    assert "give --sheet FILE, whose columns tell the database, or --db NAME" in run().stderr


def test_errors_name_the_remedy(sheet, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MER_FLOW_SAMM_ROOT", raising=False)
    with pytest.raises(UsageError, match="did you mean 'casme3'"):
        run("--db", "casme-3", "--sheet", sheet)
    with pytest.raises(UsageError, match="did you mean 'casme3-3'"):
        run("--db", "casme3", "--sheet", sheet, "--scheme", "casme33")
    with pytest.raises(UsageError, match="MER_FLOW_SAMM_ROOT"):
        run("--db", "samm")
    with pytest.raises(SheetError, match="does not exist"):
        run("--db", "samm", "--sheet", tmp_path / "none.xlsx")


def test_exit_codes_and_messages_of_the_program(sheet):
    command = [sys.executable, "-m", "mer_flow.cli", "samples", "--db", "samm"]
    done = subprocess.run([*command, "--sheet", str(sheet)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Use --db casme3" in done.stderr
    assert "Traceback" not in done.stderr
    done = subprocess.run([*command, "--scheme", "x", "--sheet", str(sheet)], capture_output=True, text=True)
    assert done.returncode == 2
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "mer-flow samples --sheet" in done.stdout
