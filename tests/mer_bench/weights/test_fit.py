"""Training on everything, for a network to keep: every sample is used, the checkpoint is whole or absent."""

from __future__ import annotations

import itertools
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
from mer_bench.recipe import Recipe
from mer_bench.runs.train import Prepared, execute
from mer_bench.settings import Request, RunSettings, TrainingSettings
from mer_bench.weights.checkpoint import read_checkpoint
from mer_bench.weights.fit import Fitted, Fitting, fit
from mer_flow.work.errors import UsageError as FlowUsageError


class Keepable(nn.Module):
    """A linear network that remembers what it was trained on."""

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


class Forgetful(Keepable):
    """What decides its logits is in no parameter and no buffer."""

    scales = itertools.count(1)

    def __init__(self, num_classes: int, in_channels: int = 3, map_size: int = 28) -> None:
        super().__init__(num_classes, in_channels, map_size)
        self.scale = next(self.scales)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return super().forward(maps) * self.scale


SHORT = Recipe(name="short", epochs=6, batch_size=16, lr=0.003)
SPEC = network_spec("keepable", Keepable, recipes={"short": SHORT})


@pytest.fixture
def keep(small_store: Path) -> Callable[..., Fitted]:
    def run(
        out: Path, spec: ModelSpec = SPEC, seed: int = 0, overrides: Any = None, **settings: Any
    ) -> Fitted:
        cited = settings.pop("cited", None)
        run = RunSettings(model=spec.name, **settings)
        request = Request(run, overrides or {}, TrainingSettings(device="cpu"))
        return fit(Registered(spec, "test 1.0"), request, small_store, out, Fitting(seed, run=cited))

    return run


def weights(folder: Path, spec: ModelSpec = SPEC) -> torch.Tensor:
    network: Any = read_checkpoint(folder, registered=Registered(spec, "test 1.0")).network
    return network.fc.weight


def test_every_sample_is_trained_on_and_the_checkpoint_says_what_it_is(
    keep: Callable[..., Fitted], tmp_path: Path
) -> None:
    Keepable.seen.clear()
    found = keep(tmp_path / "net")
    assert Keepable.seen == {sample.tobytes() for sample in found.data.maps} and len(Keepable.seen) == 54
    assert found.train_accuracy > 0.9
    kept = read_checkpoint(tmp_path / "net", registered=Registered(SPEC, "test 1.1"))
    about = kept.metadata
    assert about == found.metadata
    assert about.classes == ("negative", "positive", "surprise")
    assert (about.view, about.normalisation, about.scheme) == ("whole-28", "scaled", "megc3")
    assert about.pipeline["map_kind"]["values"] == "px" and about.pipeline_hash
    assert about.training["databases"] == {"casme2": 18, "samm": 18, "smic": 18}
    assert about.training["subject_names"][0] == "casme2/s00" and len(about.training["subject_names"]) == 9
    assert "no score" in about.training["trained_on"] and about.training["score"] is None
    assert kept.recipe == SHORT and kept.shape == (3, 28, 28)
    assert kept.record.config == {"num_classes": 3, "in_channels": 3, "map_size": 28, "dropout": 0.1}
    assert kept.notes == ("trained with keepable of test 1.0; here it is that of test 1.1",)


def test_the_same_seed_gives_the_same_weights(keep: Callable[..., Fitted], tmp_path: Path) -> None:
    torch.manual_seed(1)
    keep(tmp_path / "a")
    torch.manual_seed(2)
    keep(tmp_path / "b")
    keep(tmp_path / "c", seed=1)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_databases_can_be_chosen(keep: Callable[..., Fitted], tmp_path: Path) -> None:
    assert keep(tmp_path / "net", db=("samm", "smic")).metadata.training["samples"] == 36
    with pytest.raises(DataError, match=r"--db asks for casme3.*mer-flow build --db casme3"):
        keep(tmp_path / "other", db=("casme3",))


def test_what_cannot_be_kept_is_refused_and_leaves_nothing(
    keep: Callable[..., Fitted], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"a classifier and has no weights file.*pickle, which runs code"):
        keep(tmp_path / "net", MAJORITY[0])
    with pytest.raises(TrainingError, match=r"all samples.*epoch \d.*lower lr"):
        keep(tmp_path / "net", overrides={"lr": 1e38, "optimizer": "sgd"})
    with pytest.raises(RunError, match="read back, it answers otherwise than as trained"):
        keep(tmp_path / "net", network_spec("forgetful", Forgetful, recipes={"short": SHORT}))
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("dear")
    with pytest.raises(FlowUsageError, match="not an empty folder"):
        keep(tmp_path / "full")
    with pytest.raises(RunError, match="cannot be written"):
        keep(tmp_path / "full" / "thesis.tex" / "net")


def test_a_class_option_reaches_the_network(keep: Callable[..., Fitted], tmp_path: Path) -> None:
    spec = replace(SPEC, variants={"default": {}, "wet": {"dropout": 0.0}})
    found = keep(tmp_path / "net", spec, variant="wet")
    assert found.resolved.options == {"dropout": 0.0} and found.metadata.training["variant"] == "wet"
    kept: Any = read_checkpoint(tmp_path / "net", registered=Registered(spec, "test 1.0")).network
    assert kept.dropout.p == 0.0


def test_the_card_cites_a_run_of_the_same_recipe_and_no_other(
    keep: Callable[..., Fitted], prepared_with: Callable[..., Prepared], tmp_path: Path
) -> None:
    run = execute(prepared_with(SPEC, seeds=(0, 1)), tmp_path / "runs").run
    found = keep(tmp_path / "net", cited=run.path)
    score = found.metadata.training["score"]
    assert [score[name] for name in ("run", "protocol", "seeds")] == [run.path.name, "cde", 2]
    assert score["subjects"] == 12
    assert set(score["selections"]) == {"last", "oracle"}
    card = (tmp_path / "net" / "README.md").read_text()
    assert f"| last | {score['selections']['last']['uf1']:.4f} |" in card
    assert "| oracle (leaks: chosen on the test subject) |" in card
    assert "| samm | 18 | academic research, by signed agreement" in card
    assert "no score belongs to these very weights" in card and "54 samples of 9 subjects" in card
    keep(tmp_path / "bare")
    assert "no run of the same recipe was at hand" in (tmp_path / "bare" / "README.md").read_text()
    with pytest.raises(UsageError, match=r"cannot be cited: its recipe.epochs is 6, here it is 7"):
        keep(tmp_path / "other", overrides={"epochs": 7}, cited=run.path)
    with pytest.raises(RunError, match="nowhere"):
        keep(tmp_path / "other", cited=tmp_path / "nowhere")


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
    names = sorted(path.name for path in (tmp_path / "net").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
