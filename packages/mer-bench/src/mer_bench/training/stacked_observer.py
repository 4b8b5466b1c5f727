"""The observer of stacked folds: outside the training, it records each epoch's logits of the kept samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mer_bench.protocols.folds import Fold
from mer_bench.training.engines.graphs import GraphNotes, Replayed
from mer_bench.training.stacked_network import StackedNetwork

_BLOCK = 64


class StackedObserver:
    """Records the logits of every fold's held-out and inner samples after each epoch.

    It reads the networks and never changes them; nothing flows back to the trainer.

    Args:
        network: The folds' networks, observed as they are at each call.
        maps: `(N, C, H, W)` float32 on the device.
        folds: Their `test` and `inner` samples are observed.
        epochs: How many epochs there will be.
        num_classes: Width of the logits.
        notes: Where it is noted that a prediction could not be captured.
        pool: Memory pool of CUDA graphs.
    """

    def __init__(
        self,
        network: StackedNetwork,
        maps: Tensor,
        folds: Sequence[Fold],
        epochs: int,
        num_classes: int,
        notes: GraphNotes | None = None,
        pool: object = None,
    ) -> None:
        self._network = network
        self._folds = folds
        self._maps = maps
        watched = [np.concatenate([fold.test, fold.inner]) for fold in folds]
        widest = max(map(len, watched))
        # Folds watch unequal numbers of samples; the rows that fill up are predicted and never read.
        rows = [np.concatenate([w, np.full(widest - len(w), w[0])]) for w in watched]
        self._rows = torch.from_numpy(np.stack(rows).astype(np.int64)).to(maps.device)
        self._record = torch.zeros(epochs, len(folds), widest, num_classes, device=maps.device)
        self._seen = 0
        self._replayed = Replayed(
            self._predict, "prediction of held-out samples", notes or GraphNotes(), maps.is_cuda, pool
        )

    def observe(self) -> None:
        """Predict every observed sample with the networks as they are now. The record stays on the device."""
        record = self._record[self._seen]
        for start in range(0, self._rows.shape[1], _BLOCK):
            rows = self._rows[:, start : start + _BLOCK]
            record[:, start : start + _BLOCK] = self._replayed(rows)
        self._seen += 1

    def _predict(self, rows: Tensor) -> Tensor:
        return self._network.predict(self._maps[rows])

    def logits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The record.

        Returns:
            Per fold `(epochs, n, classes)` float32 of the held-out samples and `(epochs, m, classes)` of the
            inner ones.
        """
        record = self._record.cpu().numpy()
        parts = []
        for place, fold in enumerate(self._folds):
            held_out, inner = len(fold.test), len(fold.inner)
            rows = record[:, place]
            parts.append((rows[:, :held_out].copy(), rows[:, held_out : held_out + inner].copy()))
        return parts
