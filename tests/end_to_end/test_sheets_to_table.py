"""The main job, run as a user runs it: real-format sheets and frames in, an honest table out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: Small maps and a quick flow; everything else is the default path.
FAST = ("align.size=96", "flow.scale_step=0.5", "flow.warps=3", "flow.epsilon=0.02")


def call(module: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"{module} {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_from_sheets_to_a_table_above_chance(tmp_path: Path) -> None:
    store = tmp_path / "flows.h5"
    trees = ("--out", str(tmp_path), "--subjects", "4", "--clips", "4", "--trees-only", "--quiet")
    call("mer_flow.cli", "demo", *trees, "--db", "casme2", "--db", "samm", "--db", "smic")
    for database in ("casme2", "samm", "smic"):
        root = str(tmp_path / database)
        settings = [part for setting in FAST for part in ("--set", setting)]
        where = ("--db", database, "--root", root, "--store", str(store))
        call("mer_flow.cli", "build", *where, "--quiet", *settings)

    info = json.loads(call("mer_flow.cli", "info", str(store), "--json"))
    assert info["samples"] == 48

    model = ("ahmsa", "--variant", "tiny", "--recipe", "quick")
    run = ("run", *model, "--protocol", "cde", "--store", str(store))
    where = ("--out", str(tmp_path / "runs"), "--quiet")
    summary = json.loads(call("mer_bench.cli", *run, *where, "--json"))
    assert summary["complete"] and summary["trained"] == 12
    last = summary["summary"]["selections"]["last"]["Full"]
    assert last["figures"]["uf1"]["mean"] > 0.6, "the movements are plain; chance is about 0.3"

    again = json.loads(call("mer_bench.cli", *run, *where, "--json"))
    assert again["trained"] == 0 and again["summary"] == summary["summary"]
    folder = next((tmp_path / "runs").iterdir())
    table = call("mer_bench.cli", "report", str(folder))
    assert "AHMSA-Net" in table and "last" in table and "leak" in table.lower()
