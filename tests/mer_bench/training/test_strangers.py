"""Models of strangers that end the program: contained and named, while the others go on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe
from mer_bench.runs.train import Prepared, execute


def leave(**options: Any) -> Any:
    """A builder that ends the program."""
    sys.exit(0)


class Leaving(nn.Linear):
    """A network that ends the program once it is trained."""

    def forward(self, maps: Tensor) -> Tensor:
        if self.training:
            sys.exit(0)
        return super().forward(maps.flatten(1))


def leaving(num_classes: int, in_channels: int, map_size: int) -> nn.Module:
    return Leaving(in_channels * map_size**2, num_classes)


class LeavingClassifier:
    """A classifier that ends the program when it is asked."""

    def fit(self, maps: np.ndarray, labels: np.ndarray) -> None:
        pass

    def predict(self, maps: np.ndarray) -> np.ndarray:
        sys.exit(0)


def leaving_classifier(**options: Any) -> LeavingClassifier:
    return LeavingClassifier()


def network(build: Callable[..., Any]) -> ModelSpec:
    return ModelSpec(
        name="stranger", title="Stranger", build=build, kind="network", views=("whole-28:scaled",),
        citation="none", exactness="baseline", recipes={"short": Recipe(epochs=1)},
    )  # fmt: skip


@pytest.mark.parametrize(
    "spec", [network(leave), replace(MAJORITY[0], build=leave)], ids=["network", "classifier"]
)
def test_a_builder_that_exits_is_refused_before_training(
    spec: ModelSpec, prepared_with: Callable[..., Prepared]
) -> None:
    with pytest.raises(UsageError, match="cannot be built or run: it raised SystemExit: 0"):
        prepared_with(spec, protocol="kfold", k=2)


@pytest.mark.parametrize("engine", ["local", "stacked"])
@pytest.mark.parametrize(
    "spec", [network(leaving), replace(MAJORITY[0], build=leaving_classifier)], ids=["network", "classifier"]
)
def test_a_model_that_exits_in_training_fails_its_folds(
    spec: ModelSpec, engine: str, prepared_with: Callable[..., Prepared], tmp_path: Path
) -> None:
    outcome = execute(prepared_with(spec, protocol="kfold", k=2, engine=engine), tmp_path)
    (failure,) = outcome.failures
    assert "SystemExit: 0" in failure and not outcome.status.complete


@pytest.mark.parametrize("name", ["../../outside", "/etc/x", "", "a b", "-rf", "x\ny", "y" * 101])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="run directories are called after it"):
        replace(MAJORITY[0], name=name)
