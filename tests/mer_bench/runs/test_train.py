"""Runs end to end on a small store: resume, kill, damage, limit, inner, control."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.mer_bench.specs import network_spec

from mer_bench.errors import RunError, UsageError
from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered, Registry
from mer_bench.models.spec import ModelSpec
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.recipe import Recipe
from mer_bench.report.render import to_csv, to_markdown
from mer_bench.report.tables import build_tables
from mer_bench.report.terminal import render_run
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import Prepared, execute, prepare, prepare_data
from mer_bench.scores.summary import summarise
from mer_bench.settings import Request, RunSettings, TrainingSettings

Prepare = Callable[..., Prepared]


def build_linear(num_classes: int, in_channels: int = 3, map_size: int = 28):
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * map_size**2, num_classes))


SHORT = Recipe(name="short", epochs=4, batch_size=16, lr=0.003)
LINEAR = network_spec("linear", build_linear, recipes={"short": SHORT})


def table(run: RunDirectory) -> str:
    return to_csv(build_tables([summarise(run, draws=200)]))


def test_a_run_is_complete_and_scored(prepared_with: Prepare, tmp_path: Path) -> None:
    outcome = execute(prepared_with(LINEAR, seeds=(0, 1)), tmp_path)
    assert (outcome.trained, outcome.kept, outcome.failures) == (24, 0, ())
    assert outcome.status.complete
    summary = summarise(outcome.run)
    assert list(summary.selections) == ["last", "tail", "oracle"]
    assert list(summary.selections["last"]) == ["Full", "casme2", "samm", "smic"]
    assert summary.selections["last"]["Full"].figures["uf1"].mean > 0.9
    assert summary.manifest.parameters == 3 * 28 * 28 * 3 + 3
    assert summary.gap("oracle", "Full", "accuracy") >= 0


def test_a_second_call_trains_nothing(prepared_with: Prepare, tmp_path: Path) -> None:
    prepared = prepared_with(LINEAR)
    first = execute(prepared, tmp_path)
    stamps = {p: p.stat().st_mtime_ns for p in first.run.path.rglob("*.npz")}
    second = execute(prepared, tmp_path)
    assert (second.trained, second.kept) == (0, 12)
    assert {p: p.stat().st_mtime_ns for p in first.run.path.rglob("*.npz")} == stamps


def test_progress_counts_every_missing_fold_of_every_seed(prepared_with: Prepare, tmp_path: Path) -> None:
    execute(prepared_with(LINEAR), tmp_path, limit=5)
    told: list[tuple[int, int]] = []
    execute(prepared_with(LINEAR, seeds=(0, 1)), tmp_path, on_progress=lambda *at: told.append(at))
    total = (7 + 12) * 4  # missing folds of both seeds, epochs
    assert {of for _, of in told} == {total} and told[-1][0] == total
    assert told == sorted(told)


def test_limit_leaves_a_run_that_is_never_tabulated(prepared_with: Prepare, tmp_path: Path) -> None:
    prepared = prepared_with(LINEAR)
    whole = execute(prepared, tmp_path / "whole")
    part = execute(prepared, tmp_path / "part", limit=5)
    assert part.trained == 5
    with pytest.raises(RunError, match=r"incomplete.*7 of 12 missing: samm/s01, samm/s02"):
        summarise(part.run)
    rest = execute(prepared, tmp_path / "part")
    assert (rest.trained, rest.kept) == (7, 5)
    assert table(rest.run).replace("part", "whole") == table(whole.run)
    with pytest.raises(UsageError, match="--limit"):
        execute(prepared, tmp_path, limit=0)


def test_a_class_absent_from_training_is_named_by_status_and_report(
    bench_data: BenchData, tmp_path: Path
) -> None:
    # All of a class in one subject: the fold that holds it out cannot learn it.
    population = bench_data.population
    labels = np.where(population.subjects == "samm/s01", 2, population.labels % 2)
    data = replace(bench_data, population=replace(population, labels=labels))
    request = Request(RunSettings(protocol="cde"), training=TrainingSettings(device="cpu", workers=1))
    run = execute(prepare_data(Registered(LINEAR, "test 1.0"), request, data), tmp_path).run
    note = "class 'surprise' has no training sample, so it cannot be predicted there"
    assert run.read(0, "samm/s01").notes == (note,)
    notes = run.status().notes[0]
    assert notes == (("samm/s01", note),)
    assert run.describe_notes(notes) == (f"fold 'samm/s01': {note}",)
    # The manifest's warning says it already; a report says it once.
    assert render_run(summarise(run, draws=100)).count(note) == 1
    assert to_markdown(build_tables([summarise(run, draws=100)])).count(note) == 1


def test_a_damaged_record_is_set_aside_and_trained_again(prepared_with: Prepare, tmp_path: Path) -> None:
    prepared = prepared_with(LINEAR)
    first = execute(prepared, tmp_path)
    before = table(first.run)
    path = first.run.record_path(0, "samm/s02")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"1 of 12 damaged: samm/s02"):
        summarise(first.run)
    again = execute(prepared, tmp_path)
    assert (again.trained, again.kept) == (1, 11)
    assert [aside.name for aside in again.set_aside] == ["samm%2Fs02.npz.damaged"]
    assert table(again.run) == before


def test_other_settings_are_another_run(prepared_with: Prepare) -> None:
    digests = [
        prepared_with(LINEAR, overrides, **settings).manifest.digest
        for overrides, settings in (
            ({}, {}),
            ({"lr": 0.1}, {}),
            ({}, {"inner": True}),
            ({}, {"protocol": "kfold"}),
            ({}, {"protocol": "kfold", "fold_seed": 1}),
            ({}, {"shuffle_labels": 0}),
        )
    ]
    assert len(set(digests)) == len(digests)
    # What does not change a result does not change the run.
    how = {"device": "cpu", "workers": 2, "chunk": 3, "deterministic": True, "precision": "float32"}
    for training in (how, {"engine": "stacked", "compile": True}):
        same = prepared_with(LINEAR, {}, seeds=(4,), **training).manifest
        assert same.digest == digests[0] and set(training) <= same.training.model_fields_set


def test_inner_is_a_selection_of_its_own(prepared_with: Prepare, tmp_path: Path) -> None:
    outcome = execute(prepared_with(LINEAR, inner=True), tmp_path)
    summary = summarise(outcome.run)
    assert list(summary.selections) == ["last", "tail", "inner", "oracle"]
    subjects = outcome.run.column("subjects")
    for fold, kept in zip(outcome.run.manifest.folds, outcome.run.records(0), strict=True):
        assert tuple(kept.inner_index) == fold.inner
        sides = [set(subjects[list(side)]) for side in (fold.train, fold.inner, fold.test)]
        assert all(sides) and not (sides[0] & sides[1] or sides[1] & sides[2] or sides[0] & sides[2])


def test_shuffled_labels_score_at_chance_under_last_and_above_under_oracle(
    prepared_with: Prepare, tmp_path: Path
) -> None:
    last, oracle = [], []
    for seed in range(5):
        prepared = prepared_with(LINEAR, {"epochs": 12}, shuffle_labels=seed)
        summary = summarise(execute(prepared, tmp_path).run, draws=100)
        assert summary.is_control and not summary.comparable
        assert f"CONTROL: labels shuffled, seed {seed}" in summary.title
        last.append(summary.selections["last"]["Full"].figures["uar"].mean)
        oracle.append(summary.selections["oracle"]["Full"].figures["uar"].mean)
    # 60 samples: one run's UAR has a standard deviation of about 0.06 around 1/3.
    assert abs(np.mean(last) - 1 / 3) < 0.09
    assert np.mean(oracle) > np.mean(last) + 0.05


def test_a_classifier_has_no_oracle(prepared_with: Prepare, tmp_path: Path) -> None:
    summary = summarise(execute(prepared_with(MAJORITY[0]), tmp_path).run)
    assert list(summary.selections) == ["last", "tail"]
    assert summary.selections["last"]["Full"].figures["uar"].mean <= 1 / 3 + 1e-9


def test_a_network_that_cannot_read_the_maps_is_refused_before_training(prepared_with: Prepare) -> None:
    with pytest.raises(UsageError, match=r"'ststnet'.*dropout.*cannot be built or run.*between 0 and 1"):
        prepared_with(STSTNET[0], {"options.dropout": "7"})


@pytest.mark.parametrize(
    ("fault", "devices"),
    [("maps.unflatten(1, (7, -1))", ["meta"]), ("maps.sum().item() / 0", ["meta", "cpu"])],
)
def test_memory_is_taken_only_to_try_a_network_that_needs_values(
    fault: str, devices: list[str], prepared_with: Prepare
) -> None:
    from torch import nn

    built: list[str] = []

    class Faulty(nn.Module):
        def __init__(self, num_classes: int, in_channels: int = 3, map_size: int = 28) -> None:
            super().__init__()
            self.head = nn.Linear(1, num_classes)
            built.append(self.head.weight.device.type)

        def forward(self, maps):
            return eval(fault)

    with pytest.raises(UsageError, match="cannot be built or run"):
        prepared_with(ModelSpec(**{**vars(LINEAR), "build": Faulty}))
    assert built == devices


def test_logits_of_a_wrong_shape_are_refused(prepared_with: Prepare) -> None:
    def build(num_classes: int, in_channels: int = 3, map_size: int = 28):
        return build_linear(num_classes + 1, in_channels, map_size)

    with pytest.raises(UsageError, match=r"shape \(2, 4\) for 2 samples, expected \(2, 3\)"):
        prepared_with(ModelSpec(**{**vars(LINEAR), "build": build}))


def test_diverging_folds_are_listed_and_the_run_stays_incomplete(
    prepared_with: Prepare, tmp_path: Path
) -> None:
    outcome = execute(prepared_with(LINEAR, {"lr": 1e38, "optimizer": "sgd"}), tmp_path)
    assert not outcome.status.complete
    assert "seed 0" in outcome.failures[0] and "loss" in outcome.failures[0]


def test_the_manifest_says_what_decides_the_result(prepared_with: Prepare, tmp_path: Path) -> None:
    run = execute(prepared_with(LINEAR), tmp_path).run
    kept = json.loads((run.path / "manifest.json").read_text())
    assert run.path.name == f"linear-cde-{kept['digest'][:12]}"
    assert kept["training"]["workers"] == 1 and "workers" not in kept["settings"]
    assert set(kept["versions"]) == {"python", "mer-bench", "model", "mer-flow", "numpy", "torch"}
    assert kept["identity"]["recipe"]["epochs"] == 4
    assert len(kept["folds"]) == 12
    assert len(kept["samples"]["sample_ids"]) == 60
    assert any("not" not in text and "composite has 24 subjects" in text for text in kept["deviations"])


def bench(out: Path, store: Path, *more: str, epochs: int = 20) -> list[str]:
    """The command of a run that takes a few seconds."""
    settings = [
        "--set",
        f"epochs={epochs}",
        "--set",
        "batch_size=16",
        "--workers",
        "1",
        "--quiet",
        "--yes",
        *more,
    ]
    command = ["run", "ststnet", "--protocol", "cde", "--store", str(store), "--out", str(out), *settings]
    return [sys.executable, "-m", "mer_bench.cli", *command]


@contextmanager
def begun(
    out: Path, store: Path, until: str, count: int = 1, epochs: int = 20
) -> Iterator[subprocess.Popen[str]]:
    """That run in another process, as soon as so many files of a name are there; ended afterwards."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(bench(out, store, epochs=epochs), **pipes) as process:
        try:
            deadline = time.monotonic() + 120
            while len(list(out.rglob(until))) < count:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_table(small_store: Path, tmp_path: Path) -> None:
    with begun(tmp_path / "killed", small_store, "*.npz", 3) as process:
        process.send_signal(signal.SIGKILL)
    (path,) = (tmp_path / "killed").iterdir()
    before = RunDirectory(path).status()
    assert 3 <= len(before.done[0]) < before.total and before.writer is None

    with pytest.raises(RunError, match="incomplete and cannot be tabulated") as refusal:
        summarise(RunDirectory(path))
    assert all(fold in str(refusal.value) for fold in before.missing[0])

    done = subprocess.run(bench(tmp_path / "killed", small_store), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(before.done[0])} kept from before" in done.stdout

    request = Request(
        RunSettings(protocol="cde"), {"epochs": 20, "batch_size": 16}, TrainingSettings(workers=1)
    )
    whole = execute(prepare(Registry().find("ststnet"), request, small_store), tmp_path / "whole").run
    assert whole.path.name == path.name
    assert table(RunDirectory(path)) == table(whole)
    for one, other in zip(RunDirectory(path).records(0), whole.records(0), strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


@pytest.mark.slow
def test_of_two_runs_in_one_directory_one_trains(small_store: Path, tmp_path: Path) -> None:
    with begun(tmp_path, small_store, "manifest.json", epochs=20_000) as first:
        (path,) = tmp_path.iterdir()
        held = f"is being written by pid {first.pid} on "
        # Looking on must not let go of the lock, neither from within nor from outside.
        assert str(RunDirectory(path).status().writer).startswith(f"pid {first.pid} on ")
        for _ in range(2):
            command = bench(tmp_path, small_store, "--seeds", "2", epochs=20_000)
            second = subprocess.run(command, capture_output=True, text=True)
            assert (second.returncode, len(second.stderr.splitlines())) == (1, 1), second.stderr
            assert held in second.stderr and "mer-bench status" in second.stderr
        assert first.poll() is None
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=60)
    assert first.returncode == 130 and "the same command continues" in err and "Traceback" not in err
    assert RunDirectory(path).seeds == (0,) and RunDirectory(path).status().writer is None
    assert not list(path.rglob("*.tmp")) and not (path / ".lock").exists()


