"""Many models in one command: refused before training, resumed after a stop, none lost for another's."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mer_bench.errors import UsageError
from mer_bench.models import registry as registry_module
from mer_bench.models.registry import GROUP
from mer_bench.models.spelling import parse_entry

Call = Callable[..., tuple[int, str, str]]

CENTROID = Path(__file__).parents[1] / "plugins" / "centroid" / "src"

#: What a third party may bring: a model for clips, one that breaks in training, one that is interrupted once.
ODD_MODELS = """
from pathlib import Path

import torch
from torch import nn

from mer_bench.models.majority import MajorityClass
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe

INTERRUPT = Path(__file__).with_name("interrupt")
SHORT = {name: Recipe(name=name, epochs=n, batch_size=16, lr=0.01) for name, n in (("short", 2), ("long", 4))}


class Stumbles(nn.Module):
    def __init__(self, num_classes, in_channels=3, map_size=28):
        super().__init__()
        self.head = nn.Linear(in_channels * map_size**2, num_classes)

    def forward(self, maps):
        if self.training:
            raise RuntimeError("stumbled")
        return self.head(maps.flatten(1))


class Interrupted(MajorityClass):
    def fit(self, maps, labels):
        if INTERRUPT.exists() and len(list(INTERRUPT.parent.glob("runs/interrupted-*/records/*/*.npz"))) == 4:
            INTERRUPT.unlink()
            raise KeyboardInterrupt
        return super().fit(maps, labels)


def build_interrupted(num_classes, in_channels=3, map_size=28):
    return Interrupted(num_classes)


def build_wide(num_classes, in_channels=3, map_size=28, width=4):
    layers = nn.Linear(in_channels * map_size**2, width), nn.Linear(width, num_classes)
    return nn.Sequential(nn.Flatten(), *layers)


def spec(name, build, kind="network", views=("whole-28:scaled",), **fields):
    network = {"recipes": SHORT, "default_recipe": "short"} if kind == "network" else {}
    return ModelSpec(
        name=name, title=name.title(), build=build, kind=kind, views=views, citation="none",
        exactness="exact", **network, **fields,
    )


SPECS = (
    spec("on-clips", Stumbles, views=("clips-28:raw",)),
    spec("stumbles", Stumbles),
    spec("interrupted", build_interrupted, kind="classifier"),
    spec(
        "wide", build_wide, parameters=6_000_000, default_variant="paper",
        variants={"paper": {"width": 8}, "small": {"width": 2}, "tiny": {"width": 1}},
    ),
)
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Registers the third parties' models beside `majority` and `ststnet`; returns a folder to work in."""
    module = f"odd_models_{abs(hash(tmp_path))}"
    (tmp_path / f"{module}.py").write_text(ODD_MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(CENTROID))
    values = {
        "centroid": "mer_bench_centroid:SPECS",
        "odd": f"{module}:SPECS",
        "broken": "no_such_module:SPECS",
    }
    values |= {name: f"mer_bench.models.{name}:SPECS" for name in ("majority", "ststnet")}
    points = [EntryPoint(name, value, GROUP) for name, value in values.items()]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points)
    return tmp_path


@pytest.fixture
def run(call: Call, plugins: Path, small_store: Path) -> Callable[..., tuple[int, str, str]]:
    """Calls `mer-bench run` on the small store, on one CPU, into `runs`."""
    common = ["--protocol", "cde", "--store", small_store, "--out", plugins / "runs", "--workers", 1]
    return lambda *arguments: call("run", *common, "--device", "cpu", *arguments)


def runs_of(folder: Path) -> list[str]:
    return sorted(path.name.partition("-cde-")[0] for path in (folder / "runs").glob("*"))


def test_spellings() -> None:
    assert str(parse_entry("ahmsa:tiny@lineage")) == "ahmsa:tiny@lineage"
    assert (parse_entry("a@b").variant, parse_entry("a@b").recipe) == ("", "b")
    entry = parse_entry("ststnet/clips-28+faces-28:raw")
    assert (entry.model, entry.view, entry.normalisation) == ("ststnet", "clips-28+faces-28", "raw")
    assert str(parse_entry("a:b@c/d:e")) == "a:b@c/d:e" and parse_entry("a/d").normalisation == ""
    for text in ("", ":tiny", "a:b:c", "a@", "a b", "a@b:c", "a/", "a/b/c", "a/b:"):
        with pytest.raises(UsageError, match="names no model; write NAME"):
            parse_entry(text)


