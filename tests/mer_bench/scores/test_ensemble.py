"""Ensembles: means of recorded probabilities against closed forms, and what cannot be a member."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import RunError, UsageError
from mer_bench.report.leaderboard import build_leaderboards
from mer_bench.report.tables import build_tables
from mer_bench.report.terminal import render_run
from mer_bench.runs.data import BenchData
from mer_bench.runs.derived import derived_manifest, write_derived
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import Derived
from mer_bench.scores.compare import compare_runs
from mer_bench.scores.ensemble import average, combine_by, ensemble_weights, fit_weights
from mer_bench.scores.members import Members, pair_seeds, read_members
from mer_bench.scores.selection import select
from mer_bench.scores.summary import summarise

Finished = Callable[..., RunDirectory]


def write(members: Members, out: Path, mean: str = "log-probability", fitted: bool = False) -> RunDirectory:
    weights = ensemble_weights(members, mean, fitted)
    how = {"mean": mean, "weights": "fitted" if fitted else "equal"}
    derived = Derived(how="ensemble", members=members.members, selection="last", **how)
    manifest = derived_manifest("both", derived, members.manifests, tuple(members.scores), members.digest())
    return write_derived(out, manifest, members.results("ensemble", combine_by(mean), weights))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def test_the_mean_of_probabilities_is_soft_voting() -> None:
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB

    rng = np.random.default_rng(0)
    maps, labels = rng.normal(size=(60, 4)), np.arange(60) % 3
    voting = VotingClassifier(
        [("lr", LogisticRegression()), ("nb", GaussianNB())], voting="soft", weights=[1, 3]
    ).fit(maps, labels)
    scores = np.log([one.predict_proba(maps) for one in voting.estimators_])
    found = average(scores, np.array([0.25, 0.75]), "probability")
    np.testing.assert_allclose(np.exp(found), voting.predict_proba(maps), rtol=1e-10)


def test_the_mean_of_log_probabilities_is_the_geometric_mean() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (3, 20, 4))
    weights = np.array([0.2, 0.3, 0.5])
    product = np.prod(softmax(logits) ** weights[:, None, None], axis=0)
    found = np.exp(average(logits, weights))
    np.testing.assert_allclose(found, product / product.sum(1, keepdims=True), rtol=1e-12)
    # Nothing but differences between the classes of a sample counts.
    np.testing.assert_allclose(np.exp(average(logits + 7, weights)), found, rtol=1e-12)


@pytest.mark.parametrize("mean", ["probability", "log-probability"])
def test_fitted_weights_are_the_best_of_a_fine_grid(mean: str) -> None:
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(1)
    labels = np.arange(300) % 3
    skills = np.array([2.0, 0.7])[:, None, None]
    scores = rng.normal(size=(2, 300, 3)) * 1.5 + skills * np.eye(3)[labels]

    def loss(first: float) -> float:
        return log_loss(labels, np.exp(average(scores, np.array([first, 1 - first]), mean)))

    found = fit_weights(scores, labels, mean, np.array([0.5, 0.5]))
    grid = np.linspace(0, 1, 201)
    best = grid[np.argmin([loss(first) for first in grid])]
    assert found.sum() == pytest.approx(1) and 0 < best < 1
    assert found[0] == pytest.approx(best, abs=0.006)


def test_a_member_of_no_use_gets_no_weight_and_twins_share_theirs() -> None:
    labels = np.arange(90) % 3
    truth = np.eye(3)[labels]
    scores = np.stack([2 * truth, -2 * truth])
    np.testing.assert_allclose(fit_weights(scores, labels, "probability", np.full(2, 0.5)), [1, 0], atol=1e-6)
    twins = np.stack([truth, truth])
    np.testing.assert_allclose(fit_weights(twins, labels, "log-probability", np.full(2, 0.5)), [0.5, 0.5])


def test_its_training_figures_are_the_members_own_of_the_last_epoch(
    finished: Finished, tmp_path: Path
) -> None:
    courses = {"a": [0.5, 0.9, 0.4], "b": [0.1, 0.7, 0.2]}  # the best is not the last
    runs = [finished(name, 1.0, epochs=3) for name in courses]
    for run, course in zip(runs, courses.values(), strict=True):
        figures = np.array(course, np.float32)
        for kept in run.records(0):
            run.write(replace(kept, train_accuracy=figures, train_loss=2 * figures))
    for found in write(read_members([run.path for run in runs], "last"), tmp_path / "out").records(0):
        assert found.train_accuracy.tolist() == pytest.approx([0.3])
        assert found.train_loss.tolist() == pytest.approx([0.6])


def test_an_ensemble_is_a_run_like_any_other(finished: Finished, tmp_path: Path) -> None:
    from sklearn.metrics import f1_score

    a, b = finished("a", 1.0, epochs=2, seeds=(0, 1)), finished("b", 0.8)
    run = write(read_members([a.path, b.path], "last"), tmp_path / "out")
    assert RunDirectory(run.path).status().complete and run.path.name.startswith("both-cde-")
    labels = run.column("labels")
    summary = summarise(run, draws=100)
    for place, seed in enumerate((0, 1)):
        parts = [softmax(select(of.records(s), labels).scores) for of, s in ((a, seed), (b, 0))]
        predicted = (parts[0] * parts[1]).argmax(1)
        wanted = f1_score(labels, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
        assert summary.selections["last"]["Full"].figures["uf1"].per_seed[place] == pytest.approx(wanted)
    assert summary.selections["tail"] is summary.selections["last"]
    assert run.manifest.derived is not None
    assert [member.seeds for member in run.manifest.derived.members] == [{0: 0, 1: 1}, {0: 0, 1: 0}]
    # It names its members wherever it is told.
    (table,) = build_tables([summary])
    assert [row.values["selection"] for row in table.rows] == ["last epoch"]
    assert any(f"A, whole-28:scaled ({a.path.name}, 0.500)" in note for note in table.notes)
    assert f"B, whole-28:scaled: {b.path.name}" in render_run(summary)
    (board,) = build_leaderboards([summarise(a, draws=50), summary])
    assert {row.values["variant"] for row in board.rows} == {"default", "ensemble"}
    back = json.loads(json.dumps(summary.to_json()))
    assert [member["weight"] for member in back["members"]] == [0.5, 0.5]
    assert compare_runs(run, a, draws=100).seeds == (0, 1)


def test_seeds_may_be_averaged_too_and_every_run_has_the_same_weight(
    finished: Finished, tmp_path: Path
) -> None:
    a, b = finished("a", 1.0, seeds=(0, 1, 4)), finished("b", 0.8)
    members = read_members([a.path, b.path], "last", pool_seeds=True)
    np.testing.assert_allclose(
        ensemble_weights(members, "probability")[0], np.tile([1 / 6] * 3 + [1 / 2], (12, 1))
    )
    assert [m.title for m in members.members] == ["A, seed 0", "A, seed 1", "A, seed 4", "B"]
    alone = write(read_members([a.path], "last", (0, 4), pool_seeds=True), tmp_path / "out", "probability")
    labels = a.column("labels")
    parts = [softmax(select(a.records(seed), labels).scores) for seed in (0, 4)]
    found = select(alone.records(0), labels).scores
    np.testing.assert_allclose(np.exp(found), np.mean(parts, 0), rtol=1e-5)


def test_weights_are_fitted_on_the_other_folds_alone(
    finished: Finished, bench_data: BenchData, tmp_path: Path
) -> None:
    a, b = finished("a", 1.5), finished("b", 0.5)
    members = read_members([a.path, b.path], "last")
    run = write(members, tmp_path / "out", fitted=True)
    fold = run.manifest.folds[3]
    others = np.setdiff1d(np.arange(60), fold.test)
    scores = members.scores[0][:, others]
    wanted = fit_weights(scores, members.labels[others], "log-probability", np.full(2, 0.5))
    (kept,) = [record for record in run.records(0) if record.fold == fold.name]
    assert [*kept.decided["weights"]] == [a.path.name, b.path.name]
    np.testing.assert_allclose([*kept.decided["weights"].values()], wanted, atol=1e-9)
    assert wanted[0] > 0.6
    # A fold's own labels have no hand in its weights.
    other = members.labels.copy()
    other[list(fold.test)] = (other[list(fold.test)] + 1) % 3
    weights = [
        ensemble_weights(each, "probability", fitted=True)[0]
        for each in (members, replace(members, labels=other))
    ]
    np.testing.assert_array_equal(weights[0][3], weights[1][3])
    assert not np.array_equal(weights[0][4], weights[1][4])
    single = finished("c", protocol="cross-db", train_db="smic", test_db="samm")
    twin = finished("d", protocol="cross-db", train_db="smic", test_db="samm")
    with pytest.raises(RunError, match="single fold"):
        ensemble_weights(read_members([single.path, twin.path], "last"), "probability", fitted=True)
    assert ensemble_weights(read_members([single.path, twin.path], "last"), "probability")[0].shape == (1, 2)
    # Of two folds, either is the other's.
    halves = [finished(name, protocol="kfold", k=2).path for name in "ef"]
    assert ensemble_weights(read_members(halves, "last"), "probability", fitted=True)[0].shape == (2, 2)


def test_rows_are_matched_by_sample(finished: Finished, bench_data: BenchData, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(len(bench_data.maps))
    population = bench_data.population
    columns = ("sample_ids", "subjects", "databases", "labels")
    moved = replace(population, **{name: getattr(population, name)[order] for name in columns})
    other = replace(bench_data, maps=bench_data.maps[order], population=moved)
    a, b, shuffled = finished("a", 1.0), finished("b", 0.5), finished("b", 0.5, data=other)
    straight, mixed = (read_members([a.path, run.path], "last") for run in (b, shuffled))
    np.testing.assert_array_equal(straight.scores[0], mixed.scores[0])
    assert write(mixed, tmp_path / "out").status().complete


def test_what_cannot_be_a_member_is_refused_by_name_and_count(
    finished: Finished, bench_data: BenchData
) -> None:
    a = finished("a")
    population = bench_data.population
    half = population.databases != "smic"
    columns = ("sample_ids", "subjects", "databases", "labels")
    part = replace(population, **{name: getattr(population, name)[half] for name in columns})
    fewer = replace(bench_data, maps=bench_data.maps[half], population=part)
    classes = replace(bench_data, population=replace(population, classes=("a", "b", "c")))
    for other, message in (
        (finished("b", data=fewer), f"{a.path.name} and .* members of one run: 20 samples are in one"),
        (finished("b", shuffle_labels=0), r"\d+ samples have other labels"),
        (finished("b", data=classes), "classes .*negative.* against .*'a', 'b', 'c'"),
        (finished("b", protocol="hde"), "protocol cde against hde"),
    ):
        with pytest.raises(RunError, match=message):
            read_members([a.path, other.path], "last")
    folds = [finished("c", protocol="kfold", fold_seed=seed).path for seed in (0, 1)]
    with pytest.raises(RunError, match=r"different samples \(5 folds, as fold-1, of 5 and 5\)"):
        read_members(folds, "last")
    several = [finished("d", seeds=(0, 1)).path, finished("e", seeds=(1, 2)).path]
    with pytest.raises(
        RunError, match=r"d-cde-\w+ has \[0, 1\], .*e-cde-\w+ has \[1, 2\], 1 in common.*--seeds 1,"
    ):
        read_members(several, "last")
    assert [m.seeds for m in read_members(several, "last", (1,)).members] == [{1: 1}, {1: 1}]
    with pytest.raises(UsageError, match="same run"):
        read_members([a.path, a.path], "last")
    with pytest.raises(UsageError, match="at least two finished runs are needed"):
        read_members([a.path], "last")
    with pytest.raises(UsageError, match="did you mean 'tail'"):
        read_members([a.path, several[0]], "tial")
    f = finished("f")
    f.record_path(0, "samm/s00").unlink()
    with pytest.raises(
        RunError, match=r"f-cde-\w+ is incomplete and cannot be a member. seed 0: 1 of 12 missing"
    ):
        read_members([a.path, f.path], "last")


def test_seeds_of_single_members_need_not_agree() -> None:
    assert pair_seeds({"a": (3,), "b": (5,)}) == [{3: 3}, {3: 5}]
    assert pair_seeds({"a": (3,), "b": (0, 1)}) == [{0: 3, 1: 3}, {0: 0, 1: 1}]


def test_an_ensemble_of_controls_is_a_control(finished: Finished, tmp_path: Path) -> None:
    paths = [finished(name, shuffle_labels=2).path for name in "ab"]
    summary = summarise(write(read_members(paths, "last"), tmp_path / "out"), draws=50)
    assert summary.is_control and "[CONTROL: labels shuffled, seed 2]" in summary.title


def test_other_records_make_another_run(finished: Finished, tmp_path: Path) -> None:
    a, b = finished("a"), finished("b")
    first = write(read_members([a.path, b.path], "last"), tmp_path / "out")
    again = write(read_members([a.path, b.path], "last"), tmp_path / "out")
    assert first.path == again.path
    kept = a.records(0)[0]
    a.write(replace(kept, logits=kept.logits + np.array([1, 0, 0], np.float32)))
    assert write(read_members([a.path, b.path], "last"), tmp_path / "out").path != first.path
