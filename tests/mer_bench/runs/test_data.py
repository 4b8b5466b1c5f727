"""What a run reads from a store: the model's best view, the reasons, and what cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import DataError, UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.runs.data import BenchData, find_store, load_data, read_population, wanted_inputs
from mer_bench.settings import RunSettings

CDE = RunSettings(protocol="cde")


def spec(*views: str) -> ModelSpec:
    return ModelSpec(
        name="any", title="", build=int, kind="classifier", views=views, citation="", exactness="exact"
    )


def test_the_first_view_the_store_can_give_is_taken_and_the_others_are_explained(small_store: Path) -> None:
    wanted = spec("regions-28:scaled", "whole-28:scaled", "whole-28:raw")
    data = load_data(small_store, wanted, CDE)
    assert (data.view, data.normalisation) == ("whole-28", "scaled")
    ((name, reason),) = data.passed_over
    assert name == "regions-28:scaled"
    assert "regions" in reason
    assert data.maps.shape == (54, 3, 28, 28)
    assert data.maps.dtype == np.float32
    assert data.store_digest


def test_rows_come_in_the_order_of_ids(small_store: Path) -> None:
    data = load_data(small_store, spec("whole-28:raw"), CDE)
    ids = data.population.sample_ids.tolist()
    assert ids == sorted(ids)
    # A class shows as a block in u, so maps and labels are still paired.
    brightest = data.maps[:, 0].mean(2).reshape(-1, 28)
    found = np.stack([brightest[:, 2 + 8 * c : 8 + 8 * c].mean(1) for c in range(3)], 1).argmax(1)
    np.testing.assert_array_equal(found, data.population.labels)


def test_maps_stay_with_their_labels_where_a_store_has_another_order_than_ids(tmp_path: Path) -> None:
    from tests.mer_flow.stores import sample_of, write_store

    emotions = {"c2": "disgust", "c10": "happiness", "c1": "surprise"}
    rows = [
        (sample_of("samm", f"s{subject}", clip, emotion), np.full((3, 28, 28), value + subject, np.float32))
        for subject in (2, 10)
        for value, (clip, emotion) in zip((20, 100, 10), emotions.items(), strict=True)
    ]
    with write_store(tmp_path / "store.h5", rows) as store:
        stored = store.samples("samm").sample_ids
    data = load_data(tmp_path / "store.h5", spec("whole-28:raw"), RunSettings(protocol="loso", db="samm"))
    ids = data.population.sample_ids.tolist()
    assert ids == sorted(ids) != list(stored), "the store counts c2 before c10"
    expected = [int(clip[1:]) * 10 + int(subject[1:]) for _, subject, clip in (i.split("/") for i in ids)]
    assert data.maps[:, 0, 0, 0].tolist() == expected
    classes = {"c2": 0, "c10": 1, "c1": 2}
    assert data.population.labels.tolist() == [classes[i.rpartition("/")[2]] for i in ids]


def test_the_population_alone_is_the_same(small_store: Path) -> None:
    data = load_data(small_store, spec("whole-28:raw"), CDE)
    alone = read_population(small_store, CDE)
    for name in ("sample_ids", "subjects", "databases", "labels"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(data.population, name))
    assert alone.classes == data.population.classes


def test_a_view_can_be_asked_for(small_store: Path) -> None:
    wanted = spec("regions-28:scaled", "whole-28:scaled")
    data = load_data(small_store, wanted, CDE.changed(view="whole-14", normalisation="minmax"))
    assert data.maps.shape[2:] == (14, 14)
    assert (data.maps.min(), data.maps.max()) == (0, 1)


def test_which_inputs_are_tried() -> None:
    one = spec("regions-28:scaled", "whole-28:minmax")

    def tried(**settings: str) -> tuple[tuple[str, str], ...]:
        return wanted_inputs(one, RunSettings(**settings))

    assert tried() == (("regions-28", "scaled"), ("whole-28", "minmax"))
    assert tried(view="whole-28") == (("whole-28", "minmax"), ("whole-28", "scaled"))
    assert tried(view="whole-14") == (("whole-14", "scaled"), ("whole-14", "minmax"))
    assert tried(normalisation="raw") == (("regions-28", "raw"), ("whole-28", "raw"))
    assert tried(view="whole-28", normalisation="raw") == (("whole-28", "raw"),)


def test_a_variant_may_read_another_input(small_store: Path) -> None:
    one = replace(
        spec("whole-28:scaled"),
        variants={"default": {}, "tiny": {}},
        variant_views={"tiny": ("whole-14:raw",)},
    )
    assert wanted_inputs(one, RunSettings(variant="tiny")) == (("whole-14", "raw"),)
    for run in (RunSettings(), RunSettings(variant="default")):
        assert wanted_inputs(one, run) == (("whole-28", "scaled"),)
    data = load_data(small_store, one, CDE.changed(variant="tiny"))
    assert (data.view, data.normalisation) == ("whole-14", "raw")
    with pytest.raises(UsageError, match="variant_views names"):
        replace(one, variant_views={"smal": ("whole-14:raw",)})


def test_a_store_that_can_give_nothing_says_why(small_store: Path) -> None:
    with pytest.raises(
        DataError, match=r"any cannot be fed: .*none of its inputs\. .*regions-28:scaled: .*regions"
    ):
        load_data(small_store, spec("regions-28:scaled"), CDE)


def test_a_missing_database_is_named_with_the_command(small_store: Path) -> None:
    with pytest.raises(DataError, match=r"lacks casme3.*mer-flow build --db casme3 --root DIR --store"):
        load_data(small_store, spec("whole-28:raw"), RunSettings(protocol="loso", db="casme3"))


def test_an_unknown_database_is_suggested(small_store: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'samm'"):
        load_data(small_store, spec("whole-28:raw"), RunSettings(protocol="loso", db="sam"))


def test_a_scheme_without_classes_for_a_database_is_refused(small_store: Path) -> None:
    run = RunSettings(protocol="loso", db="smic", scheme="casme2-5")
    with pytest.raises(Exception, match="casme2-5"):
        load_data(small_store, spec("whole-28:raw"), run)


def test_find_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MER_BENCH_STORE", raising=False)
    with pytest.raises(UsageError, match=r"--store FILE or set MER_BENCH_STORE"):
        find_store(None)
    monkeypatch.setenv("MER_BENCH_STORE", str(tmp_path / "gone.h5"))
    with pytest.raises(DataError, match=r"gone\.h5 \(from MER_BENCH_STORE\) does not exist"):
        find_store(None)
    (tmp_path / "gone.h5").touch()
    assert find_store(None) == tmp_path / "gone.h5"
    with pytest.raises(DataError, match="from --store"):
        find_store(tmp_path / "other.h5")


def test_nan_names_its_samples(bench_data: BenchData) -> None:
    maps = bench_data.maps.copy()
    maps[7, 2, 3, 3] = np.nan
    maps[9, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match=f"2 map.*{bench_data.population.sample_ids[7]}.*mer-flow verify"):
        replace(bench_data, maps=maps)


def test_shapes_are_checked(bench_data: BenchData) -> None:
    with pytest.raises(DataError, match="one map per sample"):
        replace(bench_data, maps=bench_data.maps[1:])


def test_shuffling_permutes_labels_and_nothing_else(bench_data: BenchData) -> None:
    shuffled = bench_data.shuffled(3)
    before, after = bench_data.population, shuffled.population
    assert sorted(before.labels) == sorted(after.labels)
    assert (before.labels != after.labels).any()
    np.testing.assert_array_equal(before.sample_ids, after.sample_ids)
    assert shuffled.maps is bench_data.maps
    assert shuffled.shuffle_seed == 3
    np.testing.assert_array_equal(after.labels, bench_data.shuffled(3).population.labels)
    assert (after.labels != bench_data.shuffled(4).population.labels).any()


def test_the_digest_sees_maps_labels_and_ids(bench_data: BenchData) -> None:
    digest = bench_data.digest()
    maps = bench_data.maps.copy()
    maps[0, 0, 0, 0] += 1
    assert replace(bench_data, maps=maps).digest() != digest
    assert bench_data.shuffled(0).digest() != digest
    ids = bench_data.population.sample_ids[::-1].copy()
    renamed = replace(bench_data.population, sample_ids=ids)
    assert replace(bench_data, population=renamed).digest() != digest
