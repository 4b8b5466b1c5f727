"""Dlib's 68 landmarks, and the points derived from them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from mer_flow.faces.detect import Box
from mer_flow.faces.model_files import DLIB_68, verified_path
from mer_flow.work.errors import FaceError
from mer_flow.work.libraries import load_cv2, load_dlib

#: Index ranges of the 68 points; sides are the subject's own, so the right eye lies left in the image.
RIGHT_EYE = slice(36, 42)
LEFT_EYE = slice(42, 48)
NOSE_TIP = 30
RIGHT_LIP_CORNER = 48
LEFT_LIP_CORNER = 54


@functools.cache
def load_predictor() -> Any:
    """Return this process's landmark predictor, its file checked."""
    path = verified_path(DLIB_68)
    try:
        return load_dlib().shape_predictor(str(path))
    except RuntimeError as error:
        raise FaceError(f"dlib cannot load {path}: {error}") from error


def find_landmarks(image: np.ndarray, box: Box) -> np.ndarray:
    """Fit the 68 points inside a face box (Kazemi and Sullivan 2014, doi:10.1109/CVPR.2014.241).

    Args:
        image: uint8 (H, W) or (H, W, 3) RGB.
        box: Of the face, px of the image.

    Returns:
        float32 (68, 2): x, y in px of the image. dlib rounds to whole pixels.
    """
    dlib = load_dlib()
    shape = load_predictor()(np.ascontiguousarray(image), dlib.rectangle(*box))
    return np.array([(point.x, point.y) for point in shape.parts()], dtype=np.float32)


def eye_centres(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres, float64 (2,), of the subject's right eye (left in the image) and left eye."""
    points = np.asarray(landmarks, dtype=np.float64)
    return points[RIGHT_EYE].mean(axis=0), points[LEFT_EYE].mean(axis=0)


def face_mask(landmarks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Mark the face in an image of shape (H, W): the landmarks' hull, widened over the lower forehead."""
    cv2 = load_cv2()
    points = np.asarray(landmarks, dtype=np.float64)
    right, left = eye_centres(points)
    across = left - right
    up = np.array([across[1], -across[0]]) * 0.3
    hull = cv2.convexHull(np.rint(np.vstack([points, points[17:27] + up])).astype(np.int32))
    mask = np.zeros(shape, dtype=np.uint8)
    cv2.fillConvexPoly(mask, hull, 1)
    return mask.astype(bool)
