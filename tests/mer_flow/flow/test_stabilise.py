"""Removal of head motion from a flow."""

from __future__ import annotations

import numpy as np
import pytest

from mer_flow.config import StabiliseConfig
from mer_flow.flow.stabilise import stabilise
from mer_flow.work.errors import FlowError

SIZE = 120
Y, X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
FACE = (X - 60) ** 2 + (Y - 60) ** 2 < 45**2


def head(dx: float, dy: float, degrees: float, scale: float) -> np.ndarray:
    turn = scale * np.exp(1j * np.deg2rad(degrees)) - 1
    moved = turn * ((X - 60) + 1j * (Y - 60)) + dx + 1j * dy
    return np.stack([moved.real, moved.imag]).astype(np.float32)


def smile(noise: float = 0.02) -> np.ndarray:
    weight = np.exp(-((X - 80) ** 2 + (Y - 80) ** 2) / (2 * 9.0**2))
    field = np.stack([1.5 * weight, -1.0 * weight])
    return (field + np.random.default_rng(1).normal(scale=noise, size=field.shape)).astype(np.float32)


def test_a_similarity_is_recovered_and_removed_beside_a_movement() -> None:
    movement = smile()
    still, motion = stabilise(movement + head(1.3, -0.8, 0.6, 1.01), FACE, StabiliseConfig())
    assert motion is not None
    assert motion.rotation == pytest.approx(0.6, abs=0.03)
    assert motion.scale == pytest.approx(1.01, abs=5e-4)
    assert (motion.dx, motion.dy) == (pytest.approx(1.3, abs=0.06), pytest.approx(-0.8, abs=0.06))
    assert np.hypot(*(still - movement))[FACE].mean() < 0.02
    assert 0.5 < motion.inliers < 1


def test_the_movement_itself_is_not_taken_for_head_motion() -> None:
    movement = smile()
    still, motion = stabilise(movement, FACE, StabiliseConfig())
    assert motion is not None and np.hypot(motion.dx, motion.dy) < 0.02 and abs(motion.rotation) < 0.03
    assert np.abs(still - movement).max() < 0.05


def test_median_removes_a_translation_but_no_rotation() -> None:
    still, motion = stabilise(head(0.7, 0.4, 0, 1), FACE, StabiliseConfig(method="median"))
    assert motion is not None and np.abs(still).max() < 1e-6
    turned, _ = stabilise(head(0, 0, 1.0, 1), FACE, StabiliseConfig(method="median"))
    assert np.abs(turned).max() > 0.5
    removed, _ = stabilise(head(0, 0, 1.0, 1), FACE, StabiliseConfig())
    assert np.abs(removed).max() < 1e-4


def test_none_leaves_the_flow_alone() -> None:
    flow = smile()
    still, motion = stabilise(flow, FACE, StabiliseConfig(method="none"))
    assert still is flow and motion is None


def test_no_motion_at_all() -> None:
    still, motion = stabilise(np.zeros((2, SIZE, SIZE), np.float32), FACE, StabiliseConfig())
    assert motion is not None and np.abs(still).max() == 0 and motion.inliers == 1


def test_the_draw_is_seeded() -> None:
    flow = smile() + head(0.5, 0.2, 0.3, 1)
    first, second = (stabilise(flow, FACE, StabiliseConfig(seed=4))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_mask_without_a_face_is_refused() -> None:
    with pytest.raises(FlowError, match=r"0 face pixels; set stabilise\.method=none"):
        stabilise(smile(), np.zeros_like(FACE), StabiliseConfig())
