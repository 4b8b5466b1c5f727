"""Mixup: training on blends of two samples of a batch and of their losses.

H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz: mixup: Beyond Empirical Risk Minimization. ICLR 2018,
arXiv:1710.09412, eq. 2. The paper draws a share for each sample, its authors' code one for each batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mer_bench.recipe import Recipe
from mer_bench.training.seeding import mix, permutation, uniform

_POINTS = 4096


class Mixed(NamedTuple):
    """A batch of blends. The loss of a blend is that of two samples which weigh its shares.

    Attributes:
        maps: `(..., B, C, H, W)` float32.
        labels: `(..., 2 B)` int64, of the first samples, then of the second ones.
        weights: `(..., 2 B)` float32: their shares, 0 for padding.
    """

    maps: Tensor
    labels: Tensor
    weights: Tensor


class Mixer:
    """Mixes every sample of a batch with one that a permutation of the batch assigns to it.

    Args:
        recipe: With `mixup` above 0.
        device: Where the maps are.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self._quantiles = torch.from_numpy(beta_quantiles(recipe.mixup)).to(device)
        self._by_sample = recipe.mixup_by == "sample"

    def __call__(self, maps: Tensor, labels: Tensor, weights: Tensor | None, key: Tensor) -> Mixed:
        """Mix a batch.

        Args:
            maps: `(..., B, C, H, W)` float32.
            labels: `(..., B)` int64.
            weights: `(..., B)` float32, 1 for a sample and 0 for padding, which comes last; None where every
                row is a sample.
            key: Stream keys with the leading axes of `maps`, int64.
        """
        batch = labels.shape[-1]
        rows = torch.ones_like(labels, dtype=maps.dtype) if weights is None else weights
        partner = permutation(mix(key + 1), rows.sum(-1).to(torch.int64), batch)
        drawn = uniform(mix(key + 2), batch if self._by_sample else 1)
        share = self._at(drawn).expand(labels.shape)
        own = share[..., None, None, None]
        others = maps.gather(-4, partner[..., None, None, None].expand(maps.shape))
        return Mixed(
            own * maps + (1.0 - own) * others,
            torch.cat([labels, labels.gather(-1, partner)], -1),
            torch.cat([share * rows, (1.0 - share) * rows], -1),
        )

    def _at(self, drawn: Tensor) -> Tensor:
        """Return the quantiles at numbers in [0, 1), linear between the points of the table."""
        place = drawn * _POINTS
        low = place.to(torch.int64).clamp(max=_POINTS - 1)
        return torch.lerp(self._quantiles[low], self._quantiles[low + 1], place - low)


def beta_quantiles(alpha: float) -> np.ndarray:
    """Tabulate the quantile function of Beta(alpha, alpha) at 4097 even points of [0, 1], as float32."""
    from scipy.special import betaincinv

    return betaincinv(alpha, alpha, np.linspace(0.0, 1.0, _POINTS + 1)).astype(np.float32)
