"""Folds: subjects disjoint, every sample tested as promised, the order of rows irrelevant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mer_bench.errors import ProtocolError, UsageError
from mer_bench.protocols.composite import MEGC2019, composite_deviations
from mer_bench.protocols.folds import Fold, FoldSet, Population
from mer_bench.protocols.splits import PROTOCOLS, ProtocolOptions, get_protocol

Options = dict[str, Any]
COVERING: list[tuple[str, Options]] = [
    ("cde", {}),
    ("loso", {"databases": ("samm",)}),
    ("hde", {}),
    ("kfold", {"k": 4}),
]
ALL = [*COVERING, ("cross-db", {"train_databases": ("samm", "smic"), "test_databases": ("casme2",)})]
COLUMNS = ("sample_ids", "subjects", "databases", "labels")


def cut(name: str, population: Population, **options: Any) -> FoldSet:
    return get_protocol(name, ProtocolOptions(**options)).cut(population)


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(("name", "options"), ALL)
def test_no_subject_is_on_two_sides(population: Population, name: str, options: Options, inner: bool) -> None:
    for fold in cut(name, population, **options, inner=inner).folds:
        sides = [set(population.subjects[index]) for index in (fold.train, fold.test, fold.inner)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert sides[0] and sides[1]
        assert bool(sides[2]) == inner


@pytest.mark.parametrize(("name", "options"), COVERING)
def test_every_sample_is_tested_once(population: Population, name: str, options: Options) -> None:
    tested = np.concatenate([fold.test for fold in cut(name, population, **options).folds])
    assert sorted(tested.tolist()) == list(range(len(population.labels)))


@pytest.mark.parametrize(("name", "options"), ALL)
def test_a_protocol_splits_as_a_splitter_of_scikit_learn(
    population: Population, name: str, options: Options
) -> None:
    from sklearn.dummy import DummyClassifier
    from sklearn.model_selection import cross_validate

    protocol = get_protocol(name, ProtocolOptions(**options))
    pairs, folds = list(protocol.split(population)), protocol.cut(population).folds
    assert protocol.get_n_splits(population) == len(pairs) == len(folds)
    for (train, test), fold in zip(pairs, folds, strict=True):
        np.testing.assert_array_equal(train, fold.train)
        np.testing.assert_array_equal(test, fold.test)
    maps = np.zeros((len(population.labels), 1))
    found = cross_validate(DummyClassifier(), maps, population.labels, cv=protocol.split(population))
    assert len(found["test_score"]) == len(folds)


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(("name", "options"), ALL)
def test_arrays_are_cut_as_the_population_that_they_are_of(
    population: Population, name: str, options: Options, inner: bool
) -> None:
    protocol = get_protocol(name, ProtocolOptions(**options, inner=inner))
    rows = np.isin(population.databases, protocol.databases(population.databases))
    mine = replace(population, **{column: getattr(population, column)[rows] for column in COLUMNS})
    named, maps = np.array(mine.classes)[mine.labels], np.zeros((len(mine.labels), 1))
    found, wanted = list(protocol.split(maps, named, mine.subjects)), list(protocol.split(mine))
    assert protocol.get_n_splits(maps, named, mine.subjects) == len(found) == len(wanted)
    for pair, other in zip(found, wanted, strict=True):
        assert [side.tolist() for side in pair] == [side.tolist() for side in other]


def test_arrays_that_cannot_be_cut_are_refused(population: Population) -> None:
    protocol = get_protocol("loso", ProtocolOptions(databases=("samm",)))
    maps = np.zeros((len(population.labels), 1))
    for y, groups in ((population.labels, None), (None, population.subjects)):
        with pytest.raises(ProtocolError, match="give y and groups"):
            list(protocol.split(maps, y, groups))
    with pytest.raises(ProtocolError, match="reads samm, but groups are subjects of casme2, samm, smic"):
        list(protocol.split(maps, population.labels, population.subjects))


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_row_order_is_irrelevant(
    population: Population, name: str, options: Options, inner: bool, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(population.labels))
    other = replace(population, **{column: getattr(population, column)[order] for column in COLUMNS})
    a, b = (cut(name, samples, **options, inner=inner) for samples in (population, other))
    assert a.names == b.names
    assert a.digest() == b.digest()
    for one, two in zip(a.folds, b.folds, strict=True):
        for side in ("train", "test", "inner"):
            ids = set(population.sample_ids[getattr(one, side)])
            assert ids == set(other.sample_ids[getattr(two, side)])


def test_the_digest_sees_the_folds(population: Population) -> None:
    digests = {cut("kfold", population, k=k, fold_seed=seed).digest() for k in (3, 4) for seed in (0, 1)}
    digests.add(cut("kfold", population, k=3, inner=True).digest())
    assert len(digests) == 5


def test_cde_holds_out_each_subject_of_all_databases(population: Population) -> None:
    folds = cut("cde", population)
    assert set(folds.names) == set(population.subjects)
    for fold in folds.folds:
        assert set(population.subjects[fold.test]) == {fold.name}
        assert len(fold.train) + len(fold.test) == len(population.labels)
    assert folds.names == tuple(sorted(folds.names))


def test_hde_holds_out_each_database_once(population: Population) -> None:
    folds = cut("hde", population)
    assert folds.names == ("casme2", "samm", "smic")
    for fold in folds.folds:
        assert set(population.databases[fold.test]) == {fold.name}
        assert fold.name not in population.databases[fold.train]


def test_cross_db_trains_on_one_side_and_tests_on_the_other(population: Population) -> None:
    (fold,) = cut("cross-db", population, train_databases=("smic",), test_databases=("samm",)).folds
    assert fold.name == "smic->samm"
    assert set(population.databases[fold.train]) == {"smic"}
    assert set(population.databases[fold.test]) == {"samm"}


def test_kfold_is_stratified_as_far_as_subjects_allow(populate: Callable[..., Population]) -> None:
    population = populate(subjects=20, clips=6, seed=3)
    share = population.counts() / 5
    for fold in cut("kfold", population, k=5).folds:
        assert np.abs(population.counts(fold.test) - share).max() <= 0.25 * share.max()


@pytest.mark.parametrize("seed", range(5))
def test_kfold_deals_subjects_of_one_class_evenly(seed: int) -> None:
    """Subjects of one size, so that nothing but their classes can tell the folds apart."""
    subjects = np.repeat([f"samm/s{s}" for s in range(8)], 3)
    labels = np.repeat(np.arange(8) % 2, 3)
    ids, databases = np.array([f"c{i:02d}" for i in range(24)]), np.full(24, "samm")
    of_two = Population(ids, subjects, databases, labels, ("a", "b"), "")
    for fold in cut("kfold", of_two, k=4, fold_seed=seed).folds:
        assert of_two.counts(fold.test).tolist() == [3, 3]


def test_folds_are_drawn_alike_in_every_version(population: Population) -> None:
    """Who is tested together, reserved or kept: a run is resumed, and a figure repeated, by one draw."""
    first = cut("kfold", population, k=4, fold_seed=3).folds[0]
    assert sorted(set(population.subjects[first.test])) == ["casme2/s03", "samm/s02", "smic/s03"]
    for options, part, drawn in (
        ({"inner": True, "fold_seed": 3}, "inner", ["casme2/s03", "samm/s02"]),
        ({"train_subjects": 3, "fold_seed": 3}, "train", ["samm/s00", "smic/s00", "smic/s01"]),
    ):
        fold = cut("cde", population, **options).folds[0]
        assert sorted(set(population.subjects[getattr(fold, part)])) == drawn


def test_kfold_fills_every_fold_even_with_one_subject_each(populate: Callable[..., Population]) -> None:
    population = populate(subjects=5, databases=("samm",))
    folds = cut("kfold", population, k=5).folds
    assert [len(set(population.subjects[fold.test])) for fold in folds] == [1] * 5


@pytest.mark.parametrize("k", [1, 13])
def test_kfold_refuses_an_impossible_k(population: Population, k: int) -> None:
    with pytest.raises(ProtocolError, match=f"k={k}"):
        cut("kfold", population, k=k)


def test_a_subject_with_one_sample_is_a_fold(populate: Callable[..., Population]) -> None:
    assert all(len(fold.test) == 1 for fold in cut("cde", populate(subjects=3, clips=1)).folds)


def test_a_class_absent_from_a_training_fold_is_a_warning(population: Population) -> None:
    labels = np.zeros_like(population.labels)
    labels[population.subjects == "samm/s00"] = 2
    everything, fold = cut("cde", replace(population, labels=labels)).warnings
    assert "'positive'" in everything and "no sample at all" in everything
    assert "fold 'samm/s00'" in fold and "'surprise' has no training sample" in fold


def test_inner_takes_the_stated_share_and_keeps_every_class(populate: Callable[..., Population]) -> None:
    population = populate(subjects=20, clips=6)
    for fold in cut("cde", population, inner=True, inner_fraction=0.2).folds:
        assert len(set(population.subjects[fold.inner])) == round(0.2 * 59)
        inner, train = population.counts(fold.inner), population.counts(fold.train)
        assert (train > 0).all()
        assert (np.abs(inner / (inner + train) - 0.2) < 0.05).all()


def test_inner_depends_on_its_seed_and_fold_alone(population: Population) -> None:
    def reserved(seed: int) -> list[list[str]]:
        folds = cut("cde", population, inner=True, fold_seed=seed).folds
        return [sorted(set(population.subjects[fold.inner])) for fold in folds]

    assert reserved(0) == reserved(0)
    assert reserved(0) != reserved(1)


def test_fewer_training_subjects_are_among_more_and_the_test_side_stays(population: Population) -> None:
    def sides(**options: int) -> list[tuple[str, set[str], list[int]]]:
        folds = cut("cde", population, **options).folds
        return [(f.name, set(population.subjects[f.train]), f.test.tolist()) for f in folds]

    few, more, every = sides(train_subjects=2), sides(train_subjects=4), sides()
    for (name, two, test), (_, four, _), (_, all_of_them, whole_test) in zip(few, more, every, strict=True):
        assert len(two) == 2 and len(four) == 4 and two < four < all_of_them and name not in all_of_them
        assert test == whole_test
    assert sides(train_subjects=4) == more and sides(train_subjects=4, fold_seed=1) != more
    # Every sample of a subject that is kept is trained on.
    fold = cut("cde", population, train_subjects=2).folds[0]
    assert len(fold.train) == np.isin(population.subjects, list(few[0][1])).sum()


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_limit_of_training_subjects_that_no_fold_has_is_refused(population: Population, limit: int) -> None:
    with pytest.raises((UsageError, ProtocolError), match=f"train_subjects(=| asks for ){limit}"):
        cut("cde", population, train_subjects=limit)


def test_inner_never_takes_the_last_of_a_class(population: Population) -> None:
    labels = np.zeros_like(population.labels)
    labels[population.subjects == "smic/s01"] = 1
    labels[population.subjects == "samm/s02"] = 2
    rare = replace(population, labels=labels)
    for fold in cut("cde", rare, inner=True).folds:
        assert not {"smic/s01", "samm/s02"} & set(rare.subjects[fold.inner])


def test_inner_that_would_lose_a_class_is_refused(populate: Callable[..., Population]) -> None:
    with pytest.raises(ProtocolError, match="without losing a class"):
        cut("loso", populate(subjects=3, clips=1, databases=("samm",)), inner=True)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_fraction_outside_its_range_is_refused(population: Population, fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        cut("cde", population, inner=True, inner_fraction=fraction)


@pytest.mark.parametrize(
    ("name", "message"), [("loso", "at least 2 subjects, got 1: samm/s00"), ("hde", "2 with labels .* samm")]
)
def test_one_group_cannot_be_left_out(populate: Callable[..., Population], name: str, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        cut(name, populate(subjects=1, databases=("samm",)))


def test_a_population_is_checked(population: Population) -> None:
    subjects, ids = population.subjects.copy(), population.sample_ids.copy()
    subjects[population.subjects == "samm/s00"] = "smic/s00"
    ids[1] = ids[0]
    none: dict[str, Any] = {column: getattr(population, column)[:0] for column in COLUMNS}
    for changes, message in (
        ({"subjects": subjects}, r"'smic/s00' occurs in (samm and smic|smic and samm)"),
        ({"sample_ids": ids}, "more than once: casme2/s00/c0$"),
        ({"labels": population.labels + 1}, r"expected 0\.\.2"),
        ({"labels": population.labels[1:]}, "differ in length"),
        (none, "no sample carries a label"),
    ):
        with pytest.raises(ProtocolError, match=message):
            replace(population, **changes)


def test_a_fold_set_checks_itself(population: Population) -> None:
    rows = np.arange(len(population.labels))
    mine = rows[population.subjects == "samm/s00"]
    rest = rows[population.subjects != "samm/s00"]
    good = Fold("a", rest, mine)
    assert len(FoldSet("test", population, (good,), False)) == 1
    for folds, covers, message in (
        ((Fold("a", np.sort(np.append(rest, mine[0])), mine[1:]),), False, "both train and test"),
        ((Fold("a", rest[1:], mine, rest[:1]),), False, "both train and inner"),
        ((Fold("a", rest, mine[1:], mine[:1]),), False, "both inner and test"),
        ((Fold("a", rest[::-1], mine),), False, "not ascending"),
        ((Fold("a", rest[:-2], mine, rest[:-3:-1]),), False, "inner indices are not ascending"),
        ((Fold("a", rest, mine[:0]),), False, "0 test samples"),
        ((good, good), False, "unique names"),
        ((good,), True, "tested 0 times"),
    ):
        with pytest.raises(ProtocolError, match=message):
            FoldSet("test", population, folds, covers)


def test_every_protocol_says_what_it_is() -> None:
    assert sorted(PROTOCOLS) == ["cde", "cross-db", "hde", "kfold", "loso"]
    titles, summaries = ({getattr(one, text) for one in PROTOCOLS.values()} for text in ("title", "summary"))
    assert len(titles) == len(summaries) == len(PROTOCOLS) and all((*titles, *summaries))


def test_unknown_protocol_and_scheme(population: Population) -> None:
    with pytest.raises(UsageError, match="did you mean 'cde'"):
        get_protocol("cdee")
    with pytest.raises(UsageError, match="megc3, not 'casme2-5'"):
        cut("cde", replace(population, scheme="casme2-5"))


STORE = ("smic", "casme2", "casme3", "samm")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cde", {}, ("casme2", "samm", "smic")),
        ("cde", {"databases": ("smic", "samm", "casme2")}, ("casme2", "samm", "smic")),
        ("loso", {"databases": ("samm",)}, ("samm",)),
        ("hde", {}, tuple(sorted(STORE))),
        ("kfold", {"databases": ("smic", "samm")}, ("samm", "smic")),
        ("cross-db", {"train_databases": ("samm",), "test_databases": ("casme3",)}, ("casme3", "samm")),
    ],
)
def test_databases_needed(name: str, options: Options, expected: tuple[str, ...]) -> None:
    assert get_protocol(name, ProtocolOptions(**options)).databases(STORE) == expected


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cde", {"databases": ("samm",)}, "takes no other --db"),
        (
            "loso",
            {},
            "exactly one --db, got none; of this store these have classes .* scheme: casme2, casme3",
        ),
        ("loso", {"databases": ("samm", "smic")}, "exactly one --db, got samm, smic; of this store"),
        ("cross-db", {"train_databases": ("samm",)}, "--test-db"),
        ("cross-db", {"test_databases": ("samm",)}, "needs --train-db"),
        ("cross-db", {"train_databases": ("samm",), "test_databases": ("samm",)}, "samm is on both sides"),
        (
            "cross-db",
            {"train_databases": ("samm",), "test_databases": ("smic",), "databases": ("samm",)},
            "not --db",
        ),
        ("hde", {"train_databases": ("samm",)}, "belong to protocol 'cross-db'"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: Options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        get_protocol(name, ProtocolOptions(**options)).databases(STORE)


def test_the_official_composite_has_68_folds_of_442_samples(official_data: Any) -> None:
    population = official_data.population
    assert len(population.labels) == 442
    assert len(cut("cde", population)) == sum(subjects for subjects, _ in MEGC2019.values()) == 68
    assert composite_deviations(population) == ()


def test_a_composite_that_differs_is_said_so(population: Population) -> None:
    found = composite_deviations(population)
    assert len(found) == 3
    assert "casme2: 4 subjects, 20 samples" in found[0]
    assert "24 subjects, 145 samples (88/32/25)" in found[0]
