"""Each conformance check finds the fault that it is there for; a sound third-party model passes all."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from mer_bench.cli.check import check_command
from mer_bench.conformance import Subject, checks_for, examine, write_reference_store
from mer_bench.errors import ConformanceError, MerBenchError, UsageError
from mer_bench.models.registry import Registry
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe
from mer_flow.work.errors import MerFlowError

PLUGIN = Path(__file__).parents[1] / "plugins" / "centroid" / "src" / "mer_bench_centroid" / "__init__.py"


def run(check: str, subject: Subject) -> str:
    (found,) = (each for each in checks_for(subject.spec) if each.name == check)
    return found(subject)


class Sound(nn.Module):
    """Nothing wrong with it; the faulty ones below differ in one thing each."""

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28, width: int = 8
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * map_size**2, width), nn.Tanh())
        self.head = nn.Linear(width, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        return self.head(self.body(maps))


class OneClassTooMany(Sound):
    def __init__(self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28) -> None:
        super().__init__(num_classes + 1, in_channels, map_size)


class UnusedParameter(Sound):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.forgotten = nn.Parameter(torch.zeros(3))


class DeclaresTooMuch(Sound):
    def untrained_parameters(self) -> tuple[str, ...]:
        return ("head.weight",)


class CountsInEvaluation(Sound):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        self.seen.add_(1)
        return super().forward(maps)


class ForgetsWhatItSaw(Sound):
    """A running statistic that is not saved."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale = torch.ones(())

    def forward(self, maps: Tensor) -> Tensor:
        if self.training:
            self.scale = 1 + maps.detach().abs().mean()
        return super().forward(maps) * self.scale


class AlwaysTheSame(Sound):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.01)


class DrawsOnItsOwn(Sound):
    noise = np.random.default_rng(0)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps + float(self.noise.normal()) * self.training)


class NeedsAValue(Sound):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rates = [float(rate) for rate in torch.linspace(0, 1, 3)]


def bent(forward: Callable[[Any, Tensor], Tensor]) -> type[Sound]:
    """Returns a network that is wrong in how it is called."""
    return type("Bent", (Sound,), {"forward": forward})


SubtractsBatchMean = bent(lambda self, maps: Sound.forward(self, maps - maps.mean(0, keepdim=True)))
DrawsInEvaluation = bent(lambda self, maps: Sound.forward(self, maps) + torch.rand(()))
BranchesOnValues = bent(lambda self, maps: Sound.forward(self, maps) * (1 if maps.sum() < 1e9 else -1))
SeesNothing = bent(lambda self, maps: Sound.forward(self, maps * 0))
RawErrorOnSmallMaps = bent(lambda self, maps: Sound.forward(self, maps) + 0 * maps.unfold(2, 7, 1).sum())
Diverges = bent(lambda self, maps: Sound.forward(self, maps) / (0.0 if self.training else 1.0))
# In training a row depends on the padding beside it.
AveragesTheBatch = bent(
    lambda self, maps: (
        Sound.forward(self, maps) + self.training * Sound.forward(self, maps).sum(0, keepdim=True)
    )
)


def spec_of(build: Callable[..., Any], **changes: Any) -> ModelSpec:
    with torch.device("meta"):
        count = sum(p.numel() for p in build(num_classes=3, in_channels=3, map_size=28).parameters())
    spec = ModelSpec(
        "sound", "Sound", build, "network", ("whole-28:scaled",), "Ours.", "baseline",
        recipes={"r": Recipe(name="r", lr=1e-3, optimizer="adamw")}, default_recipe="r", parameters=count,
        licence="Ours.",
    )  # fmt: skip
    return replace(spec, **changes)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reference_store(tmp_path_factory.mktemp("conformance") / "reference.h5")


def test_a_sound_network_passes_every_check(reference: Path) -> None:
    findings = list(examine(Subject(spec_of(Sound), reference)))
    assert len(findings) == 16
    assert [(f.check, f.detail) for f in findings if not f.passed] == []


