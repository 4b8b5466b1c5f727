"""FoldResult: the record of one trained fold, from which every score is computed later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class FoldResult:
    """What one fold left behind. Rows are indices into the run's data, so nothing can be mislabelled.

    Attributes:
        fold: The fold's name, as in `samm/006`.
        seed: The run's seed (not the derived one).
        test_index: `(n,)` int64, the held-out samples.
        logits: `(epochs, n, classes)` float32, the held-out samples' logits after each epoch.
        inner_index: `(m,)` int64, samples of the training subjects reserved for choosing the epoch; empty
            without `inner`.
        inner_logits: `(epochs, m, classes)` float32.
        train_loss: `(epochs,)` float32, mean over the training samples.
        train_accuracy: `(epochs,)` float32 in [0, 1].
        seconds: Wall time this fold took (its share, where folds were stacked).
        engine: `local`, `stacked` or `classifier`; of a run made of others how it was made, as in `ensemble`.
        device: As torch names it; with `(tf32)` where a GPU multiplied matrices so.
        notes: What a reader of the score should know, as in a class absent from training.
        members: `(M, n, classes)` float32, logits or log probabilities of the members of a run made of
            others.
        decided: What was decided in this fold: `weights` of the members and, where one was chosen, the
            `scores` it was chosen by; each by the member's name.
    """

    fold: str
    seed: int
    test_index: np.ndarray
    logits: np.ndarray
    inner_index: np.ndarray
    inner_logits: np.ndarray
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    seconds: float
    engine: str
    device: str
    notes: tuple[str, ...] = ()
    members: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))
    decided: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
