"""Rotation of maps and frames about their centre, in which the vectors of flow turn with the face."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def rotate(maps: Tensor, angles: Tensor, flows: Sequence[int]) -> Tensor:
    """Turn every sample by an angle of its own.

    Args:
        maps: `(..., B, C, H, W)` float32.
        angles: `(..., B)`, radians from +x (right) towards +y (down).
        flows: Channels that hold a u; v is the next one, in the same unit.

    Returns:
        New maps of the same shape, interpolated linearly; what comes from outside repeats the edge.

    >>> right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 5, 5)
    >>> rotate(right, torch.tensor([torch.pi / 2]), flows=[0])[0, :, 2, 2].round(decimals=4).tolist()
    [-0.0, 1.0]
    """
    height, width = maps.shape[-2:]
    cos, sin = angles.cos()[..., None, None], angles.sin()[..., None, None]
    x = torch.arange(width, device=maps.device, dtype=maps.dtype) - (width - 1) / 2
    y = (torch.arange(height, device=maps.device, dtype=maps.dtype) - (height - 1) / 2).unsqueeze(-1)
    # A place is read where it lay before the turn.
    source = (
        (cos * x + sin * y) * (2 / max(1, width - 1)),
        (cos * y - sin * x) * (2 / max(1, height - 1)),
    )
    grid = torch.stack(source, dim=-1).flatten(0, -4)
    turned = F.grid_sample(
        maps.flatten(0, -4), grid, mode="bilinear", padding_mode="border", align_corners=True
    ).view(maps.shape)
    for u in flows:
        right, down = turned[..., u, :, :].clone(), turned[..., u + 1, :, :].clone()
        turned[..., u, :, :] = cos * right - sin * down
        turned[..., u + 1, :, :] = sin * right + cos * down
    return turned
