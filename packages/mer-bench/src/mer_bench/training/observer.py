"""The observer: outside the training, it records what each epoch's network says of the kept samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mer_bench.protocols.folds import Fold
from mer_bench.training.network import wants_channels_last

_BLOCK = 256


class Observer:
    """Records the logits of a fold's held-out and inner samples after every epoch.

    It reads a network and never changes it; nothing flows back to the trainer.

    Args:
        maps: `(N, C, H, W)` float32, the run's maps.
        fold: Its `test` and `inner` samples are observed.
        epochs: How many epochs there will be.
        num_classes: Width of the logits.
        device: Where the network is.
    """

    def __init__(
        self, maps: np.ndarray, fold: Fold, epochs: int, num_classes: int, device: torch.device
    ) -> None:
        self._device = device
        watched = np.concatenate([fold.test, fold.inner])
        self._maps = torch.from_numpy(np.asarray(maps)[watched].astype(np.float32, copy=False)).to(device)
        self._held_out = len(fold.test)
        self._record = torch.zeros(epochs, len(watched), num_classes, device=device)
        self._seen = 0

    @torch.inference_mode()
    def observe(self, network: nn.Module) -> None:
        """Predict every observed sample with the network as it is now.

        Args:
            network: Put into evaluation mode; the trainer sets training mode itself.
        """
        network.eval()
        if self._seen == 0 and wants_channels_last(network, self._device):
            self._maps = self._maps.contiguous(memory_format=torch.channels_last)
        row = self._record[self._seen]
        for start in range(0, len(self._maps), _BLOCK):
            row[start : start + _BLOCK] = network(self._maps[start : start + _BLOCK])
        self._seen += 1

    def logits(self) -> tuple[np.ndarray, np.ndarray]:
        """The record.

        Returns:
            `(epochs, n, classes)` float32 of the held-out samples and `(epochs, m, classes)` of the inner
            ones.
        """
        record: Tensor = self._record.cpu()
        return record[:, : self._held_out].numpy().copy(), record[:, self._held_out :].numpy().copy()
