"""What a model knows of `--set`: typed, unknown keys suggested, applied to its variant and recipe."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass, replace
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field
from tests.mer_bench.specs import network_spec

from mer_bench.errors import UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe
from mer_bench.resolve import option_types, resolve
from mer_bench.settings import Request, RunSettings


def build(
    num_classes: int,
    in_channels: int = 3,
    map_size: int = 28,
    width: int = 8,
    dims: tuple[int, ...] = (1, 2),
    mode: Literal["a", "b"] = "a",
    gamma: float = 2.0,
) -> Any:
    return None


SPEC = network_spec(
    "net",
    build,
    recipes={"paper": Recipe(name="paper", epochs=10), "fast": Recipe(name="fast", epochs=2)},
    default_recipe="paper",
    variants={"default": {}, "tiny": {"width": 2}},
)


def resolved(**overrides: Any) -> Any:
    run = overrides.pop("run", RunSettings(model="net", protocol="cde"))
    return resolve(SPEC, Request(run, {key.replace("__", "."): value for key, value in overrides.items()}))


def options(**kinds: Any) -> ModelSpec:
    """A classifier whose builder takes options of these types."""

    def build(num_classes: int, **options: Any) -> None: ...

    build.config = make_dataclass("Config", kinds.items())  # type: ignore[attr-defined]
    return replace(SPEC, build=build, kind="classifier", recipes={}, variants={"default": {}})


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("1e-4", float, 1e-4),
        (3, float, 3.0),
        ("12", int, 12),
        ("no", bool, False),
        (True, bool, True),
        ("none", int | None, None),
        ("4", int | None, 4),
        ("a,b", tuple[str, ...], ("a", "b")),
        ("1,2", list[int], (1, 2)),
        ([1, 2], tuple[int, ...], (1, 2)),
        ("adam", Literal["adam", "sgd"], "adam"),
        ("{deep = 2}", dict, {"deep": 2}),
        ("plain text", object, "plain text"),
    ],
)
def test_values_take_the_type_of_their_option(value: Any, kind: Any, expected: Any) -> None:
    found = resolve(options(key=kind), Request(RunSettings(), {"key": value})).options["key"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("fast", float, "options.key: expected float, got 'fast'"),
        ("1.5", int, "expected int"),
        (True, int, "expected int"),
        ("maybe", bool, "expected bool"),
        ("adm", Literal["adam", "sgd"], "did you mean 'adam'"),
        ("1,x", tuple[int, ...], "expected int"),
        (3, str, "expected str"),
    ],
)
def test_a_wrong_type_is_named(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(options(key=kind), Request(RunSettings(), {"key": value}))


def test_overrides_reach_recipe_and_options() -> None:
    found = resolved(lr="1e-3", width="16", recipe__gamma="0.5", options__gamma=3, dims="4,5", mode="b")
    assert found.recipe == Recipe(name="paper", epochs=10, lr=1e-3, gamma=0.5)
    assert found.options == {"width": 16, "gamma": 3.0, "dims": (4, 5), "mode": "b"}
    apart = {"lr": 1e-3, "gamma": 0.5, "width": 16, "dims": (4, 5), "mode": "b", "options.gamma": 3.0}
    assert found.changes == apart


def test_variant_and_recipe_are_the_base() -> None:
    found = resolved(run=RunSettings(model="net", protocol="cde", variant="tiny", recipe="fast"), epochs=3)
    assert (found.options, found.recipe.epochs, found.recipe.name) == ({"width": 2}, 3, "fast")
    assert found.changes == {"epochs": 3}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"options__widht": 3}, "did you mean 'width'"),
        ({"recipe__width": 3}, "unknown setting 'width'"),
        ({"training__lr": 3}, "unknown setting group 'training'"),
        ({"gamma": 1}, r"write recipe\.gamma or options\.gamma"),
        ({"epochs": 0}, r"\[1, 100000\]"),
        ({"lr": "-1"}, "above 0"),
        ({"flip": 2}, r"\[0, 1\]"),
        ({"lr": "nan"}, "above 0"),
        ({"lr": "inf"}, "finite"),
        ({"eps": -1}, "above 0"),
        ({"beta1": 1}, r"\[0, 1\)"),
        ({"cb_beta": 1}, r"\[0, 1\)"),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"run": RunSettings(model="net", variant="tny")}, "did you mean 'tiny'"),
        ({"run": RunSettings(model="net", recipe="papr")}, "did you mean 'paper'"),
    ],
)
def test_what_cannot_be_is_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolved(**overrides)


@dataclass
class DataclassConfig:
    num_classes: int = 3
    depth: int = 2


class PydanticConfig(BaseModel):
    num_classes: int = 3
    depth: int = Field(default=2, ge=1)


def test_options_of_a_builder_that_takes_any_or_has_a_config() -> None:
    def build_any(num_classes: int, in_channels: int = 3, map_size: int = 28, **options: Any) -> Any:
        return None

    spec = replace(SPEC, build=build_any, kind="classifier", recipes={}, variants={"default": {}})
    assert option_types(spec) == ({}, True)
    assert resolve(spec, Request(RunSettings(), {"options.depth": "5"})).options == {"depth": 5}
    with pytest.raises(UsageError, match=r"options\.depth"):
        resolve(spec, Request(RunSettings(), {"depth": "5"}))
    for config in (DataclassConfig, PydanticConfig):
        build_any.config = config  # type: ignore[attr-defined]
        known, open_ended = option_types(spec)
        assert list(known) == ["depth"] and not open_ended
        assert resolve(spec, Request(RunSettings(), {"depth": "5"})).options == {"depth": 5}
    with pytest.raises(UsageError, match=r"options\.depth must be at least 1, got 0"):
        resolve(spec, Request(RunSettings(), {"depth": "0"}))


def test_a_classifier_takes_no_recipe() -> None:
    spec = replace(SPEC, kind="classifier", recipes={})
    assert resolve(spec, Request(RunSettings())).recipe is None
    with pytest.raises(UsageError, match="takes no recipe"):
        resolve(spec, Request(RunSettings(recipe="paper")))
    with pytest.raises(UsageError, match="unknown setting 'lr'"):
        resolve(spec, Request(RunSettings(), {"lr": 1}))
