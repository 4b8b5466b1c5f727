"""Bi-WOOF against the authors' script, written as loops, and what a descriptor of flow must do."""

import math

import numpy as np
import pytest

from mer_bench.errors import UsageError
from mer_bench.models.bi_woof import BiWOOF, bi_woof, block_bounds


def random_flow(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(height, width)), rng.normal(size=(height, width)), rng.random((height, width))


def slow(u: np.ndarray, v: np.ndarray, strain: np.ndarray, blocks: int, bins: int) -> np.ndarray:
    """The script's loops, its indices counted from 1."""
    height, width = u.shape
    h, w = height // blocks, width // blocks
    histograms, weights = [], []
    for hh in range(1, blocks + 1):
        for ww in range(1, blocks + 1):
            a_h, b_h = (1, hh * h + 1) if hh == 1 else ((hh - 1) * h, hh * h + 1)
            a_w, b_w = (1, ww * w + 1) if ww == 1 else ((ww - 1) * w, ww * w + 1)
            b_h = height if hh == blocks else b_h
            b_w = width if ww == blocks else b_w
            histogram, weight = [0.0] * bins, 0.0
            for row in range(a_h - 1, b_h):
                for column in range(a_w - 1, b_w):
                    x, y = u[row, column], v[row, column]
                    degrees = math.degrees(math.atan2(y, x))
                    for k in range(bins):
                        low = -180 + 360 / bins * k
                        if low <= degrees < low + 360 / bins:
                            histogram[k] += math.hypot(x, y)
                    weight += strain[row, column]
            total = sum(histogram)
            histograms.append([value / total for value in histogram])
            weights.append(weight)
    descriptor = np.concatenate(
        [np.array(histogram) * weight for histogram, weight in zip(histograms, weights, strict=True)]
    )
    return descriptor / np.linalg.norm(descriptor)


@pytest.mark.parametrize(("size", "blocks", "bins"), [((25, 25), 5, 8), ((28, 31), 5, 8), ((20, 17), 3, 6)])
def test_equals_the_loops(size, blocks, bins):
    u, v, strain = random_flow(*size)
    np.testing.assert_allclose(
        bi_woof(u, v, strain, blocks, bins), slow(u, v, strain, blocks, bins), atol=1e-12
    )


def test_bounds_of_the_published_crop():
    # MATLAB, from 1: 1..29, 28..57, 56..85, 84..113, 112..140.
    assert block_bounds(140, 5) == [(0, 29), (27, 57), (55, 85), (83, 113), (111, 140)]
    assert block_bounds(9, 1) == [(0, 9)]


def test_two_hundred_values_of_length_one():
    maps = np.random.default_rng(0).normal(size=(3, 3, 140, 140)).astype(np.float32)
    maps[:, 2] = np.abs(maps[:, 2])
    features = BiWOOF().features(maps, "whole-140:raw")
    assert features.shape == (3, 200)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("direction", "place"),
    [(-170, 0), (-100, 1), (-80, 2), (-10, 3), (10, 4), (80, 5), (100, 6), (170, 7), (180, 0), (-180, 0)],
)
def test_a_direction_fills_its_bin(direction, place):
    u = np.full((20, 20), np.cos(np.radians(direction)))
    v = np.full((20, 20), np.sin(np.radians(direction)))
    if abs(direction) == 180:
        v = np.copysign(0.0, direction) * np.ones((20, 20))
    histograms = bi_woof(u, v, np.ones((20, 20))).reshape(25, 8)
    assert (histograms[:, place] > 0).all()
    assert np.count_nonzero(histograms) == 25


def test_units_do_not_matter():
    u, v, strain = random_flow(40, 40)
    np.testing.assert_allclose(bi_woof(u, v, strain), bi_woof(7 * u, 7 * v, 0.1 * strain), atol=1e-12)


def test_strain_weighs_blocks():
    u, v, strain = random_flow(50, 50)
    strain[:] = 0
    strain[22:28, 22:28] = 1  # inside the middle block alone
    histograms = bi_woof(u, v, strain).reshape(25, 8)
    assert (histograms[12] > 0).all()
    assert np.count_nonzero(np.delete(histograms, 12, axis=0)) == 0


def test_no_movement_gives_zeros():
    still = np.zeros((20, 20))
    assert not bi_woof(still, still, still).any()
    u, v, strain = random_flow(25, 25)
    u[:8, :8] = v[:8, :8] = 0
    histograms = bi_woof(u, v, strain).reshape(25, 8)
    assert not histograms[0].any()
    assert np.isfinite(histograms).all()


def test_min_max_maps_get_their_zero_back():
    """Where u and v have one range and most of the face is still, nothing is lost."""
    size = 28
    maps = np.zeros((1, 3, size, size), np.float32)
    rng = np.random.default_rng(0)
    maps[0, 0, 4:10, 4:12] = rng.uniform(-1, 1, (6, 8))
    maps[0, 1, 15:20, 15:25] = rng.uniform(-1, 1, (5, 10))
    maps[0, :2, 4, 4] = (-1, 0)
    maps[0, :2, 4, 5] = (1, 0)
    maps[0, :2, 16, 16] = (0, -1)
    maps[0, :2, 16, 17] = (0, 1)
    maps[0, 2] = np.hypot(maps[0, 0], maps[0, 1])
    low = maps.min((2, 3), keepdims=True)
    scaled = (maps - low) / (maps.max((2, 3), keepdims=True) - low) * 255
    woof = BiWOOF(map_size=size)
    raw = woof.features(maps, "whole-28:raw")
    np.testing.assert_allclose(woof.features(scaled, "whole-28:minmax-255"), raw, atol=1e-4)
    assert np.abs(woof.features(scaled, "whole-28:raw") - raw).max() > 0.1


@pytest.mark.parametrize("view", ["clips-28:raw", "faces-28:raw"])
def test_refuses_images(view):
    with pytest.raises(UsageError, match=f"Bi-WOOF reads flow.*{view}"):
        BiWOOF(map_size=28).features(np.zeros((1, 3, 28, 28), np.float32), view)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_channels": 6}, "these maps have 6"),
        ({"blocks": 0}, "blocks >= 1"),
        ({"bins": 1}, "2 to 360 bins"),
        ({"bins": 361}, "2 to 360 bins"),
        ({"map_size": 9}, "from 10 px, got 9"),
        ({"cost": -1.0}, "cost must be above 0"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        BiWOOF(**options)
