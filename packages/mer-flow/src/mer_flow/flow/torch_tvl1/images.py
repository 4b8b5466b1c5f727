"""Images of the pyramid: sizes, linear resampling, gradients, and bicubic warps."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

#: A level with a side below this is left out, as in OpenCV.
SMALLEST_SIDE = 16
#: `flow.border` -> what `grid_sample` calls it.
PADDING = {"zeros": "zeros", "clamp": "border"}


def level_shapes(height: int, width: int, nscales: int, step: float) -> list[tuple[int, int]]:
    """Return (height, width) of the pyramid's levels, finest first, each rounded from the one before.

    >>> level_shapes(224, 224, 3, 0.8)
    [(224, 224), (179, 179), (143, 143)]
    """
    shapes = [(height, width)]
    while len(shapes) < nscales:
        smaller = (round(shapes[-1][0] * step), round(shapes[-1][1] * step))
        if min(smaller) < SMALLEST_SIDE:
            break
        shapes.append(smaller)
    return shapes


def resize(images: torch.Tensor, shape: tuple[int, int], ratio: float | None = None) -> torch.Tensor:
    """Resample float32 (..., H, W) to `shape`, linearly between the two nearest pixels, as OpenCV's `resize`.

    `ratio` is the size ratio that the shape was rounded from; None takes the ratio of the shapes.
    """
    for axis, size in ((-2, shape[0]), (-1, shape[1])):
        length = images.shape[axis]
        step = 1 / ratio if ratio else length / size
        low, high, weight = _taps(length, size, step, images.device)
        weight = weight[:, None] if axis == -2 else weight
        first = images.index_select(axis, low)
        images = first + weight * (images.index_select(axis, high) - first)
    return images


@functools.lru_cache(maxsize=256)
def _taps(
    length: int, size: int, step: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return, per output position, its two source positions and the weight of the second."""
    at = (torch.arange(size, dtype=torch.float64) + 0.5) * step - 0.5
    low = at.floor().clamp(0, length - 1)
    weight = (at - low).clamp(0, 1)
    weight[low >= length - 1] = 0
    high = (low + 1).clamp(max=length - 1)
    return low.long().to(device), high.long().to(device), weight.float().to(device)


def gradient(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return half the difference of the two neighbours, edges repeated, along x and along y, of (N, H, W)."""
    wide = F.pad(images[None], (1, 1, 1, 1), mode="replicate")[0]
    x = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]
    y = wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    return x.mul_(0.5), y.mul_(0.5)


def padded(images: torch.Tensor, border: str) -> torch.Tensor:
    """Extend (N, C, H, W) to the right and below until its sides are powers of two, for `warp`."""
    height, width = images.shape[-2:]
    widths = (0, power_of_two(width) - width, 0, power_of_two(height) - height)
    return F.pad(images, widths, mode="constant" if border == "zeros" else "replicate")


def power_of_two(size: int) -> int:
    """Return the least power of two that is no smaller.

    >>> power_of_two(224), power_of_two(256)
    (256, 256)
    """
    return 1 << (size - 1).bit_length()


def warp(images: torch.Tensor, flow: torch.Tensor, border: str) -> torch.Tensor:
    """Sample images at x + flow(x): Keys' cubic with a = -0.75, as OpenCV's INTER_CUBIC.

    OpenCV 4 rounds positions to 1/32 px; here they keep their 24 bits. `grid_sample` wants positions in parts
    of the image, which are exact where its sides are powers of two. Otherwise no flow would be a flow of
    1e-5 px, and at a border of zeros, where a pixel's neighbour is black, each warp multiplies that by up to
    a hundred.

    Args:
        images: float32 (N, C, H', W') as `padded` gives them.
        flow: float32 (2, N, H, W) px, of the size that comes out.
        border: `zeros`: nothing lies outside, as in OpenCV. `clamp`: the edge goes on.
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
