"""Implicit semantic data augmentation (Wang et al., NeurIPS 2019, arXiv:1909.12220; TPAMI, arXiv:2007.10538).

Features of a sample are imagined moved along their class's covariance, infinitely often; the expected
cross-entropy has an upper bound that is cross-entropy again, of raised logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ISDA(nn.Module):
    """Running covariance of each class's features, and the logits that augmenting along it gives.

    Statistics are those of every training sample seen so far, as in the authors' code: each batch enters with
    its share of the count.

    Attributes:
        mean: `(classes, features)` float32.
        covariance: `(classes, features, features)` float32, divided by the count.
        count: `(classes,)` float32, samples seen.
        row_weight: `(B,)` float32, 1 for a sample and 0 for padding; the engine sets it where folds are
            stacked.
    """

    mean: Tensor
    covariance: Tensor
    count: Tensor
    row_weight: Tensor

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_classes, features))
        self.register_buffer("covariance", torch.zeros(num_classes, features, features))
        self.register_buffer("count", torch.zeros(num_classes))
        self.register_buffer("row_weight", torch.ones(1), persistent=False)

    def forward(
        self, features: Tensor, logits: Tensor, labels: Tensor, weight: Tensor, strength: Tensor
    ) -> Tensor:
        """Track a training batch, then raise its logits (the papers' Proposition 1).

        Args:
            features: `(B, A)` float32, what the classifier reads.
            logits: `(B, classes)`.
            labels: `(B,)` int64.
            weight: `(classes, A)` of the classifier; gradients reach it this way too.
            strength: float32 scalar λ.

        Returns:
            `(B, classes)` float32: logit c of a sample of class y is raised by
            `λ/2 (w_c - w_y)ᵀ Σ_y (w_c - w_y)`.
        """
        self._track(features.detach().float(), labels)
        # [y, c]: the raise depends on a sample by its class alone.
        apart = weight.float().unsqueeze(0) - weight.float().unsqueeze(1)
        spread = ((apart @ self.covariance) * apart).sum(-1)
        return logits.float() + 0.5 * strength * spread[labels]

    @torch.no_grad()
    def _track(self, features: Tensor, labels: Tensor) -> None:
        own = F.one_hot(labels, self.count.shape[0]).float() * self.row_weight.view(-1, 1)
        seen = own.sum(0)
        mean = own.T @ features / seen.clamp(min=1).unsqueeze(1)
        centred = own.T.unsqueeze(-1) * (features.unsqueeze(0) - mean.unsqueeze(1))
        covariance = centred.transpose(1, 2) @ centred / seen.clamp(min=1).view(-1, 1, 1)
        share = seen / (self.count + seen).clamp(min=1)
        shift = self.mean - mean
        between = (share * (1 - share)).view(-1, 1, 1) * shift.unsqueeze(2) * shift.unsqueeze(1)
        # In place, as a buffer under `vmap` must be.
        self.covariance.add_((covariance - self.covariance) * share.view(-1, 1, 1)).add_(between)
        self.mean.add_((mean - self.mean) * share.unsqueeze(1))
        self.count.add_(seen)
