"""The Inception block and CBAM of IncepTR and Dual-ATME, two networks of one group."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_REDUCED = 6


class Inception(nn.Module):
    """Four parallel convolutions: 1×1, 3×3 and 5×5 after a 1×1 to six channels, and 1×1 after max pooling.

    In the authors' code each convolution has batch normalisation and ReLU of its own. Those read channels one
    by one, so one of each serves all branches; and the three 1×1 convolutions of the input are one. It is the
    same function, with the same parameters and the same distribution at the start. Each branch has `width`
    channels.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.pointwise = nn.Conv2d(in_channels, width + 2 * _REDUCED, 1)
        self.reduced_norm = nn.BatchNorm2d(2 * _REDUCED)
        self.conv3x3 = nn.Conv2d(_REDUCED, width, 3, padding=1)
        self.conv5x5 = nn.Conv2d(_REDUCED, width, 5, padding=2)
        self.pooled = nn.Conv2d(in_channels, width, 1)
        self.norm = nn.BatchNorm2d(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Turn `(B, in_channels, H, W)` into `(B, 4 width, H, W)`."""
        direct, reduced = self.pointwise(x).split([self.width, 2 * _REDUCED], dim=1)
        narrow, wide = F.relu(self.reduced_norm(reduced)).split(_REDUCED, dim=1)
        pooled = self.pooled(F.max_pool2d(x, 3, stride=1, padding=1))
        branches = torch.cat([direct, self.conv3x3(narrow), self.conv5x5(wide), pooled], dim=1)
        return F.relu(self.norm(branches))


class CBAM(nn.Module):
    """Channel attention, then spatial attention (Woo et al., ECCV 2018, doi:10.1007/978-3-030-01234-2_1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 16
        self.channel = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh `(B, channels, H, W)`; same shape."""
        gate = self.channel(x.mean((2, 3))) + self.channel(x.amax((2, 3)))
        x = x * torch.sigmoid(gate)[:, :, None, None]
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial(summary))


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """Tell how far the directions of two branches' `(B, C, ...)` features are apart.

    Returns:
        `(B,)`: one minus the cosine along C, averaged over what follows.
    """
    distance = 1.0 - F.cosine_similarity(a, b, dim=1)
    return distance.flatten(1).mean(1) if distance.dim() > 1 else distance
