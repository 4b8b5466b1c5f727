"""Flow maps as the pictures that some networks were trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def stretch(maps: Tensor) -> Tensor:
    """Scale every image and channel to [0, 1].

    Args:
        maps: `(..., H, W)`.

    Returns:
        Same shape; a constant image becomes 0.
    """
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    span = high - low
    return (maps - low) / torch.where(span > 0, span, 1.0)


def colour_code(u: Tensor, v: Tensor) -> Tensor:
    """Paint flow by colour: the direction as hue, the length (stretched to [0, 1]) as value, full saturation.

    Movement is taken relative to the image's median, as most of a face keeps still: maps that were scaled to
    their minimum and maximum no longer know where zero was.

    Args:
        u: `(..., H, W)`, right is positive.
        v: `(..., H, W)`, down is positive.

    Returns:
        `(..., 3, H, W)` in [0, 1], channels blue, green, red.
    """
    u, v = (x - x.flatten(-2).median(-1).values[..., None, None] for x in (u, v))
    value = stretch(torch.hypot(u, v))
    # In sixths of the circle.
    hue = torch.atan2(v, u) * (3.0 / torch.pi) % 6.0
    parts = []
    for offset in (1.0, 3.0, 5.0):
        k = (hue + offset) % 6.0
        parts.append(value * (1.0 - torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)))
    return torch.stack(parts, dim=-3)


def resize(maps: Tensor, size: int) -> Tensor:
    """Resize maps bilinearly.

    Args:
        maps: `(B, C, H, W)`.
        size: Height and width to give.

    Returns:
        `(B, C, size, size)`; the maps themselves where they have that size.
    """
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
