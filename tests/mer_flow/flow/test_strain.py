"""Optical strain against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from mer_flow.flow.strain import optical_strain, smooth

Y, X = np.mgrid[0:21, 0:25].astype(np.float64)


def test_translation_has_no_strain() -> None:
    assert np.abs(optical_strain(np.stack([0 * X + 1.7, 0 * Y - 0.4]))).max() == 0


def test_infinitesimal_rotation_has_no_strain() -> None:
    assert np.abs(optical_strain(np.stack([-0.02 * Y, 0.02 * X]))).max() < 1e-15


def test_finite_rotation_has_its_second_order_strain() -> None:
    angle = np.deg2rad(3.0)
    u = (np.cos(angle) - 1) * X - np.sin(angle) * Y
    v = np.sin(angle) * X + (np.cos(angle) - 1) * Y
    np.testing.assert_allclose(optical_strain(np.stack([u, v])), np.sqrt(2) * (1 - np.cos(angle)), rtol=1e-9)


@pytest.mark.parametrize(
    ("u", "v", "expected"),
    [
        pytest.param(0.03 * X, 0.03 * Y, 0.03 * np.sqrt(2), id="uniform expansion"),
        pytest.param(0.05 * X, 0 * Y, 0.05, id="stretch along one axis"),
        pytest.param(0.04 * Y, 0 * Y, 0.04 / np.sqrt(2), id="simple shear along x"),
        pytest.param(0 * X, 0.04 * X, 0.04 / np.sqrt(2), id="simple shear along y"),
        # A stretch by k and a squeeze by k along the diagonals, or along the axes: the same.
        pytest.param(0.02 * Y, 0.02 * X, 0.02 * np.sqrt(2), id="pure shear"),
        pytest.param(0.02 * X, -0.02 * Y, 0.02 * np.sqrt(2), id="its rotated stretch"),
    ],
)
def test_linear_fields_have_their_strain(u: np.ndarray, v: np.ndarray, expected: float) -> None:
    np.testing.assert_allclose(optical_strain(np.stack([u, v])), expected, rtol=1e-12)


def test_differences_are_central_inside_and_one_sided_at_the_border() -> None:
    strain = optical_strain(np.stack([X**2, 0 * X]))
    np.testing.assert_allclose(strain[:, 1:-1], 2 * X[:, 1:-1])
    np.testing.assert_allclose(strain[:, 0], 1.0)


def test_leading_axes_and_type_are_kept() -> None:
    flow = np.random.default_rng(0).normal(size=(3, 4, 2, 9, 7)).astype(np.float32)
    strain = optical_strain(flow)
    assert strain.shape == (3, 4, 9, 7) and strain.dtype == np.float32
    np.testing.assert_array_equal(strain[1, 2], optical_strain(flow[1, 2]))


def test_smoothing_keeps_straight_fields_and_damps_noise() -> None:
    flow = np.stack([0.1 * X, 0.2 * Y])
    np.testing.assert_allclose(smooth(flow, 1.5)[:, 6:-6, 6:-6], flow[:, 6:-6, 6:-6], atol=1e-12)
    noise = np.random.default_rng(0).normal(size=(2, 200, 200))
    # Variance of Gaussian-smoothed white noise: 1 / (4 pi sigma^2).
    assert smooth(noise, 2.0)[:, 10:-10, 10:-10].std() == pytest.approx(
        1 / (2 * np.sqrt(np.pi) * 2), rel=0.05
    )
    assert smooth(flow, 0.0) is flow


@pytest.mark.parametrize(("sigma", "radius"), [(0.2, 1), (0.5, 2), (1.0, 3), (1.5, 5)])
def test_smoothing_is_a_gaussian_cut_at_three_sigma_with_edges_repeated(sigma: float, radius: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    flow = np.random.default_rng(0).normal(size=(2, 9, 12))
    expected = flow
    for axis in (1, 2):
        expected = ndimage.gaussian_filter1d(expected, sigma, axis, mode="nearest", radius=radius)
    np.testing.assert_allclose(smooth(flow, sigma), expected, atol=1e-12)


def test_smoothing_keeps_the_type_and_rounds_once_per_axis() -> None:
    flow = np.full((2, 9, 12), 0.1, np.float32)
    smoothed = smooth(flow, 1.5)
    assert smoothed.dtype == np.float32
    np.testing.assert_array_equal(smoothed, flow)
