"""Area resampling against OpenCV's INTER_AREA and against integrals."""

from __future__ import annotations

import numpy as np
import pytest

from mer_flow.views.resample import area_resize, box_weights, resize_flow


@pytest.mark.parametrize(
    ("side", "cells", "within"),
    [
        *((side, cells, 1e-6) for side, cells in [(224, 28), (224, 56), (112, 28), (28, 28)]),
        # OpenCV drops overlaps below a thousandth of a pixel.
        *((side, cells, 5e-3) for side, cells in [(224, 36), (100, 28), (90, 64), (30, 28)]),
    ],
)
def test_reduction_equals_that_of_opencv(side: int, cells: int, within: float) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the reference of this test")
    maps = np.random.default_rng(0).normal(size=(3, side, side)).astype(np.float32)
    expected = np.stack([cv2.resize(m, (cells, cells), interpolation=cv2.INTER_AREA) for m in maps])
    assert np.abs(area_resize(maps, cells) - expected).max() < within


def test_the_mean_is_kept_exactly() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 97, 97))
    for cells in (10, 28, 96):
        assert area_resize(maps, cells).mean() == pytest.approx(maps.mean(), abs=1e-6)


def test_boxes_are_integrals() -> None:
    """The mean of a line over a box is the difference of its integral, wherever the box begins."""
    rng = np.random.default_rng(0)
    line = rng.normal(size=50)
    integral = np.concatenate([[0], np.cumsum(line)])
    starts, pitches = rng.uniform(0, 10, 20), rng.uniform(1, 3, 20)
    means = box_weights(starts, pitches, 12, 50) @ line
    edges = starts[:, None] + np.arange(13) * pitches[:, None]
    expected = np.diff(np.interp(edges, np.arange(51), integral), axis=1) / pitches[:, None]
    assert np.abs(means - expected).max() < 1e-6


def test_the_halo_continues_a_line() -> None:
    line = 0.3 * np.arange(40) + 2
    for start, pitch in ((0.0, 4.0), (3.3, 2.0), (10.0, 3.0), (0.0, 1.0)):
        values = box_weights(start, pitch, 10, 40, halo=True) @ line
        assert np.allclose(np.diff(values), 0.3 * pitch, atol=1e-4)


def test_flow_is_in_pixels_of_the_new_map() -> None:
    assert np.allclose(resize_flow(np.full((2, 224, 224), 8.0), 28), 1.0)


def test_impossible_boxes_are_refused() -> None:
    for start, pitch, cells in ((-1.0, 2.0, 4), (35.0, 2.0, 4), (0.0, 0.5, 4)):
        with pytest.raises(ValueError, match="do not lie on 40 px, or are smaller than a pixel"):
            box_weights(start, pitch, cells, 40)