@pytest.mark.parametrize(
    ("build", "check", "message"),
    [
        (OneClassTooMany, "logits", r"logits of shape \(1, 4\), expected \(1, 3\)"),
        (OneClassTooMany, "variants", r"gives logits of shape"),
        (Diverges, "logits", "1 map.s. in training give logits that are not finite"),
        (Diverges, "recipes-train", "loss became"),
        (UnusedParameter, "gradients", "1 of 5 parameters never get a gradient: forgotten"),
        (DeclaresTooMuch, "gradients", "names head.weight, which do get a gradient"),
        (SubtractsBatchMean, "companions", "differ by .* with the maps beside them"),
        (DrawsInEvaluation, "companions", "other logits the second time"),
        (CountsInEvaluation, "companions", "evaluation changes seen"),
        (ForgetsWhatItSaw, "saving", "a checkpoint gives other logits"),
        (BranchesOnValues, "stacking", "nothing in forward may depend on a tensor's values"),
        (AlwaysTheSame, "stacking", "networks of different seeds are the same"),
        (DrawsOnItsOwn, "same-seed", "seed 0 gives other logits the second time"),
        (AveragesTheBatch, "stacked-training", "trained stacked and alone, logits differ"),
        (SeesNothing, "memorising", r"at most \d+ of 16 training samples right"),
        (NeedsAValue, "variants", "cannot be built without memory"),
        (NeedsAValue, "parameter-count", "meta device"),
        (RawErrorOnSmallMaps, "other-maps", "maps of 3x1x1 end in RuntimeError"),
    ],
)  # fmt: skip
def test_a_fault_of_a_network_is_found(
    build: type[nn.Module], check: str, message: str, reference: Path
) -> None:
    spec = replace(spec_of(Sound), build=build) if build is NeedsAValue else spec_of(build)
    with pytest.raises((MerBenchError, RuntimeError), match=message):
        run(check, Subject(spec, reference))