def test_a_list_of_models_gives_one_table_by_uf1(run: Call, plugins: Path) -> None:
    short = ["--set", "epochs=2", "--set", "batch_size=8"]
    code, out, err = run("majority", "linear", "centroid:shrunk", "ststnet", *short, "--seeds", "2")
    assert code == 0, err
    assert runs_of(plugins) == ["centroid", "linear", "majority", "ststnet"]
    tables = out[out.index("cde, label scheme") :].split("\n\n")
    first, second = tables[1].splitlines(), tables[2].splitlines()
    assert "oracle (LEAKS)" in first[0] and "gap UF1" in first[0]
    rows = {line.split()[0]: line for line in first[1:]}
    figures = [float(line.split("±")[0].split()[-1]) for line in rows.values()]
    assert figures == sorted(figures, reverse=True) and len(figures) == 4
    assert "Nearest centroid" in rows["1"] and "shrunk" in rows["1"]
    assert "STSTNet (epochs=2, batch_size=8)" in tables[1] and "authors" in tables[1] and "1,683" in tables[1]
    assert "CASME II" in second[1] and "SAMM" in second[1] and "SMIC" in second[1]
    assert "its code selects on test" in second[1]
    assert "Published scores are left out" in out
    assert "model 4 of 4, ststnet" in err
    assert "majority: does not know epochs, batch_size, so its own settings hold" in err

    code, out, err = run(
        "majority", "linear", "centroid:shrunk", "ststnet", *short, "--seeds", "3", "--quiet"
    )
    assert code == 0, err
    assert out.count("9 folds trained") == 4 and out.count("18 kept from before") == 4
    assert not err


def test_what_cannot_run_is_refused_before_training_and_the_others_go_on(run: Call, plugins: Path) -> None:
    code, out, err = run("--all", "--set", "epochs=1", "--seeds", "2,")
    assert code == 1
    plan, _, rest = err.partition("model 1 of 7")
    assert "refused: broken: plug-in 'broken'" in plan and "No module named 'no_such_module'" in plan
    assert "refused: on-clips: " in plan and "--keep-clips" in plan
    assert "refused: on-clips: " in rest
    # Classifiers come first, then networks by their size.
    order = [line.split()[1] for line in plan.splitlines() if line[:1].isdigit()]
    assert order == ["centroid", "interrupted", "majority", "stumbles", "ststnet", "linear", "wide"]
    assert "on-clips" not in runs_of(plugins)
    # One that breaks in training is listed, and not tabulated.
    assert "incomplete, so not in the table: stumbles. seed 2: 9 of 9 missing" in out
    assert "failed: stumbles: seed 2: 9 of 9 folds failed" in err and "RuntimeError: stumbled" in err
    table = out[out.index("cde, label scheme") :]
    assert all(
        title in table for title in ("Majority class", "STSTNet", "One linear layer", "Nearest centroid")
    )
    assert "Stumbles" not in table
    # On a CPU the large one runs as `small`.
    assert "wide:small: variant small, as paper has 6,000,000 parameters and this is a CPU" in plan
    assert "wide:paper asks for it" in plan
    assert "note: Wide ran as variant small; its default, paper, has 6,000,000 parameters." in out


def test_all_in_json(run: Call) -> None:
    code, out, err = run("--all", "--set", "epochs=1", "--json")
    found = json.loads(out)
    assert code == 1 and not err
    assert {one["entry"] for one in found["refused"]} == {"broken", "on-clips"}
    complete = {one["entry"]: one["complete"] for one in found["models"]}
    assert not complete.pop("stumbles") and all(complete.values()) and len(complete) == 6
    figures = [one["selections"]["last"]["Full"]["figures"]["uf1"]["mean"] for one in found["leaderboard"]]
    assert figures == sorted(figures, reverse=True) and len(figures) == 6


