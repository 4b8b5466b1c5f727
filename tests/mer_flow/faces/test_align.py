"""The similarity from frame to aligned face, and its warp."""

from __future__ import annotations

import numpy as np
import pytest

from mer_flow.config import AlignConfig
from mer_flow.faces.align import (
    crop_matrix,
    eye_matrix,
    outside_share,
    scale_of,
    to_grey,
    to_rgb,
    transform,
    warp,
)
from mer_flow.faces.landmarks import eye_centres
from mer_flow.work.errors import FaceError


@pytest.mark.parametrize("degrees", [0.0, 17.0, -40.0])
def test_eyes_land_in_their_places(degrees: float) -> None:
    config = AlignConfig(size=200, eye_distance=0.4, eye_row=0.32)
    turn = np.exp(1j * np.deg2rad(degrees)) * 50
    right = np.array([300.3 - turn.real, 210.9 - turn.imag])
    left = np.array([300.3 + turn.real, 210.9 + turn.imag])
    matrix = eye_matrix(right, left, config)
    np.testing.assert_allclose(
        transform(matrix, np.stack([right, left])), [[59.5, 63.5], [139.5, 63.5]], atol=1e-9
    )
    assert scale_of(matrix) == pytest.approx(0.8)
    linear = matrix[:, :2] / 0.8
    np.testing.assert_allclose(linear @ linear.T, np.eye(2), atol=1e-12, err_msg="a similarity: no shear")


def test_the_eye_centres_are_the_means_of_their_six_points() -> None:
    points = np.full((68, 2), 1000.0)
    ring = np.array([[-8, 0], [-3, -4], [3, -4], [8, 0], [3, 4], [-3, 4]])
    points[36:42] = ring + np.array([120, 90])
    points[42:48] = ring + np.array([200, 95])
    right, left = eye_centres(points)
    np.testing.assert_allclose([right, left], [[120, 90], [200, 95]])


def test_coinciding_eyes_are_refused() -> None:
    with pytest.raises(FaceError, match="both eye centres"):
        eye_matrix(np.ones(2), np.ones(2), AlignConfig())


def test_the_whole_crop_is_kept_and_centred() -> None:
    matrix = crop_matrix((340, 280), AlignConfig(size=170))
    assert scale_of(matrix) == pytest.approx(0.5)
    corners = transform(matrix, np.array([[-0.5, -0.5], [279.5, 339.5]]))
    np.testing.assert_allclose(corners, [[14.5, -0.5], [154.5, 169.5]], atol=1e-9)


def test_an_integer_shift_copies_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 255, (90, 80, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0, -12], [0, 1, -7]])
    np.testing.assert_array_equal(warp(image, matrix, AlignConfig(size=40)), image[7:47, 12:52])


def test_shrinking_by_a_whole_number_is_the_mean_over_blocks() -> None:
    image = np.random.default_rng(0).integers(0, 255, (120, 120), dtype=np.uint8)
    matrix = np.array([[1 / 3, 0, -1 / 3], [0, 1 / 3, -1 / 3]])
    expected = image.reshape(40, 3, 40, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(warp(image, matrix, AlignConfig(size=40)), expected, atol=0.51)
    aliased = warp(image, matrix, AlignConfig(size=40, prefilter=False))
    assert np.abs(aliased - expected).mean() > 10


def test_a_margin_adds_a_border_and_changes_nothing_inside() -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 300), dtype=np.uint8)
    matrix = eye_matrix(np.array([120.0, 140.0]), np.array([180.0, 150.0]), AlignConfig(size=96))
    plain, wide = warp(image, matrix, AlignConfig(size=96)), warp(image, matrix, AlignConfig(size=96), 12)
    assert wide.shape == (120, 120)
    # OpenCV rounds positions to 1/32 px, a little differently from another origin.
    assert np.abs(wide[12:-12, 12:-12].astype(int) - plain).mean() < 2


def test_outside_share() -> None:
    config = AlignConfig(size=100)
    inside, half = np.array([[1.0, 0, 0], [0, 1, 0]]), np.array([[1.0, 0, 50], [0, 1, 0]])
    assert outside_share((100, 100), inside, config) == 0
    assert outside_share((100, 100), half, config) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("shape", "shift", "columns"),
    [
        ((98, 98), (0, 0), 0),  # its last points lie on the edges of the last pixels
        ((98, 97), (0, 0), 1),
        ((97, 98, 3), (0, 0), 1),
        ((200, 60), (0, 0), 10),
        ((98, 98), (2, 2), 0),  # its first points lie on the edges of the first pixels
        ((98, 98), (3, 0), 1),
        ((98, 98), (0, 3), 1),
    ],
)
def test_a_frame_reaches_half_a_pixel_beyond_its_outer_pixels(
    shape: tuple[int, ...], shift: tuple[float, float], columns: int
) -> None:
    matrix = np.column_stack([np.eye(2), shift])
    assert outside_share(shape, matrix, AlignConfig(size=100)) == columns / 25


def test_grey_and_colour() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert to_grey(grey) is grey
    np.testing.assert_array_equal(to_grey(to_rgb(grey)), grey)
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert to_grey(red)[0, 0] == 76, "0.299 of 255: the first channel is red"
