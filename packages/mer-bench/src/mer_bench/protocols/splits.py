"""Protocols cut samples into folds; no subject is ever on both sides of one.

Everything is decided by sample ids, subjects and seeds, never by the order of rows, so two stores that hold
the same samples in another order give the same folds under the same names. A new protocol is one more class
here, listed in `PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mer_bench.errors import ProtocolError, UsageError
from mer_bench.protocols.composite import MEGC2019
from mer_bench.protocols.folds import Fold, FoldSet, Population, absent_class_note
from mer_bench.protocols.inner import keep_subjects, reserve_inner
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class ProtocolOptions:
    """What a protocol may be told.

    Attributes:
        databases: For `loso` (exactly one), `hde` and `kfold`; empty means every database of the store.
        train_databases: For `cross-db`.
        test_databases: For `cross-db`.
        k: Number of folds of `kfold`.
        fold_seed: Decides `kfold`'s assignment and the inner subjects.
        inner: Reserve whole training subjects of every fold to choose the epoch.
        inner_fraction: Their share of the training subjects, in (0, 1).
        train_subjects: Train every fold on so many of its subjects; None for all of them.
    """

    databases: tuple[str, ...] = ()
    train_databases: tuple[str, ...] = ()
    test_databases: tuple[str, ...] = ()
    k: int = 5
    fold_seed: int = 0
    inner: bool = False
    inner_fraction: float = 0.2
    train_subjects: int | None = None


#: `(name, train, test)` of a fold; the sides are `(N,)` bool masks.
Cut = tuple[str, np.ndarray, np.ndarray]


class Protocol:
    """One way to cut samples into folds, used as scikit-learn's splitters are.

    Attributes:
        name: As on the command line.
        title: The name a table prints.
        summary: What it does, one sentence.
        schemes: The label schemes it is defined for; empty means any.
        covers: Whether every sample is tested exactly once.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    schemes: ClassVar[tuple[str, ...]] = ()
    covers: ClassVar[bool] = True

    def __init__(self, options: ProtocolOptions | None = None) -> None:
        self.options = options or ProtocolOptions()

    def _cuts(self, samples: Population) -> Iterable[Cut]:
        raise NotImplementedError

    def databases(self, available: Iterable[str]) -> tuple[str, ...]:
        """Return the databases that it reads, of those `available` in a store; sorted.

        Raises:
            UsageError: The options do not fit the protocol.
        """
        if self.options.train_databases or self.options.test_databases:
            raise UsageError(f"--train-db and --test-db belong to protocol 'cross-db', not to '{self.name}'")
        return tuple(sorted(set(self.options.databases or available)))

    def check_scheme(self, scheme: str) -> None:
        """Raise UsageError where the protocol is not defined for a label scheme."""
        if self.schemes and scheme not in self.schemes:
            known = ", ".join(self.schemes)
            raise UsageError(f"protocol '{self.name}' is defined for label scheme {known}, not '{scheme}'")

    def cut(self, samples: Population) -> FoldSet:
        """Cut samples into folds: checked, ordered by name, with `inner` each with its reserved subjects.

        Raises:
            UsageError: The protocol is not defined for their label scheme.
            ProtocolError: They cannot be cut so.
        """
        self.check_scheme(samples.scheme)
        present = samples.counts() > 0
        warnings = [
            f"class '{samples.classes[c]}' of scheme '{samples.scheme}' has no sample at all; "
            "it stays in every score as 0"
            for c in np.flatnonzero(~present)
        ]
        folds = []
        for name, train_mask, test_mask in sorted(self._cuts(samples), key=lambda cut: cut[0]):
            train, inner = np.flatnonzero(train_mask), np.empty(0, np.int64)
            seed = self.options.fold_seed
            if self.options.train_subjects is not None:
                train = keep_subjects(samples, train, name, self.options.train_subjects, seed)
            if self.options.inner:
                fraction = self.options.inner_fraction
                train, inner = reserve_inner(samples, train, name, fraction, seed)
            missing = np.flatnonzero((samples.counts(train) == 0) & present)
            warnings += [f"fold '{name}': {absent_class_note(samples.classes[c])}" for c in missing]
            folds.append(Fold(name, train, np.flatnonzero(test_mask), inner))
        return FoldSet(self.name, samples, tuple(folds), self.covers, tuple(warnings))

    def split(
        self, samples: object, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield `(train, test)` of each fold in the order of `cut`, both int64 row indices.

        Args:
            samples: A Population; or whatever has a row per sample, as scikit-learn hands it over.
            y: Then `(N,)`, classes.
            groups: Then `(N,)` str, subjects with their database, as in `samm/006`.

        Raises:
            ProtocolError: They cannot be cut so, or belong to other databases than the protocol's.
        """
        for fold in self.cut(self._population(samples, y, groups)).folds:
            yield fold.train, fold.test

    def get_n_splits(
        self, samples: object = None, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> int:
        """Return the number of folds; arguments as of `split`."""
        return len(self.cut(self._population(samples, y, groups)))

    def _population(self, samples: object, y: ArrayLike | None, groups: ArrayLike | None) -> Population:
        if isinstance(samples, Population):
            return samples
        if y is None or groups is None:
            raise ProtocolError(
                f"protocol '{self.name}' cuts by subject and class: give y and groups, the subjects with "
                "their databases (as in 'samm/006')"
            )
        subjects = np.asarray(groups, str)
        databases = np.array([subject.partition("/")[0] for subject in subjects])
        wanted, found = self.databases(np.unique(databases)), sorted({*databases.tolist()})
        if found != sorted(wanted):
            raise ProtocolError(
                f"protocol '{self.name}' reads {', '.join(wanted)}, but groups are subjects of "
                f"{', '.join(found)}; select the rows of these databases"
            )
        classes, labels = np.unique(np.asarray(y), return_inverse=True)
        ids = np.array([f"{row:09d}" for row in range(len(subjects))])
        scheme = self.schemes[0] if self.schemes else ""
        return Population(ids, subjects, databases, labels, tuple(map(str, classes)), scheme)


def _leave_one_out(groups: np.ndarray, needs: str, remedy: str = "") -> Iterator[Cut]:
    names = np.unique(groups)
    if names.size < 2:
        raise ProtocolError(f"{needs}, got {names.size}: {', '.join(names)}{remedy}")
    return ((str(name), groups != name, groups == name) for name in names)


class _LeaveOneSubjectOut(Protocol):
    name = "loso"
    title = "Leave one subject out"
    summary = "one database (--db), any label scheme that covers it"

    def databases(self, available: Iterable[str]) -> tuple[str, ...]:
        chosen = super().databases(())
        if len(chosen) != 1:
            fit = ", ".join(sorted(available)) or "none"
            given = f"got {', '.join(chosen)}" if chosen else "got none"
            raise UsageError(
                f"protocol 'loso' takes exactly one --db, {given}; of this store these have classes in the "
                f"label scheme: {fit}. For the composite use --protocol cde"
            )
        return chosen

    def _cuts(self, samples: Population) -> Iterable[Cut]:
        return _leave_one_out(samples.subjects, "leave-one-subject-out needs at least 2 subjects")


class _Composite(_LeaveOneSubjectOut):
    name = "cde"
    title = "Composite database evaluation (MEGC2019)"
    summary = (
        "SMIC, SAMM and CASME II as one set, 3 classes, leave one subject out over all of them; "
        "scores Full and per database"
    )
    schemes = ("megc3",)

    def databases(self, available: Iterable[str]) -> tuple[str, ...]:
        composite = tuple(MEGC2019)
        if Protocol.databases(self, composite) != composite:
            raise UsageError(
                f"protocol 'cde' is defined on {', '.join(composite)}; "
                "it takes no other --db. Use --protocol loso for one database, kfold for any set"
            )
        return composite


class _HoldOutDatabase(Protocol):
    name = "hde"
    title = "Hold out one database"
    summary = "each database (--db, default all) tested once, trained on the rest"

    def _cuts(self, samples: Population) -> Iterable[Cut]:
        needs = f"holding out one database needs at least 2 with labels of scheme '{samples.scheme}'"
        remedy = "; build another into the store, or use --protocol loso"
        return _leave_one_out(samples.databases, needs, remedy)


class _CrossDatabase(Protocol):
    name = "cross-db"
    title = "Cross database"
    summary = "train on --train-db, test on --test-db"
    covers = False

    def databases(self, available: Iterable[str]) -> tuple[str, ...]:
        train, test = set(self.options.train_databases), set(self.options.test_databases)
        if not train or not test:
            fault = " needs --train-db and --test-db (each may be given several times)"
        elif train & test:
            fault = f": {', '.join(sorted(train & test))} is on both sides; train and test must differ"
        elif self.options.databases:
            fault = " takes --train-db and --test-db, not --db"
        else:
            return tuple(sorted(train | test))
        raise UsageError(f"protocol 'cross-db'{fault}")

    def _cuts(self, samples: Population) -> Iterable[Cut]:
        sides = self.options.train_databases, self.options.test_databases
        train, test = (np.isin(samples.databases, side) for side in sides)
        return [("->".join("+".join(side) for side in sides), train, test)]


class _SubjectKFold(Protocol):
    name = "kfold"
    title = "Subject-disjoint k-fold"
    summary = "k folds (--k) of whole subjects, stratified by class, seeded"

    def _cuts(self, samples: Population) -> Iterable[Cut]:
        # Subjects, shuffled by the seed and then taken from the largest to the smallest, each go to the fold
        # whose class counts they leave closest to an even share.
        k = self.options.k
        names, owner = np.unique(samples.subjects, return_inverse=True)
        if not 2 <= k <= names.size:
            raise ProtocolError(f"kfold needs 2 <= k <= number of subjects ({names.size}), got k={k}")
        counts = np.stack([samples.counts(owner == subject) for subject in range(names.size)])
        share = np.maximum(counts.sum(0), 1)
        shuffled = np.random.default_rng(self.options.fold_seed).permutation(names.size)
        filled, assigned = np.zeros((k, len(samples.classes))), np.full(names.size, -1)

        def cost(fold: int, subject: int) -> tuple[float, float]:
            trial = filled.copy()
            trial[fold] += counts[subject]
            return round(float((trial / share).std(0).sum()), 12), float(trial[fold].sum())

        for done, subject in enumerate(shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]):
            # An empty fold must still be reachable with the subjects that are left.
            empty = np.setdiff1d(np.arange(k), assigned)
            folds = empty if empty.size == names.size - done else np.arange(k)
            best = assigned[subject] = min(folds, key=lambda fold: cost(fold, subject))
            filled[best] += counts[subject]
        named = np.array([f"fold-{fold + 1:0{len(str(k))}d}" for fold in assigned])
        return _leave_one_out(named[owner], "kfold needs 2 folds")


PROTOCOLS: dict[str, type[Protocol]] = {
    protocol.name: protocol
    for protocol in (_Composite, _LeaveOneSubjectOut, _HoldOutDatabase, _CrossDatabase, _SubjectKFold)
}


def get_protocol(name: str, options: ProtocolOptions | None = None) -> Protocol:
    """Return a protocol by name.

    Raises:
        UsageError: No protocol has that name; the nearest one is suggested.

    >>> population = Population(*map(np.array, (["a/1", "b/1"], ["a", "b"], ["x", "x"], [0, 0])), ("c",), "s")
    >>> [(train.tolist(), test.tolist()) for train, test in get_protocol("loso").split(population)]
    [([1], [0]), ([0], [1])]
    """
    if name not in PROTOCOLS:
        raise UsageError(str(unknown("protocol", name, PROTOCOLS)))
    return PROTOCOLS[name](options)
