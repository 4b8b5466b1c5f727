"""Alignment: one similarity from frame to aligned face, and the warp that applies it."""

from __future__ import annotations

import math

import numpy as np

from mer_flow.config import AlignConfig
from mer_flow.work.errors import FaceError
from mer_flow.work.libraries import load_cv2

_MOST_SUPERSAMPLING = 8


def eye_matrix(right_eye: np.ndarray, left_eye: np.ndarray, config: AlignConfig) -> np.ndarray:
    """Build the similarity that puts the eye centres in their places.

    Args:
        right_eye: (2,) px of the frame, the subject's right eye (left in the image).
        left_eye: (2,) px of the frame.
        config: Size, eye distance and eye row of the aligned face.

    Returns:
        float64 (2, 3): frame px to aligned px; integer coordinates are pixel centres.

    Raises:
        FaceError: The eye centres coincide.

    >>> eye_matrix(np.array([10.0, 20.0]), np.array([50.0, 20.0]), AlignConfig(size=100, eye_row=0.32))
    array([[ 1. , -0. , 19.5],
           [ 0. ,  1. , 11.5]])
    """
    source = complex(*(np.asarray(left_eye, dtype=np.float64) - right_eye))
    if abs(source) < 1e-6:
        raise FaceError(f"both eye centres lie at {tuple(np.asarray(right_eye))}: the landmarks are no face")
    turn = config.eye_distance * config.size / source
    middle = (np.asarray(left_eye, dtype=np.float64) + right_eye) / 2
    # The aligned face spans -0.5 to S-0.5, its pixel centres 0 to S-1.
    target = np.array([0.5 * config.size - 0.5, config.eye_row * config.size - 0.5])
    rotation = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([rotation, target - rotation @ middle])


def crop_matrix(shape: tuple[int, ...], config: AlignConfig) -> np.ndarray:
    """Build the canonical similarity for a cropped frame, (H, W, ...), in which no face was found.

    The whole crop, centred and with its proportions kept, fills the longer side of the aligned face: nothing
    is cut, and the same matrix holds for every frame of the clip. Eyes are then only roughly in their places.
    Returns float64 (2, 3): frame px to aligned px.
    """
    height, width = shape[:2]
    scale = config.size / max(height, width)
    shift = [config.size / 2 - 0.5 - scale * (side - 1) / 2 for side in (width, height)]
    return np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (2, 3) matrix to (N, 2) points; the result is float64."""
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def scale_of(matrix: np.ndarray) -> float:
    """Return aligned px per frame px."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def warp(image: np.ndarray, matrix: np.ndarray, config: AlignConfig, margin: int = 0) -> np.ndarray:
    """Render the aligned face.

    When shrinking, the face is rendered at the next whole multiple of its size that does not shrink, then
    reduced by area: no detail of the frame is skipped, so sub-pixel movement survives. Beyond the frame its
    edge is repeated.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        matrix: (2, 3) frame px to aligned px.
        config: Size and prefilter.
        margin: Border added on each side, px.

    Returns:
        uint8 (S + 2 margin, S + 2 margin) or with 3 channels.
    """
    cv2 = load_cv2()
    side = config.size + 2 * margin
    shifted = np.array(matrix, dtype=np.float64)
    shifted[:, 2] += margin
    times = 1
    if config.prefilter:
        times = min(max(1, math.ceil(1 / scale_of(matrix) - 1e-3)), _MOST_SUPERSAMPLING)
    if times > 1:
        shifted *= times
        shifted[:, 2] += (times - 1) / 2
    face = cv2.warpAffine(
        image, shifted, (side * times, side * times), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    if times > 1:
        face = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(face, dtype=np.uint8)


def outside_share(shape: tuple[int, ...], matrix: np.ndarray, config: AlignConfig) -> float:
    """Return the share of the aligned face, 0 to 1, that lies beyond a frame of (H, W, ...)."""
    inverse = np.linalg.inv(matrix[:, :2])
    axis = np.arange(0, config.size, 4) + 1.5
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    points = (grid - matrix[:, 2]) @ inverse.T
    beyond = (points < -0.5).any(axis=1) | (points[:, 0] > shape[1] - 0.5) | (points[:, 1] > shape[0] - 0.5)
    return float(beyond.mean())


def to_grey(image: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W): the luma of an RGB image, or the grey image itself."""
    if image.ndim == 2:
        return image
    cv2 = load_cv2()
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W, 3): the image itself, or a grey image three times."""
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
