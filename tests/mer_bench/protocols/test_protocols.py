"""Folds: subjects disjoint, every sample tested as promised, the order of rows irrelevant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mer_bench.errors import ProtocolError, UsageError
from mer_bench.protocols.composite import MEGC2019, composite_deviations
from mer_bench.protocols.folds import Fold, FoldSet, Population
from mer_bench.protocols.splits import ProtocolOptions, cut_folds, databases_needed, get_protocol

COVERING = [
    ("cde", ProtocolOptions()),
    ("loso", ProtocolOptions(databases=("samm",))),
    ("hde", ProtocolOptions()),
    ("kfold", ProtocolOptions(k=4)),
]
ALL = [*COVERING, ("cross-db", ProtocolOptions(train_databases=("samm", "smic"), test_databases=("casme2",)))]


def shuffled(population: Population, seed: int) -> Population:
    order = np.random.default_rng(seed).permutation(len(population.labels))
    columns = ("sample_ids", "subjects", "databases", "labels")
    return replace(population, **{name: getattr(population, name)[order] for name in columns})


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(("name", "options"), ALL)
def test_no_subject_is_on_two_sides(
    population: Population, name: str, options: ProtocolOptions, inner: bool
) -> None:
    for fold in cut_folds(name, population, replace(options, inner=inner)).folds:
        sides = [set(population.subjects[index]) for index in (fold.train, fold.test, fold.inner)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert sides[0] and sides[1]
        assert bool(sides[2]) == inner


@pytest.mark.parametrize(("name", "options"), COVERING)
def test_every_sample_is_tested_once(population: Population, name: str, options: ProtocolOptions) -> None:
    folds = cut_folds(name, population, options)
    tested = np.concatenate([fold.test for fold in folds.folds])
    assert sorted(tested.tolist()) == list(range(len(population.labels)))


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_row_order_is_irrelevant(
    population: Population, name: str, options: ProtocolOptions, inner: bool, seed: int
) -> None:
    options = replace(options, inner=inner)
    other = shuffled(population, seed)
    a, b = cut_folds(name, population, options), cut_folds(name, other, options)
    assert a.names == b.names
    assert a.digest() == b.digest()
    for one, two in zip(a.folds, b.folds, strict=True):
        for side in ("train", "test", "inner"):
            ids = set(population.sample_ids[getattr(one, side)])
            assert ids == set(other.sample_ids[getattr(two, side)])


def test_the_digest_sees_the_folds(population: Population) -> None:
    digests = {
        cut_folds("kfold", population, ProtocolOptions(k=k, fold_seed=seed)).digest()
        for k in (3, 4)
        for seed in (0, 1)
    }
    digests.add(cut_folds("kfold", population, ProtocolOptions(k=3, inner=True)).digest())
    assert len(digests) == 5


def test_cde_holds_out_each_subject_of_all_databases(population: Population) -> None:
    folds = cut_folds("cde", population)
    assert set(folds.names) == set(population.subjects)
    for fold in folds.folds:
        assert set(population.subjects[fold.test]) == {fold.name}
        assert len(fold.train) + len(fold.test) == len(population.labels)
    assert folds.names == tuple(sorted(folds.names))


def test_hde_holds_out_each_database_once(population: Population) -> None:
    folds = cut_folds("hde", population)
    assert folds.names == ("casme2", "samm", "smic")
    for fold in folds.folds:
        assert set(population.databases[fold.test]) == {fold.name}
        assert fold.name not in population.databases[fold.train]


def test_cross_db_trains_on_one_side_and_tests_on_the_other(population: Population) -> None:
    options = ProtocolOptions(train_databases=("smic",), test_databases=("samm",))
    (fold,) = cut_folds("cross-db", population, options).folds
    assert fold.name == "smic->samm"
    assert set(population.databases[fold.train]) == {"smic"}
    assert set(population.databases[fold.test]) == {"samm"}


def test_kfold_is_stratified_as_far_as_subjects_allow(populate: Callable[..., Population]) -> None:
    population = populate(subjects=20, clips=6, seed=3)
    folds = cut_folds("kfold", population, ProtocolOptions(k=5))
    share = population.counts() / 5
    for fold in folds.folds:
        assert np.abs(population.counts(fold.test) - share).max() <= 0.25 * share.max()


def test_kfold_fills_every_fold_even_with_one_subject_each(populate: Callable[..., Population]) -> None:
    population = populate(subjects=5, databases=("samm",))
    folds = cut_folds("kfold", population, ProtocolOptions(k=5))
    assert [len(set(population.subjects[fold.test])) for fold in folds.folds] == [1] * 5


@pytest.mark.parametrize("k", [1, 13])
def test_kfold_refuses_an_impossible_k(population: Population, k: int) -> None:
    with pytest.raises(ProtocolError, match=f"k={k}"):
        cut_folds("kfold", population, ProtocolOptions(k=k))


def test_a_subject_with_one_sample_is_a_fold(populate: Callable[..., Population]) -> None:
    population = populate(subjects=3, clips=1)
    folds = cut_folds("cde", population)
    assert all(len(fold.test) == 1 for fold in folds.folds)


def test_a_class_absent_from_a_training_fold_is_a_warning(population: Population) -> None:
    labels = np.zeros_like(population.labels)
    labels[population.subjects == "samm/s00"] = 2
    folds = cut_folds("cde", replace(population, labels=labels))
    assert any(
        "fold 'samm/s00'" in text and "'surprise' has no training sample" in text for text in folds.warnings
    )
    assert any("'positive'" in text and "no sample at all" in text for text in folds.warnings)
    assert len(folds.warnings) == 2


def test_inner_takes_the_stated_share_and_keeps_every_class(populate: Callable[..., Population]) -> None:
    population = populate(subjects=20, clips=6)
    for fold in cut_folds("cde", population, ProtocolOptions(inner=True, inner_fraction=0.2)).folds:
        assert len(set(population.subjects[fold.inner])) == round(0.2 * 59)
        assert (population.counts(fold.train) > 0).all()
        share = population.counts(fold.inner) / (
            population.counts(fold.inner) + population.counts(fold.train)
        )
        assert (np.abs(share - 0.2) < 0.05).all()


def test_inner_depends_on_its_seed_and_fold_alone(population: Population) -> None:
    def reserved(seed: int) -> list[list[str]]:
        options = ProtocolOptions(inner=True, fold_seed=seed)
        return [
            sorted(set(population.subjects[f.inner])) for f in cut_folds("cde", population, options).folds
        ]

    assert reserved(0) == reserved(0)
    assert reserved(0) != reserved(1)


def test_inner_never_takes_the_last_of_a_class(population: Population) -> None:
    labels = np.zeros_like(population.labels)
    labels[population.subjects == "smic/s01"] = 1
    labels[population.subjects == "samm/s02"] = 2
    rare = replace(population, labels=labels)
    for fold in cut_folds("cde", rare, ProtocolOptions(inner=True)).folds:
        assert not {"smic/s01", "samm/s02"} & set(rare.subjects[fold.inner])


def test_inner_that_would_lose_a_class_is_refused(populate: Callable[..., Population]) -> None:
    population = populate(subjects=3, clips=1, databases=("samm",))
    with pytest.raises(ProtocolError, match="without losing a class"):
        cut_folds("loso", population, ProtocolOptions(inner=True))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_fraction_outside_its_range_is_refused(population: Population, fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        cut_folds("cde", population, ProtocolOptions(inner=True, inner_fraction=fraction))


def test_one_subject_cannot_be_left_out(populate: Callable[..., Population]) -> None:
    with pytest.raises(ProtocolError, match="at least 2 subjects"):
        cut_folds("loso", populate(subjects=1, databases=("samm",)))


def test_a_subject_of_two_databases_is_refused(population: Population) -> None:
    subjects = population.subjects.copy()
    subjects[population.subjects == "samm/s00"] = "smic/s00"
    with pytest.raises(ProtocolError, match=r"'smic/s00' occurs in (samm and smic|smic and samm)"):
        replace(population, subjects=subjects)


def test_a_population_is_checked(population: Population) -> None:
    ids = population.sample_ids.copy()
    ids[1] = ids[0]
    with pytest.raises(ProtocolError, match="more than once"):
        replace(population, sample_ids=ids)
    with pytest.raises(ProtocolError, match=r"expected 0\.\.2"):
        replace(population, labels=population.labels + 1)
    with pytest.raises(ProtocolError, match="differ in length"):
        replace(population, labels=population.labels[1:])


def fold_set(population: Population, *folds: Fold, covers: bool = False) -> FoldSet:
    return FoldSet("test", population, folds, covers)


def test_a_fold_set_checks_itself(population: Population) -> None:
    rows = np.arange(len(population.labels))
    mine = rows[population.subjects == "samm/s00"]
    rest = rows[population.subjects != "samm/s00"]
    good = Fold("a", rest, mine)
    assert len(fold_set(population, good)) == 1
    with pytest.raises(ProtocolError, match="both train and test"):
        fold_set(population, Fold("a", np.sort(np.append(rest, mine[0])), mine[1:]))
    with pytest.raises(ProtocolError, match="both train and inner"):
        fold_set(population, Fold("a", rest[1:], mine, rest[:1]))
    with pytest.raises(ProtocolError, match="not ascending"):
        fold_set(population, Fold("a", rest[::-1], mine))
    with pytest.raises(ProtocolError, match="0 test samples"):
        fold_set(population, Fold("a", rest, mine[:0]))
    with pytest.raises(ProtocolError, match="unique names"):
        fold_set(population, good, good)
    with pytest.raises(ProtocolError, match="tested 0 times"):
        fold_set(population, good, covers=True)


def test_unknown_protocol_and_scheme(population: Population) -> None:
    with pytest.raises(UsageError, match="did you mean 'cde'"):
        get_protocol("cdee")
    with pytest.raises(UsageError, match="megc3, not 'casme2-5'"):
        cut_folds("cde", replace(population, scheme="casme2-5"))


def test_databases_needed() -> None:
    store = ("casme2", "casme3", "samm", "smic")
    need = lambda name, **options: databases_needed(get_protocol(name), ProtocolOptions(**options), store)  # noqa: E731
    assert need("cde") == ("casme2", "samm", "smic")
    assert need("loso", databases=("samm",)) == ("samm",)
    assert need("hde") == store
    assert need("kfold", databases=("smic", "samm")) == ("samm", "smic")
    assert need("cross-db", train_databases=("casme3",), test_databases=("samm",)) == ("casme3", "samm")
    for name, options, message in (
        ("cde", {"databases": ("samm",)}, "takes no other --db"),
        ("loso", {}, "exactly one --db"),
        ("loso", {"databases": ("samm", "smic")}, "exactly one --db"),
        ("cross-db", {"train_databases": ("samm",)}, "--test-db"),
        ("cross-db", {"train_databases": ("samm",), "test_databases": ("samm",)}, "both sides"),
        ("hde", {"train_databases": ("samm",)}, "belong to protocol 'cross-db'"),
    ):
        with pytest.raises(UsageError, match=message):
            need(name, **options)


def official() -> Population:
    ids, subjects, databases, labels = [], [], [], []
    for database, (count, classes) in MEGC2019.items():
        every = [c for c, n in enumerate(classes) for _ in range(n)]
        for i, label in enumerate(every):
            subjects.append(f"{database}/s{i % count:02d}")
            ids.append(f"{subjects[-1]}/c{i}")
            databases.append(database)
            labels.append(label)
    return Population(
        np.array(ids), np.array(subjects), np.array(databases), np.array(labels), ("n", "p", "s"), "megc3"
    )


def test_the_official_composite_has_68_folds_of_442_samples() -> None:
    population = official()
    assert len(population.labels) == 442
    assert len(cut_folds("cde", population)) == 68
    assert composite_deviations(population) == ()


def test_a_composite_that_differs_is_said_so(population: Population) -> None:
    found = composite_deviations(population)
    assert len(found) == 3
    assert "casme2: 4 subjects, 20 samples" in found[0]
    assert "24 subjects, 145 samples (88/32/25)" in found[0]
