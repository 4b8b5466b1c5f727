"""Absurd values and nested files: one line each, exit code 2, before memory is taken."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]

FLAGS = [
    (("--seeds", "1000000000"), "seeds: expected a count"),
    (("--seeds", "1e400"), "seeds: expected"),
    (("--seeds", "9" * 400 + ","), "seeds: expected"),
    (("--seeds", "-1,"), "seeds: expected"),
    (("--fold-seed", "-1"), "fold_seed must lie in [0, 9223372036854775807], got -1"),
    (("--shuffle-labels", "-5"), "shuffle_labels must be at least 0"),
    (("--k", "-3"), "k must be at least 2"),
    (("--inner-fraction", "nan"), "inner_fraction"),
    (("--set", "epochs=1000000000000"), "recipe.epochs must lie in [1, 100000]"),
    (("--set", "batch_size=1" + "0" * 40), "recipe.batch_size must lie in"),
    (("--set", "shift=1000000000"), "recipe.shift must lie in [0, 1024]"),
    (("--set", "rotate=1e300"), "recipe.rotate must lie in [0, 180]"),
    (("--set", "lr=1e999"), "recipe.lr must be finite"),
    (("--set", "lr=nan"), "recipe.lr must be finite"),
    (("--set", "warmup_epochs=-2"), "recipe.warmup_epochs must lie in"),
    (("--set", "class_weights=1e999,1,1"), "class_weights"),
    (("--set", "options.x=" + "[" * 50_000), "unknown setting"),
    (("--tail-epochs", "0"), "tail_epochs must be at least 1"),
    (("--workers", "-1"), "workers must be at least 1"),
    (("--limit", "0"), "0 is not in the range"),
    (("--shard", "9" * 5000 + "/3"), "--shard"),
]


@pytest.mark.parametrize(("words", "message"), FLAGS, ids=lambda value: str(value)[:40])
def test_an_absurd_flag_is_one_line(
    call: Call, small_store: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    common = ("--protocol", "cde", "--store", small_store, "--out", tmp_path / "runs", "--dry-run")
    code, out, err = call("run", "ststnet", *common, *words)
    assert code == 2, (out, err)
    told = [line for line in err.splitlines() if not line.startswith(("Usage:", "Try ")) and line]
    assert len(told) == 1 and message in told[0], err
    assert len(told[0]) < 1500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    assert not (tmp_path / "runs").exists()


NESTED = {
    "lists": "x = " + "[" * 100_000,
    "shallow lists": "seeds = " + "[" * 60 + "]" * 60,
    "tables": "[" + ".".join("a" * 400) + "]\nx = 1\n",
    "keys": ".".join("a" * 10_000) + " = 1\n",
    "size": "# " + "x" * 2_000_000,
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_nested_file_is_one_line(call: Call, small_store: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "c.toml").write_text(NESTED[kind])
    code, _, err = call(
        "run", "ststnet", "--protocol", "cde", "--store", small_store, "--config", tmp_path / "c.toml"
    )
    assert code == 2 and len(err.splitlines()) == 1, err
    assert "nests tables or lists deeper than 20" in err or "has more than 1,048,576 bytes" in err


def test_an_endless_file_is_one_line(call: Call, small_store: Path) -> None:
    code, _, err = call(
        "run", "ststnet", "--protocol", "cde", "--store", small_store, "--config", "/dev/zero"
    )
    assert code == 2 and "more than" in err


@pytest.mark.parametrize(
    ("model", "option", "message"),
    [
        ("htnet", "width=1000000000", "options.width must be at most 1048576"),
        ("htnet", "width=1" + "0" * 20, "options.width must be at most 1048576"),
        ("htnet", "blocks=1000000,1000000,1000000", "more than 2,000 weight tensors"),
        ("causalnet", "blocks=1,1,1000000", "more than 2,000 weight tensors"),
        ("htnet", "width=100000", "or 2,000,000,000 values"),
    ],
)
def test_an_absurd_size_of_a_model_is_one_line(
    call: Call, small_store: Path, model: str, option: str, message: str
) -> None:
    words = ("--protocol", "cde", "--store", small_store, "--set", option, "--dry-run")
    code, out, err = call("run", model, *words)
    assert code == 2 and message in err and len(err.splitlines()) == 1, out + err
