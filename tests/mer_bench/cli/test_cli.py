"""The command line: exit codes, messages, speed of help, and a run from store to report."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from mer_bench.cli.telling import ask_if_long
from mer_bench.errors import UsageError
from mer_bench.models.registry import Registry

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def majority(call: Call, small_store: Path, tmp_path: Path) -> Path:
    code, _, err = call("run", "majority", "--protocol", "cde", "--store", small_store, "--out", tmp_path)
    assert code == 0, err
    (path,) = tmp_path.iterdir()
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "did you mean 'run'"),
        (["run"], "no model given"),
        (["run", "ststnet"], "no --protocol given"),
        (["run", "ststnett", "--protocol", "cde"], "did you mean 'ststnet'"),
        (["run", "ststnet", "--protocol", "cdee"], "did you mean 'cde'"),
        (["run", "ststnet", "--protocol", "cde"], "--store FILE or set MER_BENCH_STORE"),
        (["run", "ststnet", "--protocol", "cde", "--seeds", "x"], "seeds: expected a count"),
        (["run", "ststnet", "--protocol", "cde", "--engine", "stackd"], "did you mean 'stacked'"),
        (["run", "ststnet", "--nonsense"], "No such option"),
        (["models", "ahmsaa"], "did you mean 'ahmsa'"),
        (["protocols", "los"], "did you mean 'loso'"),
        (["report"], "Missing argument"),
    ],
)
def test_a_wrong_request_is_code_2_with_a_way_out(call: Call, arguments: list[str], message: str) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "epoch=3"], "did you mean 'epochs'"),
        (["--set", "lr=fast"], "lr: expected float, got 'fast'"),
        (["--recipe", "authrs"], "did you mean 'authors'"),
        (["--variant", "big"], "unknown variant of ststnet 'big'"),
        (["--scheme", "megc4"], "did you mean 'megc3'"),
        (["--view", "hole-28"], "whole-28"),
        (["--protocol", "loso", "--db", "sam"], "did you mean 'samm'"),
        (["--device", "cudda"], "is not one of auto, cpu, cuda"),
        (["--workers", "0"], "workers must be at least 1"),
        (["--scheme", "samm-5"], "protocol 'cde' is defined for label scheme megc3"),
        (["--limit", "0"], "'--limit': 0 is not in the range x>=1"),
    ],
)
def test_a_wrong_setting_is_code_2(
    call: Call, small_store: Path, tmp_path: Path, extra: list[str], message: str
) -> None:
    code, _, err = call(
        "run", "ststnet", "--protocol", "cde", "--store", small_store, "--out", tmp_path, *extra
    )
    assert (code, message in err) == (2, True), err
    assert not list(tmp_path.iterdir())


def test_data_errors_are_code_1(call: Call, small_store: Path, tmp_path: Path) -> None:
    code, _, err = call("run", "ststnet", "--protocol", "cde", "--store", tmp_path / "no.h5")
    assert code == 1 and "does not exist" in err
    code, _, err = call("run", "ststnet", "--protocol", "loso", "--db", "casme3", "--store", small_store)
    assert code == 1 and "mer-flow build --db casme3" in err
    code, _, err = call("status", tmp_path)
    assert code == 1 and "no run directory" in err
    code, _, err = call("status", "--out", tmp_path)
    assert code == 1 and "no run below" in err


def test_run_status_report_compare(
    call: Call, majority: Path, small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call("status", majority)
    assert code == 0 and "complete (seed 0 9/9)" in out

    monkeypatch.setenv("MER_BENCH_STORE", str(small_store))
    settings = ["--set", "epochs=2", "--set", "batch_size=8", "--workers", 1, "--out", tmp_path]
    code, out, err = call("run", "ststnet", "--protocol", "cde", "--limit", "2", *settings)
    assert code == 1
    assert "incomplete, so there is no table. seed 0: 7 of 9 missing: casme2/s02, samm/s00" in out
    (path,) = tmp_path.glob("ststnet-*")
    code, out, _ = call("status", path)
    assert code == 1 and "seed 0 2/9" in out
    code, out, err = call("report", majority, path)
    assert code == 1 and "warning: left out: " in err and "7 of 9 missing: casme2/s02" in err
    assert "| Majority" in out and "STSTNet" not in out  # the complete ones are tabulated
    code, out, err = call("report", path)
    assert code == 1 and "no complete run to tabulate" in err and not out

    code, out, err = call("run", "ststnet", "--protocol", "cde", *settings)
    assert code == 0, err
    assert "7 folds trained" in out and "2 kept from before" in out
    assert "STSTNet (authors, epochs=2, batch_size=8)" in out and "oracle (LEAKS)" in out

    code, out, _ = call("report", majority, path)
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("| ")]
    assert ["last epoch |" in line for line in lines[2:4]] == [True, True]
    assert "tail" in lines[4] and "LEAKS" in lines[5] and len(lines) == 6
    target = tmp_path / "table.tex"
    code, out, _ = call("report", path, "--format", "latex", "--out", target)
    assert code == 0 and target.read_text().startswith(r"\begin{table}")
    code, _, err = call("report", path, "--out", target / "below.tex")
    assert code == 1 and "table.tex: File exists. Check that the path" in err and "record" not in err
    code, out, _ = call("report", path, "--json")
    assert json.loads(out)[0]["folds"] == 9
    code, _, err = call("report", path, "--format", "html")
    assert code == 2 and "html" in err

    code, out, _ = call("compare", path, majority, "--draws", "200")
    assert code == 0 and "McNemar, seed 0" in out
    assert out.startswith("A STSTNet (authors, epochs=2, batch_size=8): ")
    code, out, _ = call("compare", path, majority, "--draws", "200", "--json")
    assert set(json.loads(out)["tests"]) == {"Full", "casme2", "samm", "smic"}


def test_a_configuration_file(call: Call, small_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('model = "ststnet"\nprotocol = "hde"\nseeds = [4]\n[set]\nepochs = 3\nlr = 0.1\n')
    common = ["run", "--config", file, "--store", small_store, "--dry-run", "--json"]
    code, out, err = call(*common, "--set", "lr=0.2", "--seeds", "2")
    assert code == 0, err
    found = json.loads(out)
    assert (found["protocol"], found["seeds"]) == ("hde", [0, 1])
    assert found["fold_names"] == ["casme2", "samm", "smic"]
    assert (found["identity"]["recipe"]["epochs"], found["identity"]["recipe"]["lr"]) == (3, 0.2)
    assert found["changes"] == {"epochs": 3, "lr": 0.2}


def test_a_dry_run_writes_nothing(call: Call, small_store: Path, tmp_path: Path) -> None:
    code, out, _ = call(
        "run", "ststnet", "--protocol", "cde", "--store", small_store, "--dry-run", "--out", tmp_path / "runs"
    )
    assert code == 0
    assert "recipe     authors: epochs 800, batch_size 256, optimizer adam, lr 5e-05, shuffle False\n" in out
    assert "1,683 parameters" in out and "54 samples of 9 subjects" in out and "nothing was trained" in out
    assert "passed over whole-28:minmax-255" not in out
    assert not (tmp_path / "runs").exists()


def test_two_stores_are_one_input(
    call: Call, small_store: Path, write_store: Callable[..., Path], tmp_path: Path
) -> None:
    both = "--store", small_store, "--store", write_store(tmp_path / "b.h5", seed=7)
    run = "run", "ststnet", "--protocol", "cde", *both, "--dry-run", "--out", tmp_path / "runs"
    code, out, _ = call(*run)
    assert code == 0 and "whole-28+whole-28:minmax-255, maps (6, 28, 28)" in out
    assert str(tmp_path / "b.h5") in out
    manifest = json.loads(call(*run, "--json")[1])
    assert manifest["store"] == str(small_store)
    ((path, digest),) = manifest["joined_stores"]
    assert path == str(tmp_path / "b.h5") and digest not in ("", manifest["store_digest"])
    code, out, err = call(*run[:1], "majority", *run[1:])
    assert code == 0 and out.count("whole-28+whole-28:minmax-255") == 2, err


@pytest.mark.parametrize("command", [["fit", "ststnet", "--out", "x"], ["check"], ["protocols", "cde"]])
def test_what_reads_one_store_refuses_two(call: Call, command: list[str]) -> None:
    code, _, err = call(*command, "--store", "a.h5", "--store", "b.h5")
    assert code == 2
    assert f"`mer-bench {command[0]}` reads one store, got 2: a.h5, b.h5" in err


def test_a_training_of_days_is_not_begun_without_a_yes(call: Call, small_store: Path, tmp_path: Path) -> None:
    common = [
        "run",
        "ahmsa",
        "--protocol",
        "cde",
        "--device",
        "cpu",
        "--store",
        small_store,
        "--out",
        tmp_path,
        "--seeds",
        100,  # days on any machine: an estimate near the hour would begin the training on a fast one
    ]
    code, out, err = call(*common)
    assert code == 2 and not out and not list(tmp_path.iterdir())
    assert (
        "ahmsa takes about " in err and "on this CPU (shorter: --variant tiny --recipe quick, or a GPU" in err
    )
    assert "--yes begins it all the same" in err and len(err.splitlines()) == 1
    code, out, err = call(*common, "--dry-run")
    (line,) = (line for line in out.splitlines() if line.startswith("time "))
    assert code == 0 and " h " in line and "--variant tiny --recipe quick" in line
    code, out, err = call("run", "ahmsa", "majority", *common[2:])
    assert code == 2 and "this leaderboard takes about " in err and err.endswith("shows the plan\n")
    assert "most of it goes to ahmsa" in err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("answer", "begins"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_terminal_is_asked_before_a_long_training(
    monkeypatch: pytest.MonkeyPatch, answer: str, begins: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with contextlib.nullcontext() if begins else pytest.raises(click.Abort):
        ask_if_long("ahmsa", 7200.0, lambda: "shorter: --variant tiny", yes=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody to ask
    ask_if_long("ahmsa", 7200.0, lambda: "", yes=True)
    ask_if_long("ahmsa", 3000.0, lambda: "", yes=False)
    with pytest.raises(UsageError, match=r"2 h 0 min on this CPU .shorter: --variant tiny.; --yes"):
        ask_if_long("ahmsa", 7200.0, lambda: "shorter: --variant tiny", yes=False)


def test_json_of_a_run(call: Call, small_store: Path, tmp_path: Path) -> None:
    where = ("--store", small_store, "--out", tmp_path)
    code, out, err = call("run", "majority", "--protocol", "loso", "--db", "samm", *where, "--json")
    found = json.loads(out)
    assert code == 0 and not err
    assert found["complete"] and found["trained"] == 3
    assert list(found["summary"]["selections"]["last"]) == ["Full"]


@pytest.mark.parametrize("width", [80, 120, 400])
def test_a_terminal_is_shown_the_columns_that_fit(
    call: Call, majority: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, _ = call("report", majority)
    _, blank, heading, row, *_ = out.splitlines()
    assert code == 0 and not blank and row.startswith("Majority")
    assert len(heading) <= width and len(row) <= width
    assert "Full UF1" in heading and ("SMIC UAR" in heading) == (width > 80)
    assert ("not shown, for want of room: " in out) == (width < 400)
    assert call("report", majority, "--format", "md")[1].count(" | ") > 60


def test_models_are_cut_to_the_terminal_alone(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = max((entry.spec.views[0] for entry in Registry()), key=len)
    monkeypatch.setenv("COLUMNS", "250")
    assert longest in call("models")[1] and "…" not in call("models")[1]
    monkeypatch.setenv("COLUMNS", "100")
    assert longest not in call("models")[1]


def test_models(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = call("models")
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("ststnet"))
    assert " ".join(row.split()) == "ststnet 1,683 whole-28:minmax-255 exact no Liong et al. 2019"
    assert "from other packages: ahmsa of ahmsa-model" in out
    assert max(map(len, out.splitlines())) <= 100
    code, out, _ = call("models", "ahmsa")
    assert code == 0 and "filled in:" in out and "115,586,563" in out
    assert max(map(len, out.splitlines())) <= 100


def test_models_in_json_are_whole(call: Call) -> None:
    code, out, _ = call("models", "--json")
    models = {model["name"]: model for model in json.loads(out)["models"]}
    assert code == 0 and set(models) == set(Registry().names)
    for name, model in models.items():
        spec = Registry().get(name)
        assert model["filled_in"] == list(spec.filled_in) and model["views"] == list(spec.views)
        assert (model["parameters"], model["exactness"]) == (spec.parameters, spec.exactness)
        assert model["exactness"] == "baseline" or model["source"] != "–", name
        assert model["exactness"] != "reconstructed" or model["filled_in"], name


def test_protocols(call: Call, small_store: Path) -> None:
    code, out, _ = call("protocols")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["cde", "loso", "hde", "cross-db", "kfold"]
    code, out, _ = call("protocols", "kfold", "--k", "3", "--inner", "--store", small_store, "--json")
    found = json.loads(out)
    assert len(found["folds"]) == 3 and all(sum(fold["inner"]) for fold in found["folds"])
    code, out, _ = call("protocols", "hde", "--store", small_store)
    assert code == 0 and "3 folds, 54 samples" in out


def test_check(call: Call, small_store: Path) -> None:
    code, out, _ = call("check", "--store", small_store)
    assert code == 0
    assert "samm, megc3: 18 samples (6/6/6) of 3 subjects" in out
    assert "ststnet reads" in out and "no problem found" in out
    assert "the composite has 24 subjects" in out
    code, out, _ = call("check", "--store", small_store / "no")
    assert code == 1 and "problem:" in out
