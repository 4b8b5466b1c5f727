"""A run's networks, trained again: the very logits on record, and a store that is another one refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import RunError
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.refit import data_of, refit

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call: Call, small_store: Path, tmp_path: Path) -> RunDirectory:
    code, _, err = call(
        "run", "ahmsa", "--variant", "tiny", "--recipe", "quick", "--set", "epochs=2", "--protocol", "kfold",
        "--k", 2, "--scheme", "megc3", "--store", small_store, "--out", tmp_path, "--workers", 1, "--quiet",
    )  # fmt: skip
    assert code == 0, err
    (folder,) = tmp_path.iterdir()
    return RunDirectory(folder)


def test_a_fold_trained_again_gives_the_recorded_logits(run: RunDirectory) -> None:
    data = data_of(run)
    found = list(refit(run, data, 0, run.fold_names))
    assert [item.fold.name for item in found] == list(run.fold_names)
    assert max(item.difference for item in found) < 1e-5
    other = next(iter(refit(run, data, 0, run.fold_names[1:])))
    np.testing.assert_array_equal(other.network.head[1].weight.numpy(force=True),
                                  found[1].network.head[1].weight.numpy(force=True))  # fmt: skip


def test_a_store_of_other_maps_is_refused(
    run: RunDirectory, write_store: Callable[..., Path], tmp_path: Path
) -> None:
    other = write_store(tmp_path / "other.h5", seed=5)
    with pytest.raises(RunError, match="gives other maps or labels than the run was trained on"):
        data_of(run, other)


@pytest.mark.slow
def test_the_command_explains_held_out_samples(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("captum", reason="explaining needs ahmsa-model[explain]")
    from ahmsa_model.cli import main

    arguments = ["--run", str(run.path), "--out", str(tmp_path / "why"), "--limit", "1", "--json"]
    monkeypatch.setattr("sys.argv", ["ahmsa", "explain", *arguments])
    main()
    facts = json.loads(capsys.readouterr().out)
    assert "held-out samples of 1 of 2 folds, seed 0, folds trained again" in facts["source"]
    assert facts["largest_logit_difference"] < 1e-5
    first = next(fold for fold in run.manifest.folds if fold.name == run.fold_names[0])
    assert sum(row["samples"] for row in facts["classes"]) == len(first.test)
    assert (tmp_path / "why" / "explanation.png").stat().st_size > 5000
