"""Settings models: what is read, what is refused and how, and the layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from mer_flow.work.errors import MerFlowError, UsageError
from mer_flow.work.settings import Settings, layered, parse_sets, read_toml


class Inner(Settings):
    where = "inner"
    rate: float = Field(default=0.1, gt=0)
    share: float = Field(default=0.5, ge=0, lt=1)


class Model(Settings):
    size: int = Field(default=224, ge=28, le=2048)
    at_least: int = Field(default=1, ge=1)
    seed: int | None = None
    name: str = "x"
    kind: Literal["fast", "slow"] = "fast"
    on: bool = False
    bases: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"size": "128"}, {"size": 128}),
        ({"seed": "3"}, {"seed": 3}),
        ({"seed": "none"}, {"seed": None}),
        ({"on": "yes"}, {"on": True}),
        ({"bases": "samm, smic"}, {"bases": ("samm", "smic")}),
        ({"bases": ["samm"]}, {"bases": ("samm",)}),
        ({"weights": "1,2e-1"}, {"weights": (1.0, 0.2)}),
        ({"weights": 2}, {"weights": (2.0,)}),
        ({"inner": {"rate": "1e-4"}}, {"inner": Inner(rate=1e-4)}),
    ],
)
def test_values_are_read_as_the_type_of_their_field(given: dict[str, Any], read: dict[str, Any]) -> None:
    model = Model(**given)
    assert {name: getattr(model, name) for name in read} == read


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 3}, "size must lie in [28, 2048], got 3"),
        ({"at_least": 0}, "at_least must be at least 1, got 0"),
        ({"inner": {"rate": 0}}, "inner.rate must be above 0, got 0"),
        ({"inner": {"rate": "inf"}}, "inner.rate must be finite and above 0, got inf"),
        ({"inner": {"share": 1}}, "inner.share must lie in [0, 1), got 1"),
        ({"size": "wide"}, "size: expected int, got 'wide'"),
        ({"size": 2.5}, "size: expected int, got 2.5"),
        ({"size": True}, "size: expected int, got True"),
        ({"on": "maybe"}, "on: expected bool, got 'maybe'"),
        ({"name": 3}, "name: expected str, got 3"),
        ({"weights": "1,x"}, "weights: expected float, got 'x'"),
        ({"kind": "slwo"}, "unknown value of kind 'slwo'; did you mean 'slow'? Known: fast, slow"),
        ({"sise": 3}, "unknown setting 'sise'; did you mean 'size'?"),
        ({"share": 3}, "unknown setting 'share'; did you mean 'inner.share'?"),
        ({"inner": {"raet": 3}}, "unknown setting 'inner.raet'; did you mean 'inner.rate'?"),
        ({"inner": 3}, "inner must be a table of key = value, got 3"),
    ],
)
def test_a_fault_is_told_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Model(**given)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_model_names_its_own_error_and_word() -> None:
    class Picky(Settings):
        error = MerFlowError
        what = "field"

    with pytest.raises(MerFlowError, match="unknown field 'x'") as caught:
        Picky(x=1)
    assert not isinstance(caught.value, UsageError)


def test_a_copy_is_checked_like_a_new_one_and_serves_as_a_key() -> None:
    model = Model(size=64)
    assert model.changed(on="on") == Model(size=64, on=True)
    assert {model: 1}[Model(size=64)] == 1
    with pytest.raises(UsageError, match="must lie in"):
        model.changed(size=1)
    with pytest.raises(ValueError, match="frozen"):
        model.size = 65  # type: ignore[misc]


def test_later_layers_win_key_by_key() -> None:
    file = {"size": 64, "inner": {"rate": 0.3, "share": 0.1}}
    merged = layered(file, {"inner.rate": "0.2"}, {"size": 128})
    assert merged == {"size": 128, "inner": {"rate": "0.2", "share": 0.1}}
    assert file == {"size": 64, "inner": {"rate": 0.3, "share": 0.1}}
    assert layered({"inner": 3}, {"inner.rate": 1}) == {"inner": {"rate": 1}}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["size"], "--set size: expected key=value"),
        (["=3"], "--set =3: expected key=value"),
        (["a=1", "a=2"], "--set a is given twice"),
    ],
)
def test_sets_that_are_none_are_refused(pairs: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_sets(pairs)
    assert parse_sets([" a = b=c "]) == {"a": "b=c"}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"a = ", "is not TOML"), (b"\xff\xfe", "is not TOML")],
)
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"configuration .*x\.toml.*{message}"):
        read_toml(path)
    path.write_text("[inner]\nrate = 1\n")
    assert read_toml(path) == {"inner": {"rate": 1}}
