"""Training samples of many folds at once, picked from one copy of the data on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mer_bench.protocols.folds import Fold
from mer_bench.training.samples import training_rows


class StackedSamples:
    """The training samples of several folds; a position is a place among a fold's own training samples.

    The data lie on the device once, whatever the number of folds. Positions lead to training samples only:
    the rows of held-out and inner samples are not known here.

    Args:
        maps: `(N, C, H, W)` float32 on the device.
        labels: `(N,)` int64 on the device.
        folds: Only their `train` is read.
        num_classes: Number of classes.

    Attributes:
        lengths: `(F,)` int64 training samples of each fold.
        padded: The largest of them.
        counts: `(F, classes)` int64 samples per class.
    """

    def __init__(self, maps: Tensor, labels: Tensor, folds: Sequence[Fold], num_classes: int) -> None:
        self._maps = maps
        self._labels = labels
        sizes = [len(fold.train) for fold in folds]
        self.padded = max(sizes)
        # Padding repeats a training sample of the same fold; its weight is zero.
        ordered = [training_rows(fold, labels.cpu().numpy()) for fold in folds]
        rows = [np.concatenate([r, np.full(self.padded - len(r), r[0])]) for r in ordered]
        device = maps.device
        self._rows = torch.from_numpy(np.stack(rows).astype(np.int64)).to(device)
        self.lengths = torch.tensor(sizes, device=device)
        one_hot = torch.nn.functional.one_hot(labels, num_classes)
        self.counts = torch.stack([one_hot[self._rows[i, :size]].sum(0) for i, size in enumerate(sizes)])

    def __len__(self) -> int:
        return len(self._rows)

    def pick(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pick one batch per fold.

        Args:
            positions: `(F, B)` int64 in `0 .. padded - 1`; those from a fold's length on are padding.

        Returns:
            Maps `(F, B, C, H, W)`, labels `(F, B)` and weights `(F, B)` float32, 1 for a sample and 0 for
            padding.
        """
        rows = self._rows.gather(1, positions)
        weights = (positions < self.lengths.unsqueeze(1)).to(self._maps.dtype)
        return self._maps[rows], self._labels[rows], weights
