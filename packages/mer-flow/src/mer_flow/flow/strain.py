"""Optical strain: how much the flow deforms the skin, whatever the head does."""

from __future__ import annotations

import numpy as np


def optical_strain(flow: np.ndarray) -> np.ndarray:
    """Compute the norm of the infinitesimal strain tensor by central differences (one-sided at the border).

    sqrt(u_x^2 + v_y^2 + 1/2 (u_y + v_x)^2), Shreve et al. 2011, doi:10.1109/FG.2011.5771451. Translation and
    infinitesimal rotation give zero.

    Args:
        flow: (..., 2, H, W): u, v in px of this map.

    Returns:
        (..., H, W) of the flow's floating type, dimensionless.

    >>> y, x = np.mgrid[0:5, 0:5].astype(float)
    >>> float(optical_strain(np.stack([0.03 * x, 0.03 * y]))[2, 2].round(6))  # 0.03 sqrt 2
    0.042426
    """
    u, v = flow[..., 0, :, :], flow[..., 1, :, :]
    u_y, u_x = np.gradient(u, axis=(-2, -1))
    v_y, v_x = np.gradient(v, axis=(-2, -1))
    return np.sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2)


def smooth(flow: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth u and v, (..., H, W), with a Gaussian of `sigma` px cut at three sigma, edges repeated."""
    if sigma <= 0:
        return flow
    radius = max(1, int(np.ceil(3 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    result = flow
    for axis in (-2, -1):
        widths = [(0, 0)] * flow.ndim
        widths[axis] = (radius, radius)
        padded = np.pad(result, widths, mode="edge")
        size = flow.shape[axis]
        total = np.zeros_like(flow, dtype=np.float64)
        for k, tap in enumerate(taps):
            total += tap * np.take(padded, np.arange(k, k + size), axis=axis)
        result = total.astype(flow.dtype)
    return result
