"""LBP-TOP against a slow reference, voxel by voxel, and against scikit-image in the plane that it knows."""

import math

import numpy as np
import pytest

from mer_bench.errors import UsageError
from mer_bench.models.lbp_top import LBPTOP, lbp_top, plane_codes, uniform_patterns

PLANES = {"XY": (2, 1), "XT": (2, 0), "YT": (1, 0)}


def grey(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float64)


def read(volume: np.ndarray, t: float, y: float, x: float) -> float:
    """Trilinear, written out."""
    total = 0.0
    for ct in (math.floor(t), math.floor(t) + 1):
        for cy in (math.floor(y), math.floor(y) + 1):
            for cx in (math.floor(x), math.floor(x) + 1):
                weight = (1 - abs(t - ct)) * (1 - abs(y - cy)) * (1 - abs(x - cx))
                if weight > 0:
                    total += weight * volume[ct, cy, cx]
    return total


def slow(
    volume: np.ndarray, blocks: int, radii: tuple[int, int, int], neighbours: int, uniform: bool
) -> np.ndarray:
    """The same descriptor by loops over voxels and neighbours."""
    frames, height, width = volume.shape
    rx, ry, rt = radii
    kept: dict[int, int] = {}
    for pattern in range(2**neighbours):
        text = format(pattern, f"0{neighbours}b")
        changes = sum(a != b for a, b in zip(text, text[1:] + text[0], strict=True))
        if changes <= 2:
            kept[pattern] = len(kept)
    bins = len(kept) + (len(kept) < 2**neighbours) if uniform else 2**neighbours
    counts = np.zeros((blocks, blocks, 3, bins))
    for t in range(rt, frames - rt):
        for y in range(ry, height - ry):
            for x in range(rx, width - rx):
                for number, plane in enumerate(("XY", "XT", "YT")):
                    pattern = 0
                    for p in range(neighbours):
                        cos = round(math.cos(2 * math.pi * p / neighbours), 9)
                        sin = round(math.sin(2 * math.pi * p / neighbours), 9)
                        at = {
                            "XY": (t, y - ry * sin, x + rx * cos),
                            "XT": (t - rt * sin, y, x + rx * cos),
                            "YT": (t - rt * sin, y + ry * cos, x),
                        }[plane]
                        at = tuple(round(value, 5) for value in at)
                        if read(volume, *at) >= volume[t, y, x] - 1e-6:
                            pattern += 2**p
                    place = kept.get(pattern, len(kept)) if uniform else pattern
                    counts[y * blocks // height, x * blocks // width, number, place] += 1
    return (counts / counts.sum(-1, keepdims=True)).ravel()


@pytest.mark.parametrize(
    ("shape", "blocks", "radii", "neighbours", "uniform"),
    [
        ((10, 11, 12), 5, (1, 1, 4), 4, False),
        ((10, 11, 12), 3, (1, 1, 4), 4, True),
        ((7, 10, 9), 2, (2, 1, 3), 4, False),
        ((6, 9, 10), 2, (1, 2, 2), 8, True),
        ((5, 8, 8), 1, (1, 1, 1), 6, False),
    ],
)
def test_equals_the_slow_reference(shape, blocks, radii, neighbours, uniform):
    volume = grey(shape)
    fast = lbp_top(volume, blocks, radii, neighbours, uniform)
    np.testing.assert_allclose(fast, slow(volume, blocks, radii, neighbours, uniform), atol=1e-12)


@pytest.mark.parametrize(("neighbours", "radius"), [(4, 1), (4, 3), (8, 1), (8, 2), (6, 2)])
def test_xy_plane_equals_scikit_image(neighbours, radius):
    feature = pytest.importorskip("skimage.feature")
    volume = grey((3, 24, 21), seed=neighbours)
    codes = plane_codes(volume, PLANES["XY"], (radius, radius, 1), neighbours)
    theirs = feature.local_binary_pattern(volume[1].astype(np.uint8), neighbours, radius)
    np.testing.assert_array_equal(codes[0], theirs[radius:-radius, radius:-radius])


@pytest.mark.parametrize("plane", ["XT", "YT"])
def test_time_planes_equal_scikit_image_where_radii_agree(plane):
    feature = pytest.importorskip("skimage.feature")
    volume = grey((20, 18, 19), seed=3)
    codes = plane_codes(volume, PLANES[plane], (2, 2, 2), 8)
    cut = volume[:, 7, :] if plane == "XT" else volume[:, :, 7]
    theirs = feature.local_binary_pattern(cut.astype(np.uint8), 8, 2)[2:-2, 2:-2]
    np.testing.assert_array_equal(codes[:, 5, :] if plane == "XT" else codes[:, :, 5], theirs)


def test_uniform_patterns_of_eight_neighbours():
    table = uniform_patterns(8)
    assert len(np.unique(table)) == 59
    assert (table == 58).sum() == 256 - 58


def test_dimensions_and_sums():
    clip = grey((2, 12, 140, 140))
    plain = LBPTOP(in_channels=12).features(clip.astype(np.float32), "clips-140:raw")
    uniform = LBPTOP(in_channels=12, uniform=True).features(clip.astype(np.float32), "clips-140:raw")
    assert plain.shape == (2, 5 * 5 * 3 * 16) == (2, 1200)
    assert uniform.shape == (2, 5 * 5 * 3 * 15) == (2, 1125)
    np.testing.assert_allclose(plain.reshape(2, 75, 16).sum(2), 1, rtol=1e-6)
    np.testing.assert_allclose(uniform.reshape(2, 75, 15).sum(2), 1, rtol=1e-6)


def test_brightness_and_contrast_do_not_matter():
    volume = np.floor(grey((10, 30, 30)) / 4)
    np.testing.assert_array_equal(lbp_top(volume), lbp_top(3 * volume + 17))


def test_a_still_clip_has_one_pattern_in_time():
    still = np.repeat(grey((1, 30, 30)), 10, axis=0)
    planes = lbp_top(still).reshape(25, 3, 16)
    # At angles 90 and 270 degrees (bits 1 and 3) the neighbours in time equal the centre.
    without = [pattern for pattern in range(16) if pattern & 0b1010 != 0b1010]
    assert (planes[:, 1:, without] == 0).all()
    assert (planes[:, 0, without] > 0).any()


def test_a_clip_of_ten_frames_is_read_as_it_is():
    clip = grey((1, 10, 60, 60))
    features = LBPTOP(in_channels=10, map_size=60).features(clip.astype(np.float32), "clips-60:raw")
    np.testing.assert_allclose(features[0], lbp_top(clip[0]), rtol=1e-6)


@pytest.mark.parametrize(
    "view", ["whole-140:raw", "clips-140:scaled", "clips-140@rgb:raw", "clips-112+faces-112:raw"]
)
def test_refuses_what_is_no_grey_clip(view):
    with pytest.raises(UsageError, match="LBP-TOP reads grey clips.*" + view.replace("+", r"\+")):
        LBPTOP(in_channels=10).features(np.zeros((1, 10, 140, 140), np.float32), view)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radii": (1, 1)}, "three numbers"),
        ({"radii": (1, 1, 5)}, "frames=11 or more"),
        ({"neighbours": 16}, r"neighbours must lie in \[2, 8\], got 16"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"in_channels": 1}, "--keep-clips"),
        ({"map_size": 8}, "at least 10 px"),
        ({"cost": 0.0}, "cost must be above 0"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UsageError, match=message):
        LBPTOP(**options)
