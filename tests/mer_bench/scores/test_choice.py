"""Choices that never look at the fold they are made for: by jackknife and by inner folds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import ProtocolError, RunError, UsageError
from mer_bench.models.registry import Registered, Registry
from mer_bench.models.spec import ModelSpec
from mer_bench.protocols.folds import Population
from mer_bench.protocols.splits import get_protocol
from mer_bench.report.tables import build_tables
from mer_bench.report.terminal import render_run
from mer_bench.runs.data import BenchData
from mer_bench.runs.derived import derived_manifest, write_derived
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import Derived
from mer_bench.runs.nested import inner_folds, outer_of, prepare_inner
from mer_bench.runs.train import Prepared, prepare_data
from mer_bench.scores.choice import inner_scores, jackknife_scores, one_of, others_uf1, take
from mer_bench.scores.members import read_members
from mer_bench.scores.metrics import accuracy, confusion_matrix, uf1
from mer_bench.scores.summary import summarise
from mer_bench.settings import Request, RunSettings, TrainingSettings
from mer_bench.training.folds import run_folds
from mer_bench.training.job import TrainingData
from mer_bench.training.result import FoldResult

Finished = Callable[..., RunDirectory]


def choose(paths: list[Path], out: Path) -> RunDirectory:
    members = read_members(paths, "last")
    scores = jackknife_scores(members)
    weights = {seed: one_of(each) for seed, each in scores.items()}
    derived = Derived(how="jackknife", members=members.members, selection="last")
    manifest = derived_manifest("best", derived, members.manifests, tuple(members.scores), members.digest())
    return write_derived(out, manifest, members.results("jackknife", take, weights, scores))


def test_members_are_scored_on_the_other_folds_alone() -> None:
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, (4, 50))
    order = rng.permutation(48)  # two samples are never tested
    tests = [order[:5], order[5:25], order[25:48]]
    found = others_uf1(predicted, labels, tests, 3)
    for fold in range(3):
        others = np.concatenate([test for place, test in enumerate(tests) if place != fold])
        for member in range(4):
            wanted = f1_score(
                labels[others], predicted[member, others], labels=[0, 1, 2], average="macro", zero_division=0
            )
            assert found[fold, member] == pytest.approx(wanted)
    ties = one_of(np.array([[0.5, 0.5, 0.2], [0.1, 0.3, 0.3]]))
    assert ties.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_a_choice_is_a_run_of_the_chosen_records(finished: Finished, tmp_path: Path) -> None:
    runs = [finished("a", 0.3, seeds=(0, 1)), finished("b", 0.5, seeds=(0, 1)), finished("c", 0.3)]
    run = choose([of.path for of in runs], tmp_path / "out")
    chosen = {0: 0, 1: 0, 2: 0}
    for seed in (0, 1):
        for record in run.records(seed):
            weights = [*record.decided["weights"].values()]
            place = weights.index(1.0)
            chosen[place] += 1
            assert sorted(weights) == [0, 0, 1]
            assert place == int(np.argmax([*record.decided["scores"].values()]))
            of = runs[place]
            taken = of.read(seed if len(of.seeds) > 1 else 0, record.fold)
            np.testing.assert_array_equal(record.logits, taken.logits)
            assert record.train_accuracy == taken.train_accuracy
    summary = summarise(run, draws=100)
    assert [member.weight * 24 for member in summary.members] == pytest.approx([*chosen.values()])
    # The naive choice is the best member on all it is scored on, and is never told without saying so.
    singles = [summarise(of, draws=50).selections["last"]["Full"].figures["uf1"] for of in runs]
    best = [max(one.per_seed[min(seed, len(one.per_seed) - 1)] for one in singles) for seed in (0, 1)]
    assert summary.selections["naive"]["Full"].figures["uf1"].per_seed == pytest.approx(best)
    (table,) = build_tables([summary])
    assert [row.leaks for row in table.rows] == [False, True] and "LEAKS" in table.rows[1].values["selection"]
    assert any("not nested cross-validation" in note for note in table.notes)
    assert any("naive choice LEAKS" in note for note in table.notes)
    text = render_run(summary)
    assert "naive choice (LEAKS)" in text and "chosen for" in text
    figures = json.loads(json.dumps(summary.to_json()))["selections"]["naive"]["Full"]["figures"]
    assert figures["uf1"]["gap"] == summary.gap("naive", "Full", "uf1") >= 0


def test_a_single_fold_leaves_nothing_to_choose_by(finished: Finished) -> None:
    settings = {"protocol": "cross-db", "train_db": "smic", "test_db": "samm"}
    members = read_members([finished(name, **settings).path for name in "ab"], "last")
    with pytest.raises(RunError, match="'cross-db' has a single fold"):
        jackknife_scores(members)


def test_on_chance_the_jackknife_stays_at_chance_and_the_naive_choice_does_not() -> None:
    tests = [np.arange(5 * fold, 5 * fold + 5) for fold in range(30)]
    honest, naive, single = [], [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        labels, predicted = rng.permutation(np.arange(150) % 3), rng.integers(0, 3, (30, 150))
        chosen = one_of(others_uf1(predicted, labels, tests, 3)).argmax(1)
        mixed = np.concatenate([predicted[member, test] for member, test in zip(chosen, tests, strict=True)])
        every = [float(uf1(confusion_matrix(labels, each, 3))) for each in predicted]
        honest.append(float(uf1(confusion_matrix(labels, mixed, 3))))
        naive.append(max(every))
        single.append(np.mean(every))
    assert np.mean(single) == pytest.approx(1 / 3, abs=0.005)
    assert np.mean(honest) == pytest.approx(1 / 3, abs=0.02)
    assert np.mean(naive) > 0.4


class Centroid:
    """The nearest class mean on some pixels of the maps; which, is a variant."""

    def __init__(self, pixels: int) -> None:
        self.pixels = np.random.default_rng(pixels).permutation(3 * 28 * 28)[:4]

    def fit(self, maps: np.ndarray, labels: np.ndarray) -> Centroid:
        rows = maps.reshape(len(maps), -1)[:, self.pixels]
        self.classes_ = np.unique(labels)
        self.means = np.stack([rows[labels == c].mean(0) for c in self.classes_])
        return self

    def decision_function(self, maps: np.ndarray) -> np.ndarray:
        rows = maps.reshape(len(maps), -1)[:, self.pixels]
        return -((rows[:, None] - self.means) ** 2).sum(2)

    def predict(self, maps: np.ndarray) -> np.ndarray:
        return self.classes_[self.decision_function(maps).argmax(1)]


def build_centroid(num_classes: int, in_channels: int, map_size: int, pixels: int) -> Centroid:
    return Centroid(pixels)


CANDIDATES = 8
SPEC = ModelSpec(
    name="centroid",
    title="Centroid",
    build=build_centroid,
    kind="classifier",
    views=("whole-28:scaled",),
    citation="none",
    exactness="baseline",
    variants={f"v{i}": {"pixels": i} for i in range(CANDIDATES)},
    default_variant="v0",
)


class Kept:
    def __init__(self) -> None:
        self.records: list[FoldResult] = []

    def fold(self, result: FoldResult) -> None:
        self.records.append(result)

    def progress(self, done: int, total: int) -> None:
        pass


def trained(prepared: Prepared) -> list[FoldResult]:
    sink = Kept()
    job = replace(prepared.job, training=prepared.job.training.changed(engine="auto"))
    data = TrainingData(prepared.data.maps, prepared.data.population.labels)
    run_folds(job, data, prepared.folds.folds, None, sink)
    return sorted(sink.records, key=lambda record: record.fold)


def nested(data: BenchData, k: int) -> tuple[float, float, float]:
    """Return the accuracy of the nested and of the naive choice among the candidates, and their own mean."""
    labels, outer, scores = data.population.labels, [], []
    for variant in SPEC.variants:
        registered = Registered(SPEC, "test 1.0")
        request = Request(RunSettings(model="centroid", protocol="cde", variant=variant))
        prepared = prepare_data(registered, request, data)
        outer.append(trained(prepared))
        found = inner_scores(trained(prepare_inner(prepared, registered, request, k)), labels, "last")
        scores.append([found[record.fold] for record in outer[-1]])
    rows = np.concatenate([record.test_index for record in outer[0]])
    predicted = np.array([np.concatenate([r.logits[-1].argmax(1) for r in records]) for records in outer])
    fold = np.repeat(np.arange(len(outer[0])), [len(record.test_index) for record in outer[0]])
    mixed = predicted[one_of(np.array(scores).T).argmax(1)[fold], np.arange(len(rows))]
    every = [float(accuracy(confusion_matrix(labels[rows], each, 3))) for each in predicted]
    return float(accuracy(confusion_matrix(labels[rows], mixed, 3))), max(every), float(np.mean(every))


def test_on_permuted_labels_the_nested_choice_stays_at_chance(
    populate: Callable[..., Population], bench_data: BenchData
) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=bench_data.maps.shape).astype(np.float32)
    found = np.mean([nested(replace(bench_data, maps=maps).shuffled(seed), 3) for seed in range(4)], axis=0)
    honest, naive, single = found
    assert single == pytest.approx(1 / 3, abs=0.03)
    # Below chance rather than above: who lacks a class in test has more of it in training.
    assert 0.2 < honest < 1 / 3 + 0.03
    assert naive > 1 / 3 + 0.06


def test_a_candidate_that_is_truly_better_is_chosen_by_inner_folds(bench_data: BenchData) -> None:
    labels = bench_data.population.labels
    maps = np.random.default_rng(0).normal(size=bench_data.maps.shape).astype(np.float32)
    seen = Centroid(5).pixels
    flat = maps.reshape(len(maps), -1)
    flat[:, seen[:3]] += 6 * np.eye(3, dtype=np.float32)[labels]
    honest, naive, _ = nested(replace(bench_data, maps=flat.reshape(maps.shape)), 3)
    assert honest == naive > 0.95


def test_inner_folds_keep_every_held_out_subject_out(population: Population) -> None:
    outer = get_protocol("cde").cut(population)
    inner = inner_folds(outer, 4)
    assert len(inner) == 4 * len(outer)
    for fold in outer.folds:
        held_out = set(population.subjects[fold.test])
        mine = [one for one in inner.folds if outer_of(one.name) == fold.name]
        np.testing.assert_array_equal(np.sort(np.concatenate([one.test for one in mine])), fold.train)
        for one in mine:
            train, test = set(population.subjects[one.train]), set(population.subjects[one.test])
            assert not train & test and not held_out & (train | test)
            np.testing.assert_array_equal(np.union1d(one.train, one.test), fold.train)
    assert inner_folds(outer, 4, 1).digest() != inner.digest() == inner_folds(outer, 4).digest()
    with pytest.raises(ProtocolError, match=r"inner folds of 'casme2/s00': .* lower --inner-k"):
        inner_folds(outer, 12)


def test_inner_folds_are_a_run_of_the_same_network(bench_data: BenchData) -> None:
    registered = Registry().find("ststnet")
    settings = RunSettings(model="ststnet", protocol="cde", view="whole-28", normalisation="scaled")
    request = Request(settings, {"epochs": 2}, TrainingSettings(device="cpu"))
    prepared = prepare_data(registered, request, bench_data)
    inner = prepare_inner(prepared, registered, request, 2)
    found, wanted = inner.manifest, prepared.manifest
    assert found.parameters == wanted.parameters > 0 and found.identity.recipe == wanted.identity.recipe
    assert [fold.name for fold in found.folds] == list(inner.folds.names)
    assert len(found.folds) == 2 * len(wanted.folds)


def test_a_name_that_is_no_name_is_refused(finished: Finished, tmp_path: Path) -> None:
    members = read_members([finished(name).path for name in "ab"], "last")
    derived = Derived(how="jackknife", members=members.members, selection="last")
    with pytest.raises(UsageError, match="use small letters"):
        derived_manifest("../Best", derived, members.manifests, (0,), "")
