"""Apex spotting over a tree, measured against the truth."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mer_flow.extraction.spotting import score, spot_database
from mer_flow.synthetic import load_truth, make_tree


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with apexes in its sheet, and one without."""
    root = tmp_path_factory.mktemp("trees")
    for database in ("samm", "smic"):
        make_tree(root / database, database, subjects=2, clips_per_subject=3, seed=5)
    return root


def test_spotted_apexes_lie_near_the_truth(trees: Path) -> None:
    truth = load_truth(trees / "smic")
    rows = spot_database("smic", trees / "smic", workers=2)
    assert [row.failure for row in rows] == [""] * 6
    errors = {m: [abs(row.found[m] - truth[row.sample_id].apex) for row in rows] for m in rows[0].found}
    assert sum(errors["flow-peak"]) / 6 <= sum(errors["midpoint"]) / 6
    assert sum(errors["flow-peak"]) / 6 <= 1.5


def test_evaluate_reports_errors_in_frames(trees: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "mer_flow.cli", "spot", "--db", "samm", "--root", str(trees / "samm")]
    out = tmp_path / "apexes.csv"
    arguments += ["--evaluate", "--json", "--out", str(out)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {row["method"] for row in report["scores"]} == {"midpoint", "difference", "flow-peak"}
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    by_hand = sum(abs(int(r["midpoint"]) - int(r["apex"])) for r in rows) / len(rows)
    reported = next(row["mean_error"] for row in report["scores"] if row["method"] == "midpoint")
    assert reported == pytest.approx(by_hand)


def test_evaluate_without_apexes_says_why_not(trees: Path) -> None:
    arguments = [sys.executable, "-m", "mer_flow.cli", "spot", "--db", "smic", "--root", str(trees / "smic")]
    done = subprocess.run([*arguments, "--evaluate"], capture_output=True, text=True)
    assert done.returncode == 2 and "no apex to compare with" in done.stderr


def test_scores_of_nothing_are_nothing() -> None:
    assert score([]) == []
