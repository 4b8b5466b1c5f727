"""What a run reads from a store: the model's best view, the reasons, and what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import DataError, UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe
from mer_bench.runs.data import (
    BenchData,
    find_store,
    find_stores,
    join,
    load_data,
    read_population,
    wanted_inputs,
)
from mer_bench.settings import RunSettings
from mer_bench.training.augmentation import Augmenter

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


@pytest.fixture
def second(write_store: Callable[..., Path], tmp_path: Path) -> Path:
    """Another measurement of the samples of `small_store`."""
    return write_store(tmp_path / "second.h5", seed=7)


def test_two_stores_give_one_joint_input(small_store: Path, second: Path) -> None:
    wanted = spec("whole-28:scaled")
    first, other = (load_data(path, wanted, CDE) for path in (small_store, second))
    joint = load_data([small_store, second], wanted, CDE)
    assert (joint.view, joint.normalisation) == ("whole-28+whole-28", "scaled")
    np.testing.assert_array_equal(joint.maps, np.concatenate([first.maps, other.maps], 1))
    for name in ("sample_ids", "subjects", "databases", "labels"):
        np.testing.assert_array_equal(getattr(joint.population, name), getattr(first.population, name))
    assert (joint.store, joint.store_digest) == (str(small_store), first.store_digest)
    assert joint.joined == ((str(second), other.store_digest),)
    assert other.store_digest != first.store_digest
    turned = load_data([second, small_store], wanted, CDE)
    assert len({data.digest() for data in (first, other, joint, turned)}) == 4


def test_a_joint_input_is_the_first_that_every_store_can_give(small_store: Path, second: Path) -> None:
    wanted = spec("regions-28:scaled", "whole-28:raw")
    data = load_data([small_store, second], wanted, CDE)
    assert data.input == "whole-28+whole-28:raw"
    assert [name for name, _ in data.passed_over] == ["regions-28:scaled"]


def test_stores_of_other_samples_are_refused_with_counts(
    small_store: Path, write_store: Callable[..., Path], tmp_path: Path
) -> None:
    lost = [f"samm/s00/c{c}" for c in range(6)] + ["smic/s01/c2"]
    other = write_store(tmp_path / "other.h5", leave_out=lost)
    with pytest.raises(DataError) as error:
        load_data([small_store, other], spec("whole-28:raw"), CDE)
    for part in ("share 47 of 54", f"{other} lacks 7 of them: samm/s00/c0", "samm/s00/c4 and 2 more", "--db"):
        assert part in str(error.value)
    assert f"{small_store} lacks" not in str(error.value)
    # Where the protocol does not need what one store lacks, nothing is amiss.
    data = load_data([small_store, other], spec("whole-28:raw"), RunSettings(protocol="loso", db="casme2"))
    assert data.maps.shape == (18, 6, 28, 28)


def test_stores_of_other_labels_are_refused(bench_data: BenchData) -> None:
    first = replace(bench_data, store="a.h5")
    labels = bench_data.population.labels.copy()
    labels[[3, 5]] = (labels[[3, 5]] + 1) % 3
    other = replace(first, population=replace(bench_data.population, labels=labels), store="b.h5")
    ids = bench_data.population.sample_ids
    with pytest.raises(DataError, match=rf"a\.h5 and b\.h5 give 2 of \d+ .*label.*: {ids[3]}, {ids[5]}\."):
        join([first, other])
    with pytest.raises(DataError, match=r"a\.h5 have shape \(3, 28, 28\), those of b\.h5 \(2, 28, 28\)"):
        join([first, replace(first, maps=first.maps[:, :2], store="b.h5")])


def test_stores_of_other_databases_are_refused(
    small_store: Path, write_store: Callable[..., Path], tmp_path: Path
) -> None:
    other = write_store(
        tmp_path / "b.h5", leave_out=[f"samm/s{s:02d}/c{c}" for s in range(3) for c in range(6)]
    )
    wanted = spec("whole-28:raw")
    with pytest.raises(DataError, match=r"different databases \(.*samm.*b\.h5: casme2, smic\).*--db"):
        load_data([small_store, other], wanted, RunSettings(protocol="kfold"))
    with pytest.raises(DataError, match=r"b\.h5 holds casme2, smic and lacks samm"):
        load_data([small_store, other], wanted, CDE)
    run = RunSettings(protocol="kfold", k=2, db=("casme2", "smic"))
    assert load_data([small_store, other], wanted, run).maps.shape == (36, 6, 28, 28)


def test_maps_that_are_pictures_are_named_so(write_store: Callable[..., Path], tmp_path: Path) -> None:
    """What cannot be mirrored as flow must not bear the name of flow."""
    pictures = write_store(tmp_path / "p.h5", import_of={"channels": ["red", "green", "blue"]})
    flow = write_store(tmp_path / "f.h5", import_of={"channels": ["u", "v", "strain"]})
    data = load_data([flow, pictures], spec("whole-28:raw"), CDE)
    assert data.view == "whole-28+colours-28"
    with pytest.raises(UsageError, match=r"how the view 'whole-28\+colours-28:raw' stores a mirrored u"):
        Augmenter.from_recipe(Recipe(flip=0.5), data.input)


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


def test_a_recipe_may_ask_for_another_input() -> None:
    one = replace(
        spec("whole-28:scaled"),
        kind="network",
        recipes={"plain": Recipe(), "robust": Recipe()},
        variants={"default": {}, "tiny": {}},
        variant_views={"tiny": ("whole-14:raw",)},
        recipe_views={"robust": ("whole-28:centred-rms",)},
    )
    for variant in ("", "tiny"):
        run = RunSettings(variant=variant, recipe="robust")
        assert wanted_inputs(one, run) == (("whole-28", "centred-rms"),)
    assert wanted_inputs(one, RunSettings(variant="tiny")) == (("whole-14", "raw"),)
    for what in ("recipe_views", "recipe_options"):
        with pytest.raises(UsageError, match=f"{what} names .'robast'.*plain"):
            replace(one, **{what: {"robast": ("whole-14:raw",)}})


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
    with pytest.raises(DataError, match=r"from --store\) is a folder; give the HDF5 file"):
        find_store(tmp_path)


def test_find_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = tmp_path / "a.h5", tmp_path / "b.h5"
    first.touch()
    other.touch()
    assert find_stores((first, other)) == (first, other)
    again = tmp_path / "again.h5"
    again.symlink_to(first)
    with pytest.raises(UsageError, match=r"again\.h5 is given twice"):
        find_stores((first, other, again))
    with pytest.raises(DataError, match=r"c\.h5 \(from --store\) does not exist"):
        find_stores((first, tmp_path / "c.h5"))
    monkeypatch.setenv("MER_BENCH_STORE", str(other))
    assert find_stores(()) == (other,)


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
