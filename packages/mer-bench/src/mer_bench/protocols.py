"""Protocols cut samples into folds; no subject is ever on both sides of one.

Everything is decided by sample ids, subjects and seeds, never by the order of rows, so two stores that hold
the same samples in another order give the same folds under the same names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mer_bench.errors import ProtocolError, UsageError
from mer_flow.suggest import unknown


@dataclass(frozen=True)
class Fold:
    """One training and its held-out samples.

    Attributes:
        name: Unique within its protocol; the held-out subject for LOSO, as in `samm/006`.
        train: `(n,)` int64 indices into the data, ascending.
        test: `(m,)` int64 indices, ascending; disjoint from `train` in samples and subjects.
        inner: `(k,)` int64 indices of training subjects reserved to choose the epoch; not part of `train`.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    inner: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class Population:
    """The labelled samples a protocol cuts: who they are, not what they look like.

    Attributes:
        sample_ids: `(N,)` str, unique.
        subjects: `(N,)` str, unique across databases, as in `samm/006`.
        databases: `(N,)` str.
        labels: `(N,)` int64 in `[0, len(classes))`.
        classes: The label scheme's classes, in order.
        scheme: The label scheme's name.

    Raises:
        ProtocolError: The columns differ in length, an id occurs twice, a label is out of range, or one
            subject's name occurs in two databases.
    """

    sample_ids: np.ndarray
    subjects: np.ndarray
    databases: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    scheme: str

    def __post_init__(self) -> None:
        lengths = {
            name: len(getattr(self, name)) for name in ("sample_ids", "subjects", "databases", "labels")
        }
        if len(set(lengths.values())) != 1:
            raise ProtocolError(f"the columns of the population differ in length: {lengths}")
        if not len(self.labels):
            raise ProtocolError(
                f"no sample carries a label of scheme '{self.scheme}'; nothing can be cut into folds"
            )
        ids, counts = np.unique(self.sample_ids, return_counts=True)
        if (counts > 1).any():
            raise ProtocolError(
                f"sample ids occur more than once: {', '.join(map(str, ids[counts > 1][:5]))}"
            )
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise ProtocolError(
                f"labels span {self.labels.min()}..{self.labels.max()}, expected 0..{len(self.classes) - 1} "
                f"of scheme '{self.scheme}'"
            )
        home: dict[str, str] = {}
        for subject, database in zip(self.subjects.tolist(), self.databases.tolist(), strict=True):
            if home.setdefault(subject, database) != database:
                raise ProtocolError(
                    f"subject '{subject}' occurs in {home[subject]} and {database}; subject names must be "
                    "unique across databases (as in 'samm/006'), or folds would mix different people"
                )

    def counts(self, index: np.ndarray | None = None) -> np.ndarray:
        """Returns `(C,)` int64, samples per class among the rows `index` (all rows by default)."""
        labels = self.labels if index is None else self.labels[index]
        return np.bincount(labels, minlength=len(self.classes))


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
    """

    databases: tuple[str, ...] = ()
    train_databases: tuple[str, ...] = ()
    test_databases: tuple[str, ...] = ()
    k: int = 5
    fold_seed: int = 0
    inner: bool = False
    inner_fraction: float = 0.2


@dataclass(frozen=True)
class FoldSet:
    """Every fold of one protocol over one population, checked on construction.

    Attributes:
        protocol: The protocol's name.
        population: The samples that the folds index.
        folds: In a stable order (by name).
        covers: Whether every sample must be tested exactly once.
        warnings: What a reader of the scores should know, such as a class absent from a training fold.

    Raises:
        ProtocolError: A fold is empty, unsorted, shares a sample or a subject between its sides, or (with
            `covers`) a sample is tested never or twice.
    """

    protocol: str
    population: Population
    folds: tuple[Fold, ...]
    covers: bool
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [fold.name for fold in self.folds]
        if len(set(names)) != len(names) or not names:
            raise ProtocolError(f"protocol '{self.protocol}' needs folds with unique names, got {names[:5]}")
        for fold in self.folds:
            self._check_fold(fold)
        if self.covers:
            tested = np.bincount(
                np.concatenate([f.test for f in self.folds]), minlength=len(self.population.labels)
            )
            wrong = np.flatnonzero(tested != 1)
            if wrong.size:
                raise ProtocolError(
                    f"protocol '{self.protocol}' must test every sample exactly once; "
                    f"{self.population.sample_ids[wrong[0]]} is tested {tested[wrong[0]]} times"
                )

    def _check_fold(self, fold: Fold) -> None:
        where = f"protocol '{self.protocol}', fold '{fold.name}'"
        sides = {"train": fold.train, "test": fold.test, "inner": fold.inner}
        for side, index in sides.items():
            if index.size and (
                np.any(np.diff(index) <= 0) or index[0] < 0 or index[-1] >= len(self.population.labels)
            ):
                raise ProtocolError(f"{where}: the {side} indices are not ascending and within the data")
        if not fold.train.size or not fold.test.size:
            raise ProtocolError(f"{where}: {fold.train.size} training and {fold.test.size} test samples")
        subjects = {side: set(self.population.subjects[index].tolist()) for side, index in sides.items()}
        for one, other in (("train", "test"), ("train", "inner"), ("inner", "test")):
            shared = subjects[one] & subjects[other]
            if shared:
                raise ProtocolError(f"{where}: subject '{min(shared)}' is in both {one} and {other}")

    def __len__(self) -> int:
        return len(self.folds)

    @property
    def names(self) -> tuple[str, ...]:
        """The folds' names, in order."""
        return tuple(fold.name for fold in self.folds)

    def digest(self) -> str:
        """Returns the SHA-256, in hex, of the folds as sets of sample ids, whatever the order of rows."""
        ids = self.population.sample_ids
        content = {
            fold.name: [sorted(map(str, ids[index])) for index in (fold.train, fold.test, fold.inner)]
            for fold in self.folds
        }
        text = json.dumps({"protocol": self.protocol, "folds": content}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def absent_class_note(name: str | int) -> str:
    """Says that a fold cannot learn a class: the sentence that fold sets and records share."""
    shown = f"'{name}'" if isinstance(name, str) else name
    return f"class {shown} has no training sample, so it cannot be predicted there"


Cut = list[tuple[str, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Protocol:
    """One way to cut a population.

    Attributes:
        name: As on the command line.
        title: The name a table prints.
        summary: What it does, one sentence.
        cut: From a population and options to `(name, train mask, test mask)` of every fold; masks are `(N,)`
            bool.
        databases: The databases it is defined on; empty where the options say.
        schemes: The label schemes it is defined for; empty means any.
        covers: Whether every sample is tested exactly once.
    """

    name: str
    title: str
    summary: str
    cut: Callable[[Population, ProtocolOptions], Cut]
    databases: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    covers: bool = True


def _leave_one_out(groups: np.ndarray) -> Cut:
    return [(str(name), groups != name, groups == name) for name in np.unique(groups)]


def _loso(population: Population, options: ProtocolOptions) -> Cut:
    names = np.unique(population.subjects)
    if names.size < 2:
        raise ProtocolError(
            f"leave-one-subject-out needs at least 2 subjects, got {names.size}: {', '.join(names)}"
        )
    return _leave_one_out(population.subjects)


def _hde(population: Population, options: ProtocolOptions) -> Cut:
    names = np.unique(population.databases)
    if names.size < 2:
        raise ProtocolError(
            f"holding out one database needs at least 2 with labels of scheme '{population.scheme}', got "
            f"{', '.join(names)}; build another into the store, or use --protocol loso"
        )
    return _leave_one_out(population.databases)


def _cross(population: Population, options: ProtocolOptions) -> Cut:
    train = np.isin(population.databases, options.train_databases)
    test = np.isin(population.databases, options.test_databases)
    return [(f"{'+'.join(options.train_databases)}->{'+'.join(options.test_databases)}", train, test)]


def _kfold(population: Population, options: ProtocolOptions) -> Cut:
    """Deals whole subjects to k folds, keeping the classes' shares as equal as whole subjects allow.

    Subjects, shuffled by the seed and then taken from the largest to the smallest, each go to the fold whose
    class counts they leave closest to an even share.
    """
    names, owner = np.unique(population.subjects, return_inverse=True)
    if not 2 <= options.k <= names.size:
        raise ProtocolError(f"kfold needs 2 <= k <= number of subjects ({names.size}), got k={options.k}")
    per_subject = np.zeros((names.size, len(population.classes)))
    np.add.at(per_subject, (owner, population.labels), 1)
    share = np.maximum(per_subject.sum(0), 1)
    shuffled = np.random.default_rng(options.fold_seed).permutation(names.size)
    order = shuffled[np.argsort(-per_subject[shuffled].sum(1), kind="stable")]
    filled = np.zeros((options.k, len(population.classes)))
    members = np.zeros(options.k, np.int64)
    assigned = np.empty(names.size, np.int64)
    for position, subject in enumerate(order):
        # An empty fold must still be reachable with the subjects that are left.
        left = names.size - position
        candidates = np.flatnonzero(members == 0) if (members == 0).sum() == left else np.arange(options.k)
        cost = []
        for fold in candidates:
            trial = filled.copy()
            trial[fold] += per_subject[subject]
            cost.append(
                (round(float(((trial / share).std(0)).sum()), 12), float(trial[fold].sum()), int(fold))
            )
        best = min(cost)[-1]
        filled[best] += per_subject[subject]
        members[best] += 1
        assigned[subject] = best
    width = len(str(options.k))
    fold_of = assigned[owner]
    return [(f"fold-{k + 1:0{width}d}", fold_of != k, fold_of == k) for k in range(options.k)]


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "cde",
            "Composite database evaluation (MEGC2019)",
            "SMIC, SAMM and CASME II as one set, 3 classes, leave one subject out over all of them; "
            "scores Full and per database",
            _loso,
            databases=("casme2", "samm", "smic"),
            schemes=("megc3",),
        ),
        Protocol(
            "loso", "Leave one subject out", "one database (--db), any label scheme that covers it", _loso
        ),
        Protocol(
            "hde",
            "Hold out one database",
            "each database (--db, default all) tested once, trained on the rest",
            _hde,
        ),
        Protocol(
            "cross-db", "Cross database", "train on --train-db, test on --test-db", _cross, covers=False
        ),
        Protocol(
            "kfold",
            "Subject-disjoint k-fold",
            "k folds (--k) of whole subjects, stratified by class, seeded",
            _kfold,
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """Returns a protocol by name.

    Raises:
        UsageError: No protocol has that name; the nearest one is suggested.
    """
    if name not in PROTOCOLS:
        raise UsageError(str(unknown("protocol", name, PROTOCOLS)))
    return PROTOCOLS[name]


def check_scheme(protocol: Protocol, scheme: str) -> None:
    """Refuses a label scheme that a protocol is not defined for.

    Raises:
        UsageError: It is not.
    """
    if protocol.schemes and scheme not in protocol.schemes:
        raise UsageError(
            f"protocol '{protocol.name}' is defined for label scheme {', '.join(protocol.schemes)}, not "
            f"'{scheme}'"
        )


def databases_needed(
    protocol: Protocol, options: ProtocolOptions, available: Sequence[str]
) -> tuple[str, ...]:
    """Returns the databases that a protocol reads, sorted.

    Args:
        protocol: The protocol.
        options: Its options.
        available: The databases of the store.

    Raises:
        UsageError: The options do not fit the protocol.
    """
    chosen = options.databases
    cross = (*options.train_databases, *options.test_databases)
    if protocol.name != "cross-db" and cross:
        raise UsageError(f"--train-db and --test-db belong to protocol 'cross-db', not to '{protocol.name}'")
    if protocol.databases:
        if chosen and set(chosen) != set(protocol.databases):
            raise UsageError(
                f"protocol '{protocol.name}' is defined on {', '.join(protocol.databases)}; "
                "it takes no other --db. Use --protocol loso for one database, kfold for any set"
            )
        return protocol.databases
    if protocol.name == "cross-db":
        if not options.train_databases or not options.test_databases:
            raise UsageError(
                "protocol 'cross-db' needs --train-db and --test-db (each may be given several times)"
            )
        both = set(options.train_databases) & set(options.test_databases)
        if both:
            raise UsageError(
                f"protocol 'cross-db': {', '.join(sorted(both))} is on both sides; train and test must differ"
            )
        if chosen:
            raise UsageError("protocol 'cross-db' takes --train-db and --test-db, not --db")
        return tuple(sorted(set(cross)))
    if protocol.name == "loso" and len(chosen) != 1:
        given = f"got {', '.join(chosen)}" if chosen else f"the store holds {', '.join(sorted(available))}"
        raise UsageError(
            f"protocol 'loso' takes exactly one --db; {given}. For the composite use --protocol cde"
        )
    return tuple(sorted(set(chosen or available)))


def cut_folds(name: str, population: Population, options: ProtocolOptions | None = None) -> FoldSet:
    """Cuts a population into the folds of a protocol.

    Args:
        name: One of `PROTOCOLS`.
        population: The labelled samples.
        options: The protocol's options.

    Returns:
        The checked folds, ordered by name; with `inner`, each with its reserved subjects.

    Raises:
        UsageError: No such protocol, or a label scheme it is not defined for.
        ProtocolError: The population cannot be cut so.
    """
    from mer_bench.inner import reserve_inner

    options = options or ProtocolOptions()
    protocol = get_protocol(name)
    check_scheme(protocol, population.scheme)
    warnings = [
        f"class '{population.classes[c]}' of scheme '{population.scheme}' has no sample at all; it stays in "
        f"every score as 0"
        for c in np.flatnonzero(population.counts() == 0)
    ]
    folds = []
    for fold_name, train_mask, test_mask in sorted(protocol.cut(population, options), key=lambda cut: cut[0]):
        train, test = np.flatnonzero(train_mask), np.flatnonzero(test_mask)
        inner = np.empty(0, np.int64)
        if options.inner:
            train, inner = reserve_inner(
                population, train, fold_name, options.inner_fraction, options.fold_seed
            )
        missing = (
            np.flatnonzero((population.counts(train) == 0) & (population.counts() > 0)) if train.size else ()
        )
        warnings += [f"fold '{fold_name}': {absent_class_note(population.classes[c])}" for c in missing]
        folds.append(Fold(fold_name, train, test, inner))
    return FoldSet(name, population, tuple(folds), protocol.covers, tuple(warnings))
