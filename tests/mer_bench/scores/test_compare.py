"""Two runs against each other, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import RunError
from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered
from mer_bench.recipe import Recipe
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import prepare_data
from mer_bench.scores.compare import common_headline, compare_runs
from mer_bench.scores.summary import summarise
from mer_bench.settings import Request, RunSettings
from mer_bench.training.result import FoldResult

Make = Callable[..., FoldResult]


@pytest.fixture
def make_run(bench_data: BenchData, record: Make, tmp_path: Path) -> Callable[..., RunDirectory]:
    def build(name: str, skill: float, data: BenchData = bench_data, **settings: object) -> RunDirectory:
        run = RunSettings(**{"model": "majority", "protocol": "cde", **settings})  # type: ignore[arg-type]
        prepared = prepare_data(Registered(MAJORITY[0], "test"), Request(run), data)
        directory = RunDirectory.create_or_resume(tmp_path / name, prepared.manifest)
        labels = prepared.data.population.labels
        ids = prepared.data.population.sample_ids
        for seed in run.seeds:
            for fold in prepared.folds.folds:
                picks = []
                for i in fold.test:
                    rng = np.random.default_rng([seed, *map(ord, f"{name}{ids[i]}")])
                    picks.append(labels[i] if rng.random() < skill else (labels[i] + rng.integers(1, 3)) % 3)
                directory.write(
                    record(fold.name, fold.test, [picks], fold.inner, [[0] * len(fold.inner)], seed)
                )
        return directory

    return build


def test_a_better_run_is_found_better(make_run: Callable[..., RunDirectory]) -> None:
    found = compare_runs(make_run("a", 0.95, seeds=(0, 1)), make_run("b", 0.4, seeds=(1, 0, 2)), draws=1000)
    assert found.seeds == (0, 1)
    test = found.tests["Full"]["uf1"]
    a, b = found.values["Full"]["uf1"]
    assert test.difference == pytest.approx(a - b)
    assert test.low > 0.2 and test.p_value < 0.01
    assert set(found.tests) == {"Full", "casme2", "samm", "smic"}
    assert all(p < 0.001 and only_a > only_b for only_a, only_b, p in found.mcnemar.values())


def test_a_single_seed_stands_against_each_of_the_others(make_run: Callable[..., RunDirectory]) -> None:
    one, several = make_run("one", 0.7, seeds=(4,)), make_run("several", 0.5, seeds=(0, 1, 2))
    found = compare_runs(one, several, draws=300)
    assert (found.seeds, found.against) == ((4,), (0, 1, 2)) and set(found.mcnemar) == {0, 1, 2}
    turned = compare_runs(several, one, draws=300)
    test, other = found.tests["Full"]["uf1"], turned.tests["Full"]["uf1"]
    assert (test.difference, test.low) == pytest.approx((-other.difference, -other.high))
    assert test.p_value == other.p_value
    a, b = found.values["Full"]["uf1"]
    assert a == summarise(one).selections["last"]["Full"].figures["uf1"].mean
    assert b == pytest.approx(summarise(several).selections["last"]["Full"].figures["uf1"].mean)


def test_a_run_equals_itself(make_run: Callable[..., RunDirectory]) -> None:
    run = make_run("a", 0.6)
    found = compare_runs(run, run, draws=200)
    assert all(
        test.p_value == 1 and test.difference == 0 for t in found.tests.values() for test in t.values()
    )
    assert found.mcnemar == {0: (0, 0, 1.0)}


def test_row_order_does_not_matter(make_run: Callable[..., RunDirectory], bench_data: BenchData) -> None:
    order = np.random.default_rng(1).permutation(len(bench_data.maps))
    columns = ("sample_ids", "subjects", "databases", "labels")
    population = bench_data.population
    other = replace(
        bench_data,
        maps=bench_data.maps[order],
        population=replace(population, **{name: getattr(population, name)[order] for name in columns}),
    )
    a, b = make_run("a", 0.8), make_run("b", 0.5)
    shuffled = make_run("b", 0.5, data=other)
    assert shuffled.path != b.path
    assert compare_runs(a, b, draws=300).to_json() == compare_runs(a, shuffled, draws=300).to_json()


def test_what_cannot_be_compared_is_refused(
    make_run: Callable[..., RunDirectory], bench_data: BenchData
) -> None:
    run = make_run("a", 0.6)
    half = bench_data.population.databases != "smic"
    columns = ("sample_ids", "subjects", "databases", "labels")
    part = replace(
        bench_data,
        maps=bench_data.maps[half],
        population=replace(
            bench_data.population, **{name: getattr(bench_data.population, name)[half] for name in columns}
        ),
    )
    for other, message in (
        (make_run("b", 0.6, protocol="hde"), "protocol cde against hde"),
        (make_run("b", 0.6, shuffle_labels=0), "other labels"),
        (make_run("b", 0.6, data=part), "20 samples are in one of them only"),
    ):
        with pytest.raises(RunError, match=message):
            compare_runs(run, other, draws=100)
    with pytest.raises(RunError, match=r"share no seed: \[0, 1\] and \[2, 3\]"):
        compare_runs(make_run("s", 0.6, seeds=(0, 1)), make_run("t", 0.6, seeds=(2, 3)), draws=100)
    folds = make_run("c", 0.6, protocol="kfold")
    with pytest.raises(RunError, match="hold out different samples"):
        compare_runs(folds, make_run("d", 0.6, protocol="kfold", fold_seed=1), draws=100)
    run.record_path(0, "samm/s00").unlink()
    with pytest.raises(RunError, match="missing: samm/s00"):
        compare_runs(run, make_run("e", 0.6), draws=100)


def test_runs_are_compared_by_their_headline(finished: Callable[..., RunDirectory]) -> None:
    a, b = finished("a", 0.5, epochs=4), finished("b", 0.5, epochs=4)
    assert compare_runs(a, b, draws=100).selection == "last"
    tail = compare_runs(a, b, selection="tail", draws=100)
    assert tail.values != compare_runs(a, b, draws=100).values

    def told(run: RunDirectory, headline: str) -> RunDirectory:
        """As a network's of several epochs."""
        identity = run.manifest.identity.model_copy(update={"recipe": Recipe(epochs=4)})
        settings = run.manifest.settings.changed(headline=headline)
        run.manifest = run.manifest.model_copy(update={"identity": identity, "settings": settings})
        return run

    a, b = told(a, "tail"), told(b, "tail")
    assert compare_runs(a, b, draws=100).values == tail.values
    # A classifier's one epoch is either.
    assert common_headline([a, finished("c")]) == "tail"
    with pytest.raises(RunError, match=r"a-cde-\w+ has tail, .*b-cde-\w+ has last"):
        compare_runs(a, told(b, "last"), draws=100)


def test_reserving_inner_subjects_does_not_hinder_a_comparison(make_run: Callable[..., RunDirectory]) -> None:
    found = compare_runs(make_run("a", 0.6), make_run("b", 0.6, inner=True), draws=100)
    assert found.seeds == (0,)
