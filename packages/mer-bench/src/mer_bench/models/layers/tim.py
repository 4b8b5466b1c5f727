"""Temporal interpolation model: a clip of any length resampled along one curve through all of its frames.

Z. Zhou, G. Zhao, M. Pietikäinen: Towards a Practical Lipreading System. CVPR 2011,
doi:10.1109/CVPR.2011.5995345.

The frames are the nodes of a path graph. Its Laplacian has the eigenvectors
`y_k(i) = sin(pi k i / n + pi (n - k) / (2 n))`, k = 1 .. n-1: sine curves, sampled at i / n. The paper takes
the singular value decomposition of the centred frames, `X - mean = U S V'`, and finds projections that map
them onto the y_k; a frame at time t is the point that they map onto the curves' values at t, carried back by
U. Written out, singular vectors and projections cancel: with the y_k as unit columns of Y,

    frame(t) = mean + (X - mean) Y f(t),   f_k(t) = sqrt(2 / n) sin(pi k t + pi (n - k) / (2 n)),

which gives every frame a weight that depends on n and t alone. Nothing is inverted, so repeated frames, for
which the paper's projections do not exist, do no harm.
"""

from __future__ import annotations

import numpy as np


def tim_weights(frames: int, length: int) -> np.ndarray:
    """Compute how much every frame of a clip adds to every frame of its resampled form.

    Args:
        frames: Frames of the clip, n.
        length: Frames wanted, spread evenly over t = 1/n .. 1, the first frame to the last.

    Returns:
        `(length, frames)` float64; every row sums to 1.

    Raises:
        ValueError: Either number is below 1.

    >>> tim_weights(4, 4).round(6) + 0.0
    array([[1., 0., 0., 0.],
           [0., 1., 0., 0.],
           [0., 0., 1., 0.],
           [0., 0., 0., 1.]])
    """
    if frames < 1 or length < 1:
        raise ValueError(f"a clip has at least one frame, before and after; got {frames} and {length}")
    given = np.arange(1, frames + 1) / frames
    wanted = np.linspace(1 / frames, 1, length)
    return 1 / frames + _curves(wanted, frames) @ _curves(given, frames).T


def interpolate(clip: np.ndarray, length: int) -> np.ndarray:
    """Resample a clip in time.

    Args:
        clip: `(K, ...)` frames in time order.
        length: Frames wanted.

    Returns:
        `(length, ...)` float64, first and last frame as they were; between two frames values may leave the
        frames' range.
    """
    flat = np.asarray(clip, np.float64).reshape(len(clip), -1)
    return (tim_weights(len(clip), length) @ flat).reshape(length, *clip.shape[1:])


def _curves(times: np.ndarray, frames: int) -> np.ndarray:
    k = np.arange(1, frames)
    phase = np.pi * (frames - k) / (2 * frames)
    return np.sqrt(2 / frames) * np.sin(np.pi * times[:, None] * k + phase)
