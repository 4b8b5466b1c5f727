"""The temporal interpolation model against its definition, and what an interpolation must do."""

import numpy as np
import pytest

from mer_bench.models.layers.tim import interpolate, tim_weights


def by_definition(clip: np.ndarray, length: int) -> np.ndarray:
    """Zhou et al. step by step: SVD, path graph, projections onto the Laplacian's eigenvectors, curves."""
    frames = len(clip)
    columns = clip.reshape(frames, -1).T.astype(np.float64)
    mean = columns.mean(1, keepdims=True)
    left, singular, right = np.linalg.svd(columns - mean, full_matrices=False)
    left, points = left[:, :-1], singular[:-1, None] * right[:-1]
    weight = np.eye(frames, k=1) + np.eye(frames, k=-1)
    laplacian = np.diag(weight.sum(0)) - weight
    eigenvalues, vectors = np.linalg.eigh(laplacian)
    assert eigenvalues[0] == pytest.approx(0, abs=1e-12)
    vectors = vectors[:, 1:]
    projections = np.linalg.solve(points @ points.T, points @ vectors)
    times = np.linspace(1 / frames, 1, length)
    curves = np.empty((frames - 1, length))
    for k in range(1, frames):
        phase = np.pi * (frames - k) / (2 * frames)
        # Every eigenvector is the curve at the frames' times, up to a factor.
        factor = (points[:, 0] @ projections[:, k - 1]) / np.sin(np.pi * k / frames + phase)
        curves[k - 1] = factor * np.sin(np.pi * k * times + phase)
    resampled = left @ np.linalg.solve(projections.T, curves) + mean
    return resampled.T.reshape(length, *clip.shape[1:])


@pytest.mark.parametrize(
    ("frames", "length"), [(2, 10), (5, 10), (10, 10), (23, 10), (40, 10), (7, 3), (10, 1)]
)
def test_equals_the_definition(frames: int, length: int) -> None:
    clip = np.random.default_rng(frames).uniform(0, 255, (frames, 8, 9))
    np.testing.assert_allclose(interpolate(clip, length), by_definition(clip, length), atol=1e-8)


@pytest.mark.parametrize("frames", [1, 2, 6, 31])
def test_goes_through_every_frame(frames: int) -> None:
    clip = np.random.default_rng(0).uniform(0, 255, (frames, 4, 5))
    between = 3
    dense = interpolate(clip, (frames - 1) * between + 1)
    np.testing.assert_allclose(dense[::between], clip, atol=1e-9)


def test_first_and_last_frame_stay() -> None:
    clip = np.random.default_rng(0).uniform(0, 255, (13, 4, 5))
    short = interpolate(clip, 10)
    np.testing.assert_allclose(short[[0, -1]], clip[[0, -1]], atol=1e-9)


def test_steady_motion_stays_steady() -> None:
    x = np.arange(60.0)
    centres = np.linspace(20, 38, 12)
    clip = 200 * np.exp(-((x - centres[:, None]) ** 2) / 72)
    dense = interpolate(clip, 111)
    place = (dense * x).sum(1) / dense.sum(1)
    np.testing.assert_allclose(place, np.linspace(20, 38, 111), atol=0.25)
    steps = np.diff(place)
    assert steps.min() > 0.5 * steps.mean()
    assert steps.max() < 1.5 * steps.mean()


def test_repeated_frames_do_no_harm() -> None:
    still = np.full((9, 3, 3), 117.0)
    np.testing.assert_allclose(interpolate(still, 10), 117, atol=1e-9)
    clip = np.repeat(np.random.default_rng(0).uniform(0, 255, (4, 3, 3)), 2, axis=0)
    dense = interpolate(clip, 10)
    assert np.isfinite(dense).all()
    assert dense.min() > -60
    assert dense.max() < 315


def test_weights_sum_to_one() -> None:
    np.testing.assert_allclose(tim_weights(17, 10).sum(1), 1)


@pytest.mark.parametrize(("frames", "length"), [(0, 10), (5, 0)])
def test_no_frames(frames: int, length: int) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        tim_weights(frames, length)