def test_a_stop_in_the_second_model_loses_nothing(run: Call, plugins: Path) -> None:
    (plugins / "interrupt").touch()
    code, out, err = run("majority", "interrupted", "centroid")
    assert code == 130 and "the same command continues" in err
    assert "9 folds trained" in out and runs_of(plugins) == ["interrupted", "majority"]
    code, out, _ = run("majority", "interrupted", "centroid")
    assert code == 0
    told = [line.partition(": ")[2] for line in out.splitlines() if "folds trained" in line]
    assert [(text.split()[0], text.split()[-4]) for text in told] == [("0", "9"), ("5", "4"), ("9", "0")]


def test_an_incomplete_model_is_never_tabulated(run: Call, call: Call, plugins: Path) -> None:
    code, out, _ = run("majority", "linear", "--limit", "2")
    assert code == 1 and "by UF1" not in out
    assert "incomplete, so not in the table: linear. seed 0: 7 of 9 missing" in out
    code, _, err = call("report", plugins / "runs", "--leaderboard")
    assert code == 1 and "no complete run to tabulate" in err and "7 of 9 missing" in err
    assert run("majority")[0] == 0
    code, out, err = call("report", plugins / "runs", "--leaderboard")
    assert code == 1 and "left out: " in err and "linear-cde" in err
    assert [line for line in out.splitlines() if line.startswith("| ")][2].startswith("| Majority class")
    code, _, err = call("report", plugins / "runs")
    assert code == 1 and "incomplete and cannot be tabulated" in err
    code, _, err = run("majority", "linear", "--limit", "0")
    assert code == 2 and "--limit" in err and "x>=1" in err


def test_a_dry_run_plans_and_writes_nothing(run: Call, plugins: Path) -> None:
    code, out, err = run("--all", "--seeds", "3", "--dry-run")
    assert code == 1 and not err
    row = next(line for line in out.splitlines() if " ststnet " in line)
    assert row.split()[2:5] == ["default", "authors", "whole-28:minmax-255"]
    assert "1,683  9 x 3 seeds     800" in row and row.endswith(("s", "min"))
    assert "refused: on-clips" in out and "nothing was trained or written" in out
    assert not (plugins / "runs").exists()

    code, out, _ = run("majority", "ststnet@paper", "--dry-run", "--json", "--set", "lr=0.1")
    plan = json.loads(out)["planned"]
    assert code == 0 and [row["entry"] for row in plan] == ["majority", "ststnet@paper"]
    assert (plan[1]["epochs"], plan[1]["changes"], plan[1]["recipe"]) == (500, {"lr": 0.1}, "paper")
    assert plan[1]["seconds"] > 0 and plan[0]["seconds"] is None


def test_the_plan_counts_what_is_done(run: Call) -> None:
    run("majority", "linear", "--limit", "4")
    _, out, _ = run("majority", "linear", "--dry-run", "--json")
    assert [row["done"] for row in json.loads(out)["planned"]] == [4, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["majority", "ststnett"], "did you mean 'ststnet'"),
        (["majority", "ststnet:big"], "unknown variant of ststnet 'big'"),
        (["majority", "ststnet@papr"], "did you mean 'paper'"),
        (["majority", "majority"], "'majority' is given twice"),
        (["majority", "majority:default"], "'majority' and 'majority:default' are the same run"),
        (["majority", "--all"], "either --all or names"),
        (["majority", "ststnet", "--set", "epoch=1"], "did you mean 'epochs'?"),
        (["majority", "ststnet", "--set", "epoch=1"], "no chosen model takes it"),
        (["majority", "ststnet", "--set", "epochs=many"], "epochs: expected int, got 'many'"),
        (["majority", "ststnet", "--recipe", "papr"], "unknown recipe of the chosen models 'papr'"),
        (["majority", "ststnet", "--variant", "big"], "unknown variant of the chosen models 'big'"),
        (["majority", "ststnet", "--view", "hole-28"], "hole-28"),
        (["majority", "ststnet", "--scheme", "samm-5"], "protocol 'cde' is defined for label scheme megc3"),
        (["majority@short", "ststnet"], "classifier and takes no recipe"),
    ],
)
def test_a_wrong_request_is_code_2_and_trains_nothing(
    run: Call, plugins: Path, arguments: list[str], message: str
) -> None:
    code, _, err = run(*arguments)
    assert (code, message in err) == (2, True), err
    assert not (plugins / "runs").exists()


