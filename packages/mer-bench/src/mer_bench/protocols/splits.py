"""Protocols cut samples into folds; no subject is ever on both sides of one.

Everything is decided by sample ids, subjects and seeds, never by the order of rows, so two stores that hold
the same samples in another order give the same folds under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mer_bench.errors import ProtocolError, UsageError
from mer_bench.protocols.folds import Fold, FoldSet, Population, absent_class_note
from mer_flow.work.suggest import unknown


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
            f"protocol '{protocol.name}' is defined for label scheme "
            f"{', '.join(protocol.schemes)}, not '{scheme}'"
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
    from mer_bench.protocols.inner import reserve_inner

    options = options or ProtocolOptions()
    protocol = get_protocol(name)
    check_scheme(protocol, population.scheme)
    warnings = [
        f"class '{population.classes[c]}' of scheme '{population.scheme}' has no sample at all; "
        "it stays in every score as 0"
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
