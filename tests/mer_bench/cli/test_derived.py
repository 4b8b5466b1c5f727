"""Headlines, ensembles and choices from the command line, on a small store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mer_bench.models import registry as registry_module
from mer_bench.models.registry import GROUP
from mer_bench.runs.directory import RunDirectory, runs_below

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(call: Call, small_store: Path, out: Path) -> Callable[..., tuple[int, str, str]]:
    """Calls a command with the small store and its protocol, on one CPU."""
    common = ["--protocol", "cde", "--store", small_store, "--out", out, "--workers", 1, "--device", "cpu"]
    return lambda command, *arguments: call(command, *arguments, *common)


@pytest.fixture
def two(run: Call, out: Path) -> tuple[Path, Path]:
    """The majority class, and a network of two seeds."""
    network = ["--set", "epochs=4", "--set", "batch_size=8", "--set", "lr=0.01", "--seeds", "2"]
    assert run("run", "majority")[0] == 0
    assert run("run", "ststnet", *network, "--headline", "tail")[0] == 0
    (majority,), (network_run,) = (list(out.glob(f"{name}-cde-*")) for name in ("majority", "ststnet"))
    return majority, network_run


def test_a_run_keeps_its_headline(run: Call, call: Call, two: tuple[Path, Path], out: Path) -> None:
    network = ["ststnet", "--set", "epochs=4", "--set", "batch_size=8", "--set", "lr=0.01", "--seeds", "2"]
    code, text, _ = run("run", *network, "--headline", "tail")
    assert code == 0 and "0 folds trained" in text
    head = next(line for line in text.splitlines() if "leakage gap" in line)
    assert head.index("tail") < head.index("last epoch") < head.index("oracle") and "tail, 95 %" in head
    code, _, err = run("run", *network)
    assert code == 1 and "began with headline tail" in err and "give --headline tail" in err
    code, text, _ = call("report", *two)
    rows = [
        line.split(" | ")[1] for line in text.splitlines() if line.startswith(("| STSTNet (", "| Majority"))
    ]
    assert rows == ["last epoch", "tail (mean of the last epochs)", "last epoch"]
    code, text, _ = call("compare", two[1], two[0], "--draws", "100")
    assert code == 0 and "selection tail, seeds 0" in text
    code, _, err = run("run", *network, "--tail-epochs", "9")
    assert code == 2 and "tail_epochs is 9, but ststnet trains for 4 epochs only" in err
    code, _, err = run("run", *network, "--headline", "tial")
    assert code == 2 and "did you mean 'tail'" in err


def test_an_ensemble_from_the_command_line(call: Call, two: tuple[Path, Path], out: Path) -> None:
    code, text, err = call("ensemble", *two, "--name", "both", "--out", out, "--mean", "probability")
    assert code == 0, err
    assert "both (ensemble, mean=probability, selection=tail)" in text and "Majority class, whole-28" in text
    (path,) = out.glob("both-cde-*")
    code, text, _ = call("status", path)
    assert code == 0 and f"ensemble of {two[0].name}, {two[1].name}" in text
    code, text, _ = call("compare", path, two[1], "--draws", "100")
    assert (
        code == 0 and "ensemble of Majority class, STSTNet" in text and "selection tail, seeds 0, 1" in text
    )
    code, text, _ = call("report", out, "--leaderboard", "--json")
    assert {one["model"] for one in json.loads(text)} == {"both", "majority", "ststnet"}
    code, text, _ = call("ensemble", two[1], "--name", "seeds", "--pool-seeds", "--out", out, "--json")
    found = json.loads(text)
    assert found["summary"]["seeds"] == [0] and len(found["summary"]["members"]) == 2
    assert found["summary"]["derived"]["selection"] == "tail"
    for arguments, code, message in (
        ([two[0], "--name", "x"], 2, "at least two finished runs"),
        ([*two, "--name", "X/y"], 2, "use small letters"),
        ([*two, "--name", "x", "--seeds", "7,"], 2, "has seeds [0, 1], not [7]"),
        ([out / "none", two[0], "--name", "x"], 1, "no run directory"),
        ([*two, "--name", "x", "--weights", "best"], 2, "'best' is not one of"),
    ):
        got, _, err = call("ensemble", *arguments, "--out", out)
        assert (got, message in err) == (code, True), err


def test_a_jackknife_from_the_command_line(call: Call, two: tuple[Path, Path], out: Path) -> None:
    code, text, err = call("choose", *two, "--name", "either", "--how", "jackknife", "--out", out)
    assert code == 0, err
    assert "naive choice (LEAKS)" in text and "not nested cross-validation" in text and "chosen for" in text
    code, _, err = call("choose", *two, "--name", "e", "--how", "jackknife", "--protocol", "cde")
    assert code == 2 and "leave out --protocol" in err
    assert "not nested cross-validation" in " ".join(call("choose", "--help")[1].split())


def test_a_nested_choice_trains_what_is_missing(run: Call, out: Path, tmp_path: Path) -> None:
    config = tmp_path / "candidates.toml"
    config.write_text('[models.majority]\n[models."bi-woof/whole-28:scaled"]\n')
    nested = ["--name", "picked", "--how", "nested", "--inner-k", "2", "--config", config]
    code, text, err = run("choose", *nested)
    assert code == 0, err
    (path,) = out.glob("picked-cde-*")
    assert {found.name.partition("-cde-")[0] for found in runs_below(out)} == {
        "majority",
        "bi-woof",
        "picked",
    }
    assert "best in 2 inner folds of the other subjects" in text and "naive choice (LEAKS)" in text
    inner = [RunDirectory(found) for found in runs_below(path / "inner")]
    assert {of.manifest.model for of in inner} == {"majority", "bi-woof"}
    assert all(len(of.manifest.folds) == 2 * 9 and of.status().complete for of in inner)
    assert all(len(record.decided["scores"]) == 2 for record in RunDirectory(path).records(0))
    # It continues where it was stopped, and what is there is not trained again.
    kept = inner[0].record_path(0, inner[0].fold_names[0])
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.npz")}
    kept.unlink()
    RunDirectory(path).record_path(0, "samm/s00").unlink()
    code, _, err = run("choose", *nested)
    assert code == 0, err
    after = {file: file.stat().st_mtime_ns for file in out.rglob("*.npz")}
    assert {file.name for file in after if after[file] != before[file]} == {kept.name, "samm%2Fs00.npz"}


BREAKS = """
from mer_bench.models.majority import SPECS as MAJORITY, MajorityClass
from dataclasses import replace

