"""Supervised contrast: features of a class are drawn together and away from the others.

P. Khosla et al.: Supervised Contrastive Learning. NeurIPS 2020, arXiv:2004.11362, eq. 2. The paper contrasts
two augmentations of each sample behind a projection head, then trains a classifier; here it is a term beside
the loss, on one augmentation and on what the network's last linear layer reads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LastLinear:
    """Keeps what a network's last linear layer read when it last ran.

    Args:
        network: Has an `nn.Linear`; the last one in the order of its modules counts.
    """

    def __init__(self, network: nn.Module) -> None:
        layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
        self._read: Tensor | None = None
        layers[-1].register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._read = inputs[0]

    def take(self) -> Tensor:
        """Return it, `(B, D)`, and forget it.

        Raises:
            ValueError: The layer did not run.
        """
        read, self._read = self._read, None
        if read is None:
            raise ValueError("its last linear layer did not run, so supcon has no features; set supcon = 0")
        return read.flatten(1)


def supervised_contrast(
    features: Tensor, labels: Tensor, weights: Tensor | None, temperature: float
) -> Tensor:
    """Return the term of every sample; 0 for one without another of its class in the batch.

    Args:
        features: `(..., B, D)` float.
        labels: `(..., B)` int64.
        weights: `(..., B)` float32, 1 for a sample and 0 for padding; None where every row is a sample.
        temperature: Of the similarities, which are cosines.

    Returns:
        `(..., B)` float32.
    """
    z = F.normalize(features.float(), dim=-1)
    rows = torch.ones_like(labels, dtype=z.dtype) if weights is None else weights
    others = rows.unsqueeze(-2) * (1.0 - torch.eye(labels.shape[-1], dtype=z.dtype, device=z.device))
    positives = others * (labels.unsqueeze(-1) == labels.unsqueeze(-2))
    similar = z @ z.transpose(-1, -2) / temperature
    # Cosines are at most 1: no exponential overflows.
    total = (others * torch.exp(similar - 1.0 / temperature)).sum(-1, keepdim=True)
    log_share = similar - 1.0 / temperature - torch.log(total.clamp(min=torch.finfo(z.dtype).tiny))
    return -(positives * log_share).sum(-1) / positives.sum(-1).clamp(min=1.0)
