"""Image gradients and bicubic warps, with OpenCV's border or a repeated one."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

#: `flow.border` -> what `grid_sample` calls it.
PADDING = {"zeros": "zeros", "clamp": "border"}


def gradient(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns half the difference of the two neighbours, edges repeated, along x and along y.

    Args:
        images: float32 (..., H, W).

    Returns:
        Two float32 (..., H, W).
    """
    x, y = torch.empty_like(images), torch.empty_like(images)
    torch.sub(images[..., 2:], images[..., :-2], out=x[..., 1:-1])
    torch.sub(images[..., 1], images[..., 0], out=x[..., 0])
    torch.sub(images[..., -1], images[..., -2], out=x[..., -1])
    torch.sub(images[..., 2:, :], images[..., :-2, :], out=y[..., 1:-1, :])
    torch.sub(images[..., 1, :], images[..., 0, :], out=y[..., 0, :])
    torch.sub(images[..., -1, :], images[..., -2, :], out=y[..., -1, :])
    return x.mul_(0.5), y.mul_(0.5)


def padded(images: torch.Tensor, border: str) -> torch.Tensor:
    """Extends images to the right and below until their sides are powers of two, for `warp`.

    Args:
        images: float32 (N, C, H, W).
        border: `zeros` or `clamp`: what `warp` shall find there.

    Returns:
        float32 (N, C, H', W').
    """
    height, width = images.shape[-2:]
    widths = (0, power_of_two(width) - width, 0, power_of_two(height) - height)
    return F.pad(images, widths, mode="constant" if border == "zeros" else "replicate")


def power_of_two(size: int) -> int:
    """Returns the least power of two that is no smaller.

    >>> power_of_two(224), power_of_two(256)
    (256, 256)
    """
    return 1 << (size - 1).bit_length()


def warp(images: torch.Tensor, flow: torch.Tensor, border: str) -> torch.Tensor:
    """Samples images at x + flow(x): Keys' cubic with a = -0.75, as OpenCV's INTER_CUBIC.

    OpenCV 4 rounds positions to 1/32 px; here they keep their 24 bits. `grid_sample` wants positions in parts
    of the image, which are exact where its sides are powers of two. Otherwise no flow would be a flow of
    1e-5 px, and at a border of zeros, where a pixel's neighbour is black, each warp multiplies that by up to
    a hundred.

    Args:
        images: float32 (N, C, H', W') as `padded` gives them.
        flow: float32 (2, N, H, W) px.
        border: `zeros`: nothing lies outside, as in OpenCV. `clamp`: the edge goes on.

    Returns:
        float32 (N, C, H, W).
    """
    height, width = images.shape[-2:]
    x, y = _centres(flow.shape[-2], flow.shape[-1], images.device)
    # -1 to 1 from the outer edge of the first pixel to that of the last.
    grid = torch.stack([(flow[0] + x) * (2 / width) - 1, (flow[1] + y) * (2 / height) - 1], dim=-1)
    return F.grid_sample(images, grid, "bicubic", PADDING[border], align_corners=False)


@functools.lru_cache(maxsize=64)
def _centres(height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.arange(width, dtype=torch.float32, device=device) + 0.5
    y = torch.arange(height, dtype=torch.float32, device=device)[:, None] + 0.5
    return x, y
