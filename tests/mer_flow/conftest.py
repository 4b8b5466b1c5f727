"""A real face in a frame, and exact sub-pixel movements of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def face_frame() -> np.ndarray:
    """scikit-image's astronaut in a 640x480 RGB frame, about 100 px between the eyes."""
    cv2 = pytest.importorskip("cv2")
    data = pytest.importorskip("skimage.data")
    large = cv2.resize(data.astronaut(), None, fx=2.3, fy=2.3, interpolation=cv2.INTER_CUBIC)
    return large[50:530, 200:840].copy()


@pytest.fixture(scope="session")
def move() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns move(frame, field): the uint8 frame that shows at x + w(x) what `frame` shows at x.

    The field is (2, H, W) px; splines of SciPy, so no rounding of positions as in OpenCV.
    """
    ndimage = pytest.importorskip("scipy.ndimage")

    def moved(frame: np.ndarray, field: np.ndarray) -> np.ndarray:
        y, x = np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]].astype(np.float64)
        from_x, from_y = x, y
        for _ in range(6):  # fixed point of z = x - w(z)
            at = [from_y, from_x]
            u, v = (ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in field)
            from_x, from_y = x - u, y - v
        planes = frame[..., None] if frame.ndim == 2 else frame
        at = [from_y, from_x]
        moved_planes = [
            ndimage.map_coordinates(plane.astype(np.float64), at, order=3, mode="nearest")
            for plane in np.moveaxis(planes, -1, 0)
        ]
        result = np.stack(moved_planes, axis=-1)
        return np.clip(np.rint(result), 0, 255).astype(np.uint8).reshape(frame.shape)

    return moved


@pytest.fixture(scope="session")
def bump() -> Callable[..., np.ndarray]:
    """Returns bump(shape, centre, direction, sigma): a Gaussian field, (2, H, W) px, peak = |direction|."""

    def field(
        shape: tuple[int, int], centre: tuple[float, float], direction: tuple[float, float], sigma: float
    ) -> np.ndarray:
        y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
        weight = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
        return np.stack([direction[0] * weight, direction[1] * weight])

    return field
