"""A grey face, and a smile of it whose field is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mer_flow.work.libraries import load_cv2


@pytest.fixture(scope="session")
def face(face_frame: np.ndarray) -> np.ndarray:
    """The grey face at about 90 px between the eyes, 280 px square."""
    cv2 = load_cv2()
    return cv2.cvtColor(face_frame[120:432, 162:474], cv2.COLOR_RGB2GRAY)[16:-16, 16:-16].copy()


@pytest.fixture(scope="session")
def smile(face: np.ndarray, move: Callable, bump: Callable) -> Callable[[float], tuple[np.ndarray, ...]]:
    """Returns smile(amplitude): onset, apex, field. A lip corner and a brow move, noise of 1 level."""

    def make(amplitude: float) -> tuple[np.ndarray, ...]:
        field = bump(face.shape, (195, 190), (0.8 * amplitude, -0.6 * amplitude), 20)
        field = field + bump(face.shape, (80, 70), (0, -amplitude), 18)
        noise = np.random.default_rng(0).normal(size=(2, *face.shape))
        onset, apex = np.clip(np.rint(np.stack([face, move(face, field)]) + noise), 0, 255).astype(np.uint8)
        return onset, apex, field

    return make
