"""The main job through the command lines: real-format sheets and frames in, an honest table out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mer_flow.synthetic import make_tree

#: Small maps and a quick flow; everything else is the default path.
FAST = ("align.size=96", "flow.scale_step=0.5", "flow.warps=3", "flow.epsilon=0.02")

Call = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_from_sheets_to_a_table_above_chance(call: Call, tmp_path: Path) -> None:
    def done(*words: object) -> str:
        code, out, err = call(*words)
        assert code == 0, f"{words}\n{out}\n{err}"
        return out

    store, databases = tmp_path / "flows.h5", ("casme2", "samm", "smic")
    for database in databases:
        make_tree(tmp_path / database, database, subjects=3, clips_per_subject=3)
        settings = [part for setting in FAST for part in ("--set", setting)]
        where = ("--db", database, "--root", tmp_path / database, "--store", store)
        done("mer-flow", "build", *where, "--quiet", *settings)

    info = json.loads(done("mer-flow", "info", store, "--json"))
    assert info["samples"] == 27

    model = ("ahmsa", "--variant", "tiny", "--recipe", "quick")
    run = ("run", *model, "--protocol", "cde", "--store", store, "--out", tmp_path / "runs", "--quiet")
    summary = json.loads(done("mer-bench", *run, "--json"))
    assert summary["complete"] and summary["trained"] == 9
    last = summary["summary"]["selections"]["last"]["Full"]
    assert last["figures"]["uf1"]["mean"] > 0.6, "the movements are plain; chance is about 0.3"

    again = json.loads(done("mer-bench", *run, "--json"))
    assert again["trained"] == 0 and again["summary"] == summary["summary"]
    folder = next((tmp_path / "runs").iterdir())
    table = done("mer-bench", "report", folder)
    assert "AHMSA-Net" in table and "last" in table and "leak" in table.lower()
