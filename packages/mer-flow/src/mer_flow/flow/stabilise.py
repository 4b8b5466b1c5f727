"""Removal of the head's own motion: a robust similarity fitted to the flow over the face."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mer_flow.work.errors import FlowError

if TYPE_CHECKING:
    from mer_flow.config import StabiliseConfig

_MOST_POINTS = 1000
_RESIDUAL_FLOOR = 1e-3  # px; below TV-L1's own accuracy


@dataclass(frozen=True, slots=True)
class HeadMotion:
    """The motion that was removed, onset to apex."""

    dx: float  # of the face's centre, to the right, px
    dy: float  # of the face's centre, downwards, px
    rotation: float  # clockwise as seen in the image, degrees
    scale: float  # 1 = no growth
    inliers: float  # share of the face, 0 to 1, that moves so


def stabilise(
    flow: np.ndarray, mask: np.ndarray, config: StabiliseConfig
) -> tuple[np.ndarray, HeadMotion | None]:
    """Subtract the head's motion from the flow.

    Args:
        flow: (2, H, W): u, v in px.
        mask: bool (H, W), the face.
        config: Method, trials, seed.

    Returns:
        The flow without it, float32 (2, H, W), and the motion; the flow itself and None for method `none`.

    Raises:
        FlowError: The face covers too few pixels for a fit.
    """
    if config.method == "none":
        return flow, None
    rows, columns = np.nonzero(mask)
    if len(rows) < 16:
        raise FlowError(f"head motion cannot be fitted to {len(rows)} face pixels; set stabilise.method=none")
    rng = np.random.default_rng(config.seed)
    keep = np.sort(rng.permutation(len(rows))[:_MOST_POINTS])
    rows, columns = rows[keep], columns[keep]
    vectors = flow[:, rows, columns].astype(np.float64)
    if config.method == "median":
        dx, dy = np.median(vectors, axis=1)
        motion = HeadMotion(float(dx), float(dy), 0.0, 1.0, 1.0)
        return (flow - np.array([dx, dy], dtype=np.float32)[:, None, None]).astype(np.float32), motion
    z = columns + 1j * rows
    centre = z.mean()
    c, t, inliers = _fit_similarity(z - centre, vectors[0] + 1j * vectors[1], config.trials, rng)
    height, width = mask.shape
    x, y = np.arange(width) - centre.real, np.arange(height)[:, None] - centre.imag
    head = np.stack([c.real * x - c.imag * y + t.real, c.imag * x + c.real * y + t.imag])
    turn = 1 + c
    motion = HeadMotion(t.real, t.imag, math.degrees(math.atan2(turn.imag, turn.real)), abs(turn), inliers)
    return (flow - head).astype(np.float32), motion


def _fit_similarity(
    z: np.ndarray, w: np.ndarray, trials: int, rng: np.random.Generator
) -> tuple[complex, complex, float]:
    """Fit c, t of displacement w = c z + t at z = x + iy, whose mean is 0, and the share of inliers.

    Least median of squares, then least squares: Rousseeuw 1984, doi:10.1080/01621459.1984.10477105. Up to
    half of the points may move in any other way.
    """
    first, second = rng.integers(len(z), size=(2, 4 * trials))
    # Near points give a wild similarity; a quarter of the face's extent apart is far enough.
    far = np.abs(z[first] - z[second]) > 0.5 * np.abs(z).max()
    first, second = first[far][:trials], second[far][:trials]
    if len(first) == 0:
        raise FlowError(
            "head motion cannot be fitted: the face covers too few pixels; set stabilise.method=none"
        )
    c = (w[first] - w[second]) / (z[first] - z[second])
    t = w[first] - c * z[first]
    half = len(z) // 2
    squares = np.empty(len(c))
    for block in range(0, len(c), 64):
        error = w[None] - c[block : block + 64, None] * z[None] - t[block : block + 64, None]
        squares[block : block + 64] = np.partition(error.real**2 + error.imag**2, half, axis=1)[:, half]
    best = int(np.argmin(squares))
    c_best, t_best = complex(c[best]), complex(t[best])
    limit = 2.5 * 1.4826 * (1 + 5 / max(1, len(z) - 4)) * max(math.sqrt(squares[best]), _RESIDUAL_FLOOR)
    inlier = np.abs(w - c_best * z - t_best) <= limit
    for _ in range(2):
        zi, wi = z[inlier], w[inlier]
        zc, wc = zi - zi.mean(), wi - wi.mean()
        power = float((np.abs(zc) ** 2).sum())
        if power == 0:
            break
        c_best = complex((np.conj(zc) * wc).sum() / power)
        t_best = complex(wi.mean() - c_best * zi.mean())
        inlier = np.abs(w - c_best * z - t_best) <= limit
        if not inlier.any():
            raise FlowError("head motion cannot be fitted: the flow over the face has no consensus")
    return c_best, t_best, float(inlier.mean())
