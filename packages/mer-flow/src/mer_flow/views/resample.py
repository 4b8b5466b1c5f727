"""Exact area resampling in numpy: a cell's value is the mean over its box, boxes may be fractional."""

from __future__ import annotations

import functools

import numpy as np


def box_weights(
    start: np.ndarray | float, pitch: np.ndarray | float, cells: int, size: int, halo: bool = False
) -> np.ndarray:
    """Compute the matrices that average a line of `size` pixels over neighbouring boxes.

    Cell i covers [start + i pitch, start + (i + 1) pitch) where pixel j covers [j, j + 1); start and pitch,
    at least 1, may be (...). With a halo, one more cell on either side is added, for central differences at
    the first and last cell; where such a cell leaves the line it is extrapolated linearly, which turns the
    central difference there into a one-sided one.

    Returns:
        (..., cells, size) float32, or (..., cells + 2, size) with a halo; every row sums to 1.

    Raises:
        ValueError: Cells (the halo apart) leave the line, or are smaller than a pixel.

    >>> box_weights(0.0, 1.5, 2, 3).round(3).tolist()  # doctest: +ELLIPSIS
    [[0.66..., 0.33..., 0.0], [0.0, 0.33..., 0.66...]]
    """
    first = np.asarray(start, dtype=np.float64)[..., None, None]
    width = np.asarray(pitch, dtype=np.float64)[..., None, None]
    slack = 1e-6 * size
    if (first < -slack).any() or (first + cells * width > size + slack).any() or (width < 1 - slack).any():
        raise ValueError(f"{cells} cells do not lie on {size} px, or are smaller than a pixel")
    index = np.arange(-1, cells + 1) if halo else np.arange(cells)
    left = first + index[:, None] * width
    pixel = np.arange(size, dtype=np.float64)
    overlap = np.minimum(left + width, pixel + 1) - np.maximum(left, pixel)
    weights = np.maximum(overlap, 0.0)
    weights /= np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300)
    if halo:
        before = (left[..., 0, 0] < -slack)[..., None]
        after = (left[..., -1, 0] + width[..., 0, 0] > size + slack)[..., None]
        weights[..., 0, :] = np.where(before, 2 * weights[..., 1, :] - weights[..., 2, :], weights[..., 0, :])
        weights[..., -1, :] = np.where(
            after, 2 * weights[..., -2, :] - weights[..., -3, :], weights[..., -1, :]
        )
    return weights.astype(np.float32)


@functools.lru_cache(maxsize=32)
def _whole_weights(size: int, cells: int) -> np.ndarray:
    weights = box_weights(0.0, size / cells, cells, size)
    weights.setflags(write=False)
    return weights


def area_resize(maps: np.ndarray, cells: int) -> np.ndarray:
    """Reduce square maps to `cells` × `cells` by exact area averaging, as OpenCV's INTER_AREA does.

    (..., S, S) become (..., cells, cells) float32, `cells` at most S; values are not rescaled.

    >>> area_resize(np.arange(16.0).reshape(4, 4), 2)
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """
    size = maps.shape[-1]
    maps = np.asarray(maps, dtype=np.float32)
    if cells == size:
        return maps.copy()
    weights = _whole_weights(size, cells)
    return np.matmul(weights, np.matmul(maps, weights.T))


def resize_flow(flow: np.ndarray, cells: int) -> np.ndarray:
    """Reduce flow as `area_resize` does and keep its unit true: px of the map that comes out.

    >>> float(resize_flow(np.full((1, 8, 8), 2.0), 2)[0, 0, 0])
    0.5
    """
    reduced = area_resize(flow, cells)
    reduced *= np.float32(cells / flow.shape[-1])
    return reduced
