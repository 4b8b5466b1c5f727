"""Flow maps: what networks need of them, and the pictures that some were trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mer_bench.errors import UsageError


def check_maps(model: str, in_channels: int, map_size: int, smallest: int = 4, streams: int = 1) -> None:
    """Refuse maps without v, where a model reads u and v as two streams, or too small to be pooled twice."""
    if in_channels < streams:
        raise UsageError(f"{model} reads u and v, but the maps have {in_channels} channel")
    if map_size < smallest:
        raise UsageError(f"{model} takes maps of {smallest}×{smallest} pixels or more, got {map_size}")


def rows(maps: Tensor) -> Tensor:
    """View `(B, C, H, W)` maps as `(B, H, W, C)`: the order in memory where they lie channels-last."""
    return maps.permute(0, 2, 3, 1)


def stretch(maps: Tensor) -> Tensor:
    """Scale every image and channel of `(..., H, W)` to [0, 1]; a constant one becomes 0."""
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
    """Resize `(B, C, H, W)` maps bilinearly to `(B, C, size, size)`, unless they have that size."""
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
