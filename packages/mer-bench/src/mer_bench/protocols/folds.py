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
