"""Protocols cut samples into folds; no subject is ever on both sides of one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


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