def test_a_network_of_a_notebook_is_refused_with_the_remedy(small_store: Path, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from torch import nn
from mer_bench.models.registry import Registered
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe
from mer_bench.runs.train import execute, prepare
from mer_bench.settings import Request, RunSettings, TrainingSettings

def build(num_classes, in_channels, map_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * map_size**2, num_classes))

recipes = {"own": Recipe(epochs=1)}
spec = ModelSpec("mine", "Mine", build, "network", ("whole-28:scaled",), "me", "baseline", recipes)
store, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
run = RunSettings(model="mine", protocol="loso", db=("samm",))
request = Request(run, {}, TrainingSettings(device="cpu", workers=workers))
print(execute(prepare(Registered(spec, "mine 1"), request, store), out).trained)
"""
    outcomes = [
        subprocess.run(  # as in a notebook, __main__ is no file
            [sys.executable, "-c", script, small_store, tmp_path, str(workers)],
            capture_output=True,
            text=True,
        )
        for workers in (2, 1)
    ]
    assert [one.returncode for one in outcomes] == [1, 0] and outcomes[1].stdout == "3\n"
    assert re.search(
        r"UsageError: model 'mine' is defined in a notebook or in __main__.*build.*into a module .*workers=1",
        outcomes[0].stderr.splitlines()[-1],
    )
    assert "BrokenProcessPool" not in outcomes[0].stderr and outcomes[0].stderr.count("Traceback") == 1