class Breaks(MajorityClass):
    def fit(self, maps, labels):
        if len(maps) == BREAKS_AT:
            raise ValueError("broke off")
        return super().fit(maps, labels)

def build(num_classes, in_channels=3, map_size=28):
    return Breaks(num_classes)

SPECS = (replace(MAJORITY[0], name="breaks", build=build),)
"""


@pytest.mark.parametrize(("samples", "which"), [(48, "9 of 9 missing"), (24, "18 of 18 missing")])
def test_a_candidate_that_fails_is_named(
    run: Call, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int, which: str
) -> None:
    from importlib.metadata import EntryPoint

    module = f"breaks_{samples}_{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(BREAKS.replace("BREAKS_AT", str(samples)))
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("breaks", f"{module}:SPECS", GROUP),
        EntryPoint("majority", "mer_bench.models.majority:SPECS", GROUP),
    ]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points)
    code, _, err = run("choose", "majority", "breaks", "--name", "p", "--how", "nested", "--inner-k", "2")
    assert code == 1
    assert "1 of 2 candidates failed" in err and f"breaks (seed 0: {which}" in err and "broke off" in err
    assert not list(out.glob("p-cde-*/records/*/*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["majority"], 2, "1 candidate is given"),
        (["majority", "majority:default"], 2, "are the same run"),
        (["majority", "majorty"], 2, "did you mean 'majority'"),
        (["majority", "ststnet@papr"], 2, "did you mean 'paper'"),
        (["majority", "ststnet/hole-28"], 1, "1 candidate(s) cannot run. ststnet/hole-28: unknown view"),
        (["majority", "ststnet", "--inner-k", "1"], 2, "x>=2"),
    ],
)
def test_a_wrong_list_of_candidates_trains_nothing(
    run: Call, out: Path, arguments: list[str], code: int, message: str
) -> None:
    found, _, err = run("choose", "--name", "p", "--how", "nested", *arguments)
    assert (found, message in err) == (code, True), err
    assert not out.exists()