def test_what_is_set_for_all_goes_to_those_that_know_it(run: Call) -> None:
    code, out, err = run(
        "majority", "linear", "wide", "--set", "width=3", "--recipe", "long", "--dry-run", "--json"
    )
    assert code == 0, err
    _, linear, wide = json.loads(out)["planned"]
    assert wide["changes"] == {"width": 3} and wide["recipe"] == "long" and wide["variant"] == "paper"
    assert linear["recipe"] == "short" and linear["changes"] == {}
    assert linear["notes"] == ["does not know width, recipe long, so its own settings hold"]


def test_a_configuration_has_sections_for_single_models(
    run: Call, call: Call, tmp_path: Path, plugins: Path
) -> None:
    file = tmp_path / "board.toml"
    file.write_text(
        "seeds = 2\n[set]\nbatch_size = 8\n[models.linear]\n[models.linear.set]\nepochs = 3\n[models.wide]\n"
        'variant = "small"\nseeds = 1\n[models."wide:tiny"]\nseeds = 4\nrecipe = "long"\nset.epochs = 7\n'
    )
    common = ["--config", file, "--dry-run", "--json"]
    code, out, err = run(*common)
    assert code == 0, err
    fields = ("entry", "variant", "recipe", "seeds", "epochs")
    assert [tuple(row[name] for name in fields) for row in json.loads(out)["planned"]] == [
        ("linear", "default", "short", [0, 1], 3),
        ("wide", "small", "short", [0], 2),
        ("wide:tiny", "tiny", "long", [0, 1, 2, 3], 7),
    ]
    # --set and flags win over sections; --all keeps a section's variant.
    code, out, _ = run("--all", *common, "--seeds", "5,", "--set", "epochs=9")
    rows = {row["entry"]: row for row in json.loads(out)["planned"]}
    assert rows["wide"]["variant"] == "small" and rows["wide"]["notes"] == []
    assert rows["wide"]["seeds"] == [5] and rows["linear"]["epochs"] == 9
    # Labels tell apart sections of one model, and are no part of its run.
    labelled = tmp_path / "labelled.toml"
    labelled.write_text('[models."linear#two"]\nset.epochs = 2\n[models."linear#three"]\nset.epochs = 3\n')
    _, out, _ = run("--config", labelled, "--dry-run", "--json")
    found = {row["entry"]: (row["epochs"], row["run"]) for row in json.loads(out)["planned"]}
    _, out, _ = run("linear", "majority", "--set", "epochs=3", "--dry-run", "--json")
    unlabelled = json.loads(out)["planned"][0]["run"]
    assert found == {"linear#two": (2, found["linear#two"][1]), "linear#three": (3, unlabelled)}
    # A single model has its section too.
    code, out, _ = run("linear", *common)
    assert json.loads(out)["identity"]["recipe"]["epochs"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[models.wid]\n", "section [models.wid]: unknown model 'wid'; did you mean 'wide'"),
        ('[models.wide]\nprotocol = "loso"\n', "section [models.wide]: unknown setting 'protocol'"),
        ('[models.wide]\nvariannt = "x"\n', "did you mean 'variant'"),
        ("[models.wide]\nset = 3\n", "[set] must be a table"),
        ("models = 3\n", "[models] must be a table"),
        ("[models.wide.recipe]\nlr = 1\n", "unknown table [recipe]"),
        ("[models.wide.set]\nlrr = 1\n", "did you mean 'lr'"),
    ],
)
def test_a_wrong_section_is_code_2(run: Call, plugins: Path, text: str, message: str) -> None:
    file = plugins / "board.toml"
    file.write_text(text)
    code, _, err = run("--config", file)
    assert (code, message in err) == (2, True), err


def test_where_all_fail_for_one_reason_it_is_said_once(run: Call, call: Call, small_store: Path) -> None:
    code, _, err = call(
        "run", "majority", "linear", "--protocol", "loso", "--db", "casme3", "--store", small_store
    )
    assert code == 1 and err.count("mer-flow build --db casme3") == 1
    code, _, err = run("majority", "linear", "--device", "cudda")
    assert code == 2 and err.count("is not one of auto, cpu, cuda") == 1
