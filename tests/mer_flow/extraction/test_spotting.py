"""Apex spotting over a tree, measured against the truth."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mer_flow.databases.source import Source
from mer_flow.extraction.spotting import score, spot_database
from mer_flow.synthetic import load_truth

Trees = Callable[[str], Path]


def test_spotted_apexes_lie_near_the_truth(tree: Trees) -> None:
    truth = load_truth(tree("smic"))
    rows = spot_database(Source("smic", tree("smic")), workers=2)
    assert [row.failure for row in rows] == [""] * 6
    errors = {m: [abs(row.found[m] - truth[row.sample_id].apex) for row in rows] for m in rows[0].found}
    assert sum(errors["flow-peak"]) / 6 <= sum(errors["midpoint"]) / 6
    assert sum(errors["flow-peak"]) / 6 <= 1.5


def spot(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "mer_flow.cli", "spot", "--db", root.name, "--root", str(root), *options]
    return subprocess.run(words, capture_output=True, text=True)


def test_evaluate_reports_errors_in_frames(tree: Trees, tmp_path: Path) -> None:
    out = tmp_path / "apexes.csv"
    done = spot(tree("samm"), "--evaluate", "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {row["method"] for row in report["scores"]} == {"midpoint", "difference", "flow-peak"}
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    by_hand = sum(abs(int(r["midpoint"]) - int(r["apex"])) for r in rows) / len(rows)
    reported = next(row["mean_error"] for row in report["scores"] if row["method"] == "midpoint")
    assert reported == pytest.approx(by_hand)


def test_evaluate_without_apexes_says_why_not(tree: Trees) -> None:
    done = spot(tree("smic"), "--evaluate")
    assert done.returncode == 2 and "no apex to compare with" in done.stderr


def test_scores_of_nothing_are_nothing() -> None:
    assert score([]) == []
