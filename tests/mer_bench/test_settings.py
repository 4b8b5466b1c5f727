"""Settings: file below --set below flags, typed, unknown keys suggested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mer_bench.cli.options import SETTINGS as FLAGS
from mer_bench.errors import UsageError
from mer_bench.settings import (
    OF_ONE_MODEL,
    Layers,
    RunSettings,
    TrainingSettings,
    gather,
    parse_seeds,
)
from mer_flow.work.where import Where


def test_flags_win_over_set_and_set_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'protocol = "loso"\nseeds = 5\nscheme = "samm-5"\ndb = ["samm"]\n[set]\nlr = 1e-3\nepochs = 7\n'
    )
    request = gather(file, ["lr=1e-2", "seeds=0,9", "options.width=4", "chunk=2"], {"scheme": "megc3"})
    assert request.run == RunSettings(protocol="loso", seeds=(0, 9), scheme="megc3", db=("samm",))
    assert request.training == TrainingSettings(chunk=2)
    assert request.overrides == {"lr": "1e-2", "epochs": 7, "options.width": "4"}


def test_a_dotted_table_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[set]\nrecipe.lr = 0.5\n[set.options]\nwidth = 3\n")
    assert gather(file, [], {}).overrides == {"recipe.lr": 0.5, "options.width": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("protocl = 'cde'", "did you mean 'protocol'"),
        ("seeds = -1", "seeds"),
        ("inner = 3", "expected bool"),
        ("workers = 0", "workers must be at least 1"),
        ("[recipe]\nlr = 1", r"unknown table \[recipe\]"),
        ("this is not toml", "not TOML"),
        ("set = 3", "must be a table"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text + "\n")
    with pytest.raises(UsageError, match=message):
        gather(file, [], {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.toml: No such file"):
        gather(tmp_path / "no.toml", [], {})


@pytest.mark.parametrize(("pair", "message"), [("lr", "expected key=value"), ("=3", "expected key=value")])
def test_a_bad_set_is_refused(pair: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gather(None, [pair], {})
    with pytest.raises(UsageError, match="given twice"):
        gather(None, ["lr=1", "lr=2"], {})


@pytest.mark.parametrize(("given", "seeds"), [("3", (0, 1, 2)), (2, (0, 1)), ("4,", (4,)), ([7, 3], (7, 3))])
def test_seeds(given: Any, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(given) == seeds


@pytest.mark.parametrize("given", ["0", "x", "1,1", "-2,", [], "1.5"])
def test_bad_seeds(given: Any) -> None:
    with pytest.raises(UsageError, match="seeds"):
        parse_seeds(given)


def test_where_is_read_from_the_file_below_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('executor = "dask"\ncluster = "slurm"\ncluster-options = "slurm.toml"\nwait = 5\n')
    layers = Layers.read(file, (), {"wait": 7.0})
    assert layers.where == Where(
        executor="dask", cluster="slurm", cluster_options=Path("slurm.toml"), wait=7.0
    )
    assert layers.named().training == TrainingSettings(), "where is no part of what a model is told"
    file.write_text('[models.ststnet]\nexecutor = "dask"\n')
    with pytest.raises(UsageError, match="unknown setting 'executor'"):
        Layers.read(file, (), {})


def test_a_training_option_has_its_flag_and_its_place_in_a_section() -> None:
    flags = set(FLAGS)
    where = {*Where.model_fields}
    assert flags == {*RunSettings.model_fields, *TrainingSettings.model_fields, *where} - {"model"}
    assert set(TrainingSettings.model_fields) <= set(OF_ONE_MODEL)
