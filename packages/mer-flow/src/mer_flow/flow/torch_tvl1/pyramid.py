"""The image pyramid: linear resampling of float images as OpenCV's `resize` does it."""

from __future__ import annotations

import functools

import torch

#: A level with a side below this is left out, as in OpenCV.
SMALLEST_SIDE = 16


def level_shapes(height: int, width: int, nscales: int, step: float) -> list[tuple[int, int]]:
    """Returns the sizes of the pyramid's levels, finest first.

    Args:
        height: Of the images, px.
        width: Likewise.
        nscales: Levels at most.
        step: Size ratio of neighbouring levels.

    Returns:
        (height, width) of each level; each is rounded from the level before it.

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
    """Resamples linearly between the two nearest pixels along each axis, pixel centres at half integers.

    Args:
        images: float32 (..., H, W).
        shape: (height, width) of the result.
        ratio: Size ratio that the shape was rounded from; None takes the ratio of the shapes.

    Returns:
        float32 (..., height, width).
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
    """Returns, per output position, its two source positions and the weight of the second."""
    at = (torch.arange(size, dtype=torch.float64) + 0.5) * step - 0.5
    low = at.floor().clamp(0, length - 1)
    weight = (at - low).clamp(0, 1)
    weight[low >= length - 1] = 0
    high = (low + 1).clamp(max=length - 1)
    return low.long().to(device), high.long().to(device), weight.float().to(device)
