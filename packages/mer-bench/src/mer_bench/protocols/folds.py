"""Folds, the samples that they index, and what every set of them must keep."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np

from mer_bench.errors import ProtocolError


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
    """The labelled samples a protocol cuts: who they are, not what they look like. Checked on construction.

    Attributes:
        sample_ids: `(N,)` str, unique.
        subjects: `(N,)` str, unique across databases, as in `samm/006`.
        databases: `(N,)` str.
        labels: `(N,)` int64 in `[0, len(classes))`.
        classes: The label scheme's classes, in order.
        scheme: The label scheme's name.
    """

    sample_ids: np.ndarray
    subjects: np.ndarray
    databases: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    scheme: str

    def __post_init__(self) -> None:
        columns = ("sample_ids", "subjects", "databases", "labels")
        lengths = {name: len(getattr(self, name)) for name in columns}
        if len(set(lengths.values())) != 1:
            raise ProtocolError(f"the columns of the population differ in length: {lengths}")
        of_scheme = f"of scheme '{self.scheme}'"
        if not len(self.labels):
            raise ProtocolError(f"no sample carries a label {of_scheme}; nothing can be cut into folds")
        ids, counts = np.unique(self.sample_ids, return_counts=True)
        if (counts > 1).any():
            named = ", ".join(map(str, ids[counts > 1][:5]))
            raise ProtocolError(f"sample ids occur more than once: {named}")
        low, high, last = self.labels.min(), self.labels.max(), len(self.classes) - 1
        if low < 0 or high > last:
            raise ProtocolError(f"labels span {low}..{high}, expected 0..{last} {of_scheme}")
        home: dict[str, str] = {}
        for subject, database in zip(self.subjects.tolist(), self.databases.tolist(), strict=True):
            if home.setdefault(subject, database) != database:
                raise ProtocolError(
                    f"subject '{subject}' occurs in {home[subject]} and {database}; subject names must be "
                    "unique across databases (as in 'samm/006'), or folds would mix different people"
                )

    def counts(self, index: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return `(C,)` int64, samples per class among the rows `index` (all rows by default)."""
        return np.bincount(self.labels[index], minlength=len(self.classes))


@dataclass(frozen=True)
class FoldSet:
    """Every fold of one protocol over one population, checked on construction.

    Attributes:
        protocol: The protocol's name.
        population: The samples that the folds index.
        folds: In a stable order (by name).
        covers: Whether every sample must be tested exactly once.
        warnings: What a reader of the scores should know, such as a class absent from a training fold.
    """

    protocol: str
    population: Population
    folds: tuple[Fold, ...]
    covers: bool
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self) or not self.names:
            named = self.names[:5]
            raise ProtocolError(f"protocol '{self.protocol}' needs folds with unique names, got {named}")
        for fold in self.folds:
            self._check_fold(fold)
        every = np.concatenate([fold.test for fold in self.folds])
        tested = np.bincount(every, minlength=len(self.population.labels))
        if self.covers and (tested != 1).any():
            wrong = int(np.argmax(tested != 1))
            raise ProtocolError(
                f"protocol '{self.protocol}' must test every sample exactly once; "
                f"{self.population.sample_ids[wrong]} is tested {tested[wrong]} times"
            )

    def _check_fold(self, fold: Fold) -> None:
        where, rows = f"protocol '{self.protocol}', fold '{fold.name}'", len(self.population.labels)
        sides = {"train": fold.train, "test": fold.test, "inner": fold.inner}
        for side, index in sides.items():
            if index.size and (np.any(np.diff(index) <= 0) or index[0] < 0 or index[-1] >= rows):
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
        """Names of the folds, in order."""
        return tuple(fold.name for fold in self.folds)

    def digest(self) -> str:
        """Return the SHA-256, in hex, of the folds as sets of sample ids, whatever the order of rows."""
        ids = self.population.sample_ids
        content = {f.name: [sorted(map(str, ids[i])) for i in (f.train, f.test, f.inner)] for f in self.folds}
        text = json.dumps({"protocol": self.protocol, "folds": content}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def absent_class_note(name: str | int) -> str:
    """Say that a fold cannot learn a class: the sentence that fold sets and records share."""
    shown = f"'{name}'" if isinstance(name, str) else name
    return f"class {shown} has no training sample, so it cannot be predicted there"
