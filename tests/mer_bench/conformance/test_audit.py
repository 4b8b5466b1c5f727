"""`mer-bench check RUN`: our runs pass, and every planted leak is found by the check that it is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench.conformance.audit import NOT_VISIBLE, audit_run
from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.runs.data import BenchData, load_data
from mer_bench.runs.derived import derived_manifest, write_derived
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.manifest import Derived
from mer_bench.runs.train import Prepared, prepare_data
from mer_bench.scores.choice import jackknife_scores, one_of, take
from mer_bench.scores.ensemble import combine_by, equal_weights
from mer_bench.scores.members import read_members
from mer_bench.settings import Request, RunSettings, TrainingSettings

Write = Callable[..., RunDirectory]
Call = Callable[..., tuple[int, str, str]]


def prepared_of(data: BenchData, spec: Any = STSTNET[0], **settings: Any) -> Prepared:
    """Prepares a run of three epochs on data."""
    run = RunSettings(**{"model": spec.name, "protocol": "kfold", "k": 4, **settings})
    overrides = {"epochs": 3} if spec.kind == "network" else {}
    request = Request(run, overrides, TrainingSettings(device="cpu", workers=1))
    return prepare_data(Registered(spec, "test 1.0"), request, data)


def failed(path: Path, *stores: Path) -> dict[str, str]:
    """Name the checks that fail, with what they say."""
    found = {one.check: one for one in audit_run(path, stores)}
    return {name: one.detail for name, one in found.items() if not one.passed}


def renamed(data: BenchData, **columns: dict[int, str]) -> BenchData:
    """Gives some rows another subject, sample id or database, and sorts the rows by id again."""
    people = data.population
    changed = {}
    for name, values in columns.items():
        column = getattr(people, name).astype(object)
        for row, value in values.items():
            column[row] = value
        changed[name] = column.astype(str)
    people = replace(people, **changed)
    order = np.argsort(people.sample_ids, kind="stable")
    people = replace(
        people, **{n: getattr(people, n)[order] for n in ("sample_ids", "subjects", "databases", "labels")}
    )
    return replace(data, maps=data.maps[order], population=people)


def test_sound_runs_pass(bench_data: BenchData, with_records: Write, tmp_path: Path) -> None:
    for settings in ({}, {"inner": True, "seeds": (0, 1)}, {"protocol": "cde"}, {"shuffle_labels": 3}):
        run = with_records(prepared_of(bench_data, **settings), tmp_path / str(len(str(settings))))
        assert failed(run.path) == {}
        assert not any(one.detail.startswith(NOT_VISIBLE) for one in audit_run(run.path))


def two_spellings(data: BenchData) -> BenchData:
    rows = np.flatnonzero(data.population.subjects == "samm/s01")[:2]
    return renamed(data, subjects={int(row): "samm/ Sub 1" for row in rows})


def one_clip_twice(data: BenchData) -> BenchData:
    maps = data.maps.copy()
    maps[-1] = maps[0]  # in smic what is in casme2
    return replace(data, maps=maps)


def mirrored_copy(data: BenchData) -> BenchData:
    maps = data.maps.copy()
    maps[-1] = maps[0][:, :, ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]
    return replace(data, maps=maps)


def named_copy(data: BenchData) -> BenchData:
    return renamed(data, sample_ids={5: "casme2/s01/c0_flip1"}, subjects={5: "casme2/s77"})


def by_class(data: BenchData) -> BenchData:
    order = np.argsort(data.population.labels, kind="stable")
    columns = ("sample_ids", "subjects", "databases", "labels")
    people = replace(data.population, **{name: getattr(data.population, name)[order] for name in columns})
    return replace(data, maps=data.maps[order], population=people)


def over_all(data: BenchData) -> BenchData:
    maps = (data.maps - data.maps.mean(0)) / data.maps.std(0)
    return replace(data, maps=maps, normalisation="zscore")


@pytest.mark.parametrize(
    ("plant", "check", "message"),
    [
        (two_spellings, "subjects", "same subject spelled another way"),
        (one_clip_twice, "clips", "whose maps are the same or mirrored"),
        (mirrored_copy, "clips", "whose maps are the same or mirrored"),
        (named_copy, "copies", "by its name a copy of the same clip"),
        (by_class, "row-order", "not in the order of their sample ids"),
        (over_all, "normalisation", "'zscore' is none of those that see one sample"),
    ],
)
@pytest.mark.parametrize("protocol", ["cde", "kfold"])
def test_a_leak_in_the_data_is_found(
    bench_data: BenchData,
    with_records: Write,
    tmp_path: Path,
    plant: Callable[[BenchData], BenchData],
    check: str,
    message: str,
    protocol: str,
) -> None:
    run = with_records(prepared_of(plant(bench_data), protocol=protocol), tmp_path)
    found = failed(run.path)
    assert list(found) == [check] and message in found[check]


def ended_at_the_best_epoch(run: RunDirectory) -> None:
    for fold in run.fold_names:
        record = run.read(0, fold)
        right = (record.logits.argmax(2) == run.column("labels")[record.test_index]).sum(1)
        best = int(right.argmax()) + 1
        course = {name: getattr(record, name)[:best] for name in ("logits", "train_loss", "train_accuracy")}
        run.write(replace(record, inner_logits=record.inner_logits[:best], **course))


def resealed(run: RunDirectory, **change: Any) -> None:
    """Writes another manifest and every record anew under it."""
    records = [record for seed in run.seeds for record in run.records(seed)]
    manifest = run.manifest.model_copy(update=change)
    manifest = manifest.model_copy(update={"digest": manifest.identity.digest()}).sealed()
    (run.path / "manifest.json").write_bytes(manifest.to_json())
    again = RunDirectory(run.path)
    for record in records:
        if record.seed in again.seeds:
            again.write(record)


def moved_by_hand(run: RunDirectory) -> None:
    first, *others = run.manifest.folds
    folds = (first.model_copy(update={"train": first.train[1:]}), *others)
    moved = run.manifest.model_copy(update={"folds": folds})
    identity = run.manifest.identity.model_copy(update={"folds": moved.fold_set().digest()})
    resealed(run, folds=folds, identity=identity)


def another_headline(run: RunDirectory) -> None:
    path = run.path / "manifest.json"
    path.write_text(path.read_text().replace('"headline": "last"', '"headline": "tail"'))


def another_label(run: RunDirectory) -> None:
    content = json.loads((run.path / "manifest.json").read_text())
    content["samples"]["labels"][0] = (content["samples"]["labels"][0] + 1) % 3
    (run.path / "manifest.json").write_text(json.dumps(content))


def only_the_better_seed(run: RunDirectory) -> None:
    resealed(run, seeds=(1,))


@pytest.mark.parametrize(
    ("plant", "check", "message"),
    [
        (ended_at_the_best_epoch, "selection", "declared are 3"),
        (moved_by_hand, "folds", "cuts these samples into other folds"),
        (another_headline, "digests", "not those of settings"),
        (another_label, "digests", "not those of samples.labels"),
        (only_the_better_seed, "records", "of no seed or fold of the manifest.json"),
    ],
)
def test_a_leak_in_the_files_is_found(
    bench_data: BenchData,
    with_records: Write,
    tmp_path: Path,
    plant: Callable[[RunDirectory], None],
    check: str,
    message: str,
) -> None:
    run = with_records(prepared_of(bench_data, seeds=(0, 1)), tmp_path)
    assert failed(run.path) == {}
    plant(run)
    found = failed(run.path)
    assert list(found) == [check] and message in found[check]


def test_choices_and_ensembles_are_made_anew(
    bench_data: BenchData, with_records: Write, tmp_path: Path
) -> None:
    for number, name in enumerate(("a", "b")):
        prepared = prepared_of(bench_data, replace(MAJORITY[0], name=name), seeds=(number,))
        with_records(prepared, tmp_path, epochs=1, right=0.3 + 0.3 * number)
    members = read_members(sorted(tmp_path.iterdir()), "last")
    scores = jackknife_scores(members)
    equal = {seed: np.tile(equal_weights(members), (len(members.folds), 1)) for seed in members.scores}
    leaking = {
        seed: 1 - one_of(each) for seed, each in scores.items()
    }  # the other one, whatever the scores say
    results = {
        "chosen": members.results("jackknife", take, {s: one_of(e) for s, e in scores.items()}, scores),
        "mean": members.results("ensemble", combine_by("probability"), equal),
        "leaking": members.results("jackknife", take, leaking, scores),
        "averaged-otherwise": members.results("ensemble", combine_by("log-probability"), equal),
    }
    for name, each in results.items():
        how, mean = ("jackknife", "") if name in ("chosen", "leaking") else ("ensemble", "probability")
        weights = "one" if how == "jackknife" else "equal"
        derived = Derived(how=how, members=members.members, selection="last", mean=mean, weights=weights)
        manifest = derived_manifest(name, derived, members.manifests, tuple(members.scores), members.digest())
        found = failed(write_derived(tmp_path / "made", manifest, each).path)
        wanted = {"leaking": "not the best one", "averaged-otherwise": "not those of its members"}.get(name)
        assert list(found) == ["selection"] * bool(wanted), (name, found)
        assert not wanted or wanted in found["selection"]


@pytest.fixture
def from_store(small_store: Path, with_records: Write, tmp_path: Path) -> Callable[..., Path]:
    """Writes a run of the small store, its data changed before."""

    def write(change: Callable[[BenchData], BenchData]) -> Path:
        run = RunSettings(model="ststnet", protocol="cde", view="whole-28", normalisation="scaled")
        data = change(load_data(small_store, STSTNET[0], run))
        settings = {"protocol": "cde", "view": "whole-28", "normalisation": "scaled"}
        return with_records(prepared_of(data, **settings), tmp_path).path

    return write


def test_inputs_are_those_of_the_store(from_store: Callable[..., Path], small_store: Path) -> None:
    assert failed(from_store(lambda data: data), small_store) == {}


def test_a_normalisation_over_all_samples_under_a_false_name_is_found_in_the_store(
    from_store: Callable[..., Path], small_store: Path
) -> None:
    path = from_store(lambda data: replace(data, maps=data.maps - data.maps.mean(0)))
    assert failed(path) == {}, "the files alone cannot tell"
    assert "maps are not those" in failed(path, small_store)["store"]


def test_another_label_in_the_store_is_found(from_store: Callable[..., Path], small_store: Path) -> None:
    def change(data: BenchData) -> BenchData:
        labels = np.roll(data.population.labels, 1)
        return replace(data, population=replace(data.population, labels=labels))

    assert "other labels" in failed(from_store(change), small_store)["store"]


def test_the_command_tells_runs_from_models(
    call: Call, bench_data: BenchData, with_records: Write, tmp_path: Path
) -> None:
    run = with_records(prepared_of(bench_data), tmp_path / "runs")
    code, out, _ = call("check", tmp_path / "runs")
    assert code == 0 and out.endswith(f"{run.path}: passes\n") and "no subject on two sides" in out
    another_label(run)
    code, out, _ = call("check", run.path, "--json")
    assert code == 1
    assert [(one["check"], one["passed"]) for one in json.loads(out)[str(run.path)]] == [("digests", False)]
    code, _, err = call("check", tmp_path / "nothing" / "here")
    assert code == 2 and "is no folder of a run" in err
    code, _, err = call("check", "ststnett")
    assert code == 2 and "did you mean 'ststnet'" in err
    code, _, err = call("check", run.path, "majority")
    assert code == 2 and "'majority' is no folder of a run" in err