class Penalised(Sound):
    """Reads labels in training and adds a penalty, where asked to."""

    def __init__(self, penalty: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.trains_with_labels = penalty

    def forward(self, maps: Tensor, labels: Tensor | None = None, progress: Tensor | None = None) -> Any:
        logits = super().forward(maps)
        if labels is None or progress is None:
            return logits
        return logits, progress * logits.gather(1, labels[:, None]).squeeze(1) ** 2


def test_each_way_to_be_trained_is_examined(reference: Path) -> None:
    variants: dict[str, dict[str, Any]] = {"wide": {"width": 16}, "plain": {}, "penalty": {"penalty": True}}
    spec = spec_of(Penalised, variants=variants, default_variant="plain")
    subject = Subject(spec, reference)
    assert subject.variant == "penalty" or subject.sizes["penalty"] == subject.sizes["plain"]
    assert set(subject.ways_to_train) == {"plain", "penalty"}
    assert "penalty: " in run("stacked-training", subject)


@pytest.mark.parametrize(
    ("changes", "check", "message"),
    [
        ({"name": "Sound_Net"}, "describes-itself", "not kebab-case"),
        ({"citation": " "}, "describes-itself", "citation is empty"),
        ({"licence": ""}, "describes-itself", "licence is empty"),
        ({"exactness": "reconstructed"}, "describes-itself", "filled_in names no choice"),
        ({"filled_in": ("no stop",)}, "describes-itself", "full stop"),
        ({"parameters": None}, "describes-itself", "parameters is not given"),
        ({"variants": {"default": {"widht": 4}}}, "variants", "widht"),
        ({"recipes": {"x": Recipe(name="y")}, "default_recipe": "x"}, "describes-itself", "listed as 'x'"),
        ({"parameters": 7}, "parameter-count", "but ModelSpec.parameters says 7"),
        ({"views": ("whoel-28:scaled",)}, "is-fed", "did you mean 'whole-28'"),
        ({"views": ("whole-28:scald",)}, "is-fed", "did you mean 'scaled'"),
        ({"views": ("whole-500:scaled",)}, "is-fed", "views only reduce"),
        ({"recipes": {"r": Recipe(name="r", layer_decay=0.5)}}, "recipes", "tells no depths"),
        ({"recipes": {"r": Recipe(name="r", isda=0.5)}}, "recipes", "has no implicit semantic augmentation"),
        ({"recipes": {"r": Recipe(name="r", class_weights=(1.0, 2.0))}}, "recipes", "class_weights"),
    ],
)
def test_a_fault_of_a_description_is_found(
    changes: dict[str, Any], check: str, message: str, reference: Path
) -> None:
    with pytest.raises((MerBenchError, MerFlowError), match=message):
        run(check, Subject(spec_of(Sound, **changes), reference))


def test_a_builder_that_cannot_be_imported_is_found(reference: Path) -> None:
    with pytest.raises(ConformanceError, match="cannot be pickled"):
        run("pickles", Subject(spec_of(lambda **options: Sound(**options)), reference))


class Nearest:
    """A sound classifier with features."""

    def __init__(self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28) -> None:
        self.num_classes = num_classes

    def features(self, maps: np.ndarray, view: str) -> np.ndarray:
        return maps.reshape(len(maps), -1)

    def fit(self, inputs: np.ndarray, labels: np.ndarray) -> Nearest:
        self.inputs, self.labels = inputs.copy(), labels
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self.labels[((inputs[:, None] - self.inputs) ** 2).sum(2).argmin(1)]


class CentresFeatures(Nearest):
    def features(self, maps: np.ndarray, view: str) -> np.ndarray:
        flat = super().features(maps, view)
        return flat - flat.mean(0)


class CentresPredictions(Nearest):
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return super().predict(inputs - inputs.mean(0))


class Guesses(Nearest):
    chance = np.random.default_rng(0)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self.chance.integers(0, 3, len(inputs))


class PredictsTooMuch(Nearest):
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return super().predict(inputs) + 1


class AlwaysOne(Nearest):
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.ones(len(inputs), np.int64)


class WrongChances(Nearest):
    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        return np.full((len(inputs), 3), 0.5)


class RawErrorInFeatures(Nearest):
    def features(self, maps: np.ndarray, view: str) -> np.ndarray:
        return maps.reshape(len(maps), 3, 28 * 28).sum(2)


def classifier_of(build: Callable[..., Any]) -> ModelSpec:
    return ModelSpec(
        "near", "Near", build, "classifier", ("whole-28:scaled",), "Ours.", "exact", licence="Ours."
    )


def test_a_sound_classifier_passes_every_check(reference: Path) -> None:
    findings = list(examine(Subject(classifier_of(Nearest), reference)))
    assert len(findings) == 10
    assert [(f.check, f.detail) for f in findings if not f.passed] == []


@pytest.mark.parametrize(
    ("build", "check", "message"),
    [
        (CentresFeatures, "features", "together and one by one differ"),
        (CentresPredictions, "companions", "predictions alone differ"),
        (Guesses, "same-seed", "predicted otherwise the second time"),
        (PredictsTooMuch, "classes", "expected classes 0 to 2"),
        (WrongChances, "classes", "rows summing to"),
        (AlwaysOne, "absent-class", "without having seen"),
        (AlwaysOne, "fitting", r"gets \d+ of them right"),
        (RawErrorInFeatures, "other-maps", "ValueError: cannot reshape"),
    ],
)
def test_a_fault_of_a_classifier_is_found(
    build: type[Nearest], check: str, message: str, reference: Path
) -> None:
    with pytest.raises(ConformanceError, match=message):
        run(check, Subject(classifier_of(build), reference))


def third_party() -> tuple[ModelSpec, ...]:
    found = importlib.util.spec_from_file_location("mer_bench_centroid_under_test", PLUGIN)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # pickled by name
    found.loader.exec_module(module)
    return module.SPECS


@pytest.mark.parametrize("name", ["centroid", "linear"])
def test_a_third_partys_models_conform(name: str, reference: Path) -> None:
    (spec,) = (spec for spec in third_party() if spec.name == name)
    subject = Subject(spec, reference)
    assert [(f.check, f.detail) for f in examine(subject) if not f.passed] == []


def test_the_command_line_says_what_was_seen() -> None:
    done = CliRunner().invoke(check_command, ["--conformance", "majority", "--conformance", "majority"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len(lines) == 10 + 1
    assert lines[-1] == "majority: conforms"


def test_the_command_line_fails_where_a_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(classifier_of(AlwaysOne), name="majority")
    monkeypatch.setattr(Registry, "get", lambda self, name: spec)
    done = CliRunner().invoke(check_command, ["--conformance", "majority", "--json"])
    assert done.exit_code == 1
    found = {finding["check"]: finding for finding in json.loads(done.output)["majority"]}
    assert not found["fitting"]["passed"]
    assert found["pickles"]["passed"]


def test_an_unknown_model_is_suggested() -> None:
    done = CliRunner().invoke(check_command, ["--conformance", "ststnett"])
    assert isinstance(done.exception, UsageError)
    assert "did you mean 'ststnet'" in str(done.exception)
