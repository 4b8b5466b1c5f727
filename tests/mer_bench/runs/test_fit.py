"""Training on everything, for a network to keep: every sample is used, the checkpoint is whole or absent."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.mer_bench.specs import network_spec
from torch import nn

from mer_bench import cli
from mer_bench.errors import DataError, RunError, TrainingError, UsageError
from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered
from mer_bench.models.spec import ModelSpec
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.recipe import Recipe
from mer_bench.runs.fit import Fitted, fit
from mer_bench.settings import Request, RunSettings, TrainingSettings
from mer_flow.work.errors import UsageError as FlowUsageError


class Keepable(nn.Module):
    """A linear network that remembers what it was trained on, and writes itself as anybody's might."""

    seen: ClassVar[set[bytes]] = set()

    def __init__(
        self, num_classes: int, in_channels: int = 3, map_size: int = 28, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels * map_size**2, num_classes)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        if self.training:
            Keepable.seen |= {sample.numpy().tobytes() for sample in maps.detach()}
        return self.fc(self.dropout(maps.flatten(1)))

    def save_pretrained(self, folder: Path, metadata: dict[str, Any]) -> None:
        if metadata["training"]["seed"] == 13:
            raise ValueError("an unlucky seed")
        torch.save(self.state_dict(), folder / "weights.pt")
        (folder / "about.json").write_text(json.dumps(metadata))


SHORT = Recipe(name="short", epochs=6, batch_size=16, lr=0.003)
SPEC = network_spec("keepable", Keepable, recipes={"short": SHORT})


@pytest.fixture
def keep(small_store: Path) -> Callable[..., Fitted]:
    def run(
        out: Path, spec: ModelSpec = SPEC, seed: int = 0, overrides: Any = None, **settings: Any
    ) -> Fitted:
        run = RunSettings(model=spec.name, **settings)
        request = Request(run, overrides or {}, TrainingSettings(device="cpu"))
        return fit(Registered(spec, "test 1.0"), request, small_store, out, seed=seed)

    return run


def test_every_sample_is_trained_on_and_the_checkpoint_says_what_it_is(
    keep: Callable[..., Fitted], tmp_path: Path
) -> None:
    Keepable.seen.clear()
    found = keep(tmp_path / "net")
    assert Keepable.seen == {sample.tobytes() for sample in found.data.maps} and len(Keepable.seen) == 54
    assert found.train_accuracy > 0.9
    about = json.loads((tmp_path / "net" / "about.json").read_text())
    assert about["classes"] == ["negative", "positive", "surprise"]
    assert (about["view"], about["normalisation"], about["scheme"]) == ("whole-28", "scaled", "megc3")
    assert about["pipeline"]["map_kind"]["values"] == "px" and about["pipeline_hash"]
    assert about["training"]["databases"] == {"casme2": 18, "samm": 18, "smic": 18}
    assert about["training"]["recipe"]["epochs"] == 6
    assert "no score" in about["training"]["trained_on"]


def test_the_same_seed_gives_the_same_weights(keep: Callable[..., Fitted], tmp_path: Path) -> None:
    torch.manual_seed(1)
    keep(tmp_path / "a")
    torch.manual_seed(2)
    keep(tmp_path / "b")
    keep(tmp_path / "c", seed=1)
    a, b, c = (torch.load(tmp_path / name / "weights.pt")["fc.weight"] for name in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_databases_can_be_chosen(keep: Callable[..., Fitted], tmp_path: Path) -> None:
    assert keep(tmp_path / "net", db=("samm", "smic")).metadata["training"]["samples"] == 36
    with pytest.raises(DataError, match=r"--db asks for casme3.*mer-flow build --db casme3"):
        keep(tmp_path / "other", db=("casme3",))


def test_what_cannot_be_kept_is_refused_and_leaves_nothing(
    keep: Callable[..., Fitted], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"'ststnet' cannot be kept.*save_pretrained"):
        keep(tmp_path / "net", STSTNET[0])
    with pytest.raises(UsageError, match="is a classifier"):
        keep(tmp_path / "net", MAJORITY[0])
    with pytest.raises(TrainingError, match=r"all samples.*epoch \d.*lower lr"):
        keep(tmp_path / "net", overrides={"lr": 1e38, "optimizer": "sgd"})
    with pytest.raises(RunError, match="could not save its network: an unlucky seed"):
        keep(tmp_path / "net", seed=13)
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("dear")
    with pytest.raises(FlowUsageError, match="not an empty folder"):
        keep(tmp_path / "full")
    with pytest.raises(RunError, match="cannot be written"):
        keep(tmp_path / "full" / "thesis.tex" / "net")


def test_a_class_option_reaches_the_network(keep: Callable[..., Fitted], tmp_path: Path) -> None:
    found = keep(
        tmp_path / "net", replace(SPEC, variants={"default": {}, "wet": {"dropout": 0.0}}), variant="wet"
    )
    assert found.resolved.options == {"dropout": 0.0} and found.metadata["training"]["variant"] == "wet"


def test_the_command_says_that_there_is_no_score(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["fit", "ahmsa", "--variant", "tiny", "--recipe", "quick", "--set", "epochs=2"]
    arguments += ["--view", "whole-28", "--store", str(small_store), "--out", str(tmp_path / "net")]
    monkeypatch.setattr(sys, "argv", ["mer-bench", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert not stop.value.code, err
    assert "2 epochs on all 54 samples of 9 subjects" in out and "this is no score" in out
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["config.json", "model.safetensors"]
