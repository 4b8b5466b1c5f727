"""TV-L1 through OpenCV: its calls, its traps, and its accuracy on a real face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from mer_flow.flow import TVL1Params, get_backend
from mer_flow.flow.base import check_finite
from mer_flow.work.errors import FlowError, MissingDependencyError, UsageError
from mer_flow.work.libraries import load_cv2


@pytest.fixture(scope="module")
def face(face_frame: np.ndarray) -> np.ndarray:
    """The grey face at about 90 px between the eyes, 280 px square."""
    cv2 = load_cv2()
    return cv2.cvtColor(face_frame[120:432, 162:474], cv2.COLOR_RGB2GRAY)[16:-16, 16:-16].copy()


def test_defaults_are_those_of_opencv() -> None:
    solver = load_cv2().optflow.DualTVL1OpticalFlow_create()
    params = TVL1Params()
    assert params.tau == solver.getTau()
    assert params.lambda_ == solver.getLambda()
    assert params.theta == solver.getTheta()
    assert params.nscales == solver.getScalesNumber()
    assert params.warps == solver.getWarpingsNumber()
    assert params.epsilon == solver.getEpsilon()
    assert params.inner_iterations == solver.getInnerIterations()
    assert params.outer_iterations == solver.getOuterIterations()
    assert params.scale_step == solver.getScaleStep()
    assert params.gamma == solver.getGamma()
    assert params.median_filtering == solver.getMedianFiltering()
    assert params.use_initial_flow == solver.getUseInitialFlow()


OTHER = {
    "tau": 0.1, "lambda_": 0.05, "theta": 0.5, "nscales": 2, "warps": 1, "epsilon": 0.1,
    "inner_iterations": 3,
    "outer_iterations": 1, "scale_step": 0.5, "gamma": 0.2, "median_filtering": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({item.name for item in fields(TVL1Params)} - {"use_initial_flow"}))
def test_every_parameter_reaches_opencv(name: str, face: np.ndarray, move: Callable, bump: Callable) -> None:
    small = face[60:160, 60:160].copy()
    apex = move(small, bump(small.shape, (50, 50), (2.0, 1.0), 12))
    base = TVL1Params(
        epsilon=1e-3, inner_iterations=5
    )  # outer iterations count only where inner ones run out
    plain = get_backend("opencv-tvl1", base).compute(small[None], apex[None])
    other = get_backend("opencv-tvl1", replace(base, **{name: OTHER[name]})).compute(small[None], apex[None])
    assert np.abs(plain - other).max() > 1e-4


def test_an_initial_flow_of_zero_is_where_tvl1_starts_anyway(face: np.ndarray) -> None:
    small, apex = face[60:160, 60:160], face[60:160, 61:161]
    plain = get_backend("opencv-tvl1").compute(small[None], apex[None])
    other = get_backend("opencv-tvl1", TVL1Params(use_initial_flow=True)).compute(small[None], apex[None])
    np.testing.assert_array_equal(plain, other)


@pytest.mark.parametrize(("amplitude", "bound"), [(0.5, 0.05), (1.0, 0.06), (2.0, 0.08), (3.0, 0.10)])
def test_end_point_error_on_a_real_face(
    amplitude: float, bound: float, face: np.ndarray, move: Callable, bump: Callable
) -> None:
    """Two movements, a lip corner up and a brow up, known exactly; error over the moved half of the face."""
    size = face.shape
    field = bump(size, (195, 190), (0.8 * amplitude, -0.6 * amplitude), 20) + bump(
        size, (80, 70), (0, -amplitude), 18
    )
    noise = np.random.default_rng(0).normal(size=(2, *size))
    noisy = [
        np.clip(np.rint(f + n), 0, 255).astype(np.uint8)
        for f, n in zip((face, move(face, field)), noise, strict=True)
    ]
    flow = get_backend("opencv-tvl1").compute(noisy[0][None], noisy[1][None])[0]
    inner = (slice(28, -28), slice(28, -28))
    error = np.hypot(*(flow - field))[inner]
    length = np.hypot(*field)[inner]
    assert error.mean() < bound
    assert error.mean() < (0.75 if amplitude < 1 else 0.5) * length.mean(), "better than predicting no motion"
    moving = length > amplitude / 2
    assert error[moving].mean() < 0.45 * amplitude
    gain = (flow * field).sum(axis=0)[inner][moving].sum() / (field**2).sum(axis=0)[inner][moving].sum()
    assert (0.5 if amplitude < 1 else 0.65) < gain < 1.1
    # +x is right and +y is down: the lip corner moves right and up.
    assert flow[0, 190, 195] > 0.3 * amplitude and flow[1, 190, 195] < -0.2 * amplitude


def test_equal_frames_have_no_flow(face: np.ndarray) -> None:
    assert np.abs(get_backend("opencv-tvl1").compute(face[None], face[None])).max() == 0


def test_a_small_pair_before_does_not_change_a_large_one(face: np.ndarray) -> None:
    face = face[70:210, 70:210]
    apex = np.roll(face, 1, axis=1)
    fresh = get_backend("opencv-tvl1").compute(face[None], apex[None])
    used = get_backend("opencv-tvl1")
    used.compute(face[None, :28, :28], apex[None, :28, :28])
    np.testing.assert_array_equal(used.compute(face[None], apex[None]), fresh)


def test_a_batch_equals_its_pairs(face: np.ndarray) -> None:
    frames = np.stack([face[i : i + 90, i : i + 80] for i in (60, 70, 80)])
    apexes = np.roll(frames, 1, axis=2)
    backend = get_backend("opencv-tvl1")
    batch = backend.compute(frames, apexes)
    assert batch.shape == (3, 2, 90, 80) and batch.dtype == np.float32
    for i in range(3):
        np.testing.assert_array_equal(batch[i], backend.compute(frames[i : i + 1], apexes[i : i + 1])[0])


def test_wrong_input_is_refused(face: np.ndarray) -> None:
    backend = get_backend("opencv-tvl1")
    with pytest.raises(FlowError, match="uint8"):
        backend.compute(face[None].astype(np.float32), face[None].astype(np.float32))
    with pytest.raises(FlowError, match="grey"):
        backend.compute(face, face)
    with pytest.raises(FlowError, match="one shape"):
        backend.compute(face[None], face[None, 1:])
    with pytest.raises(FlowError, match="pair 1 of 2"):
        check_finite(np.stack([np.zeros((2, 4, 4)), np.full((2, 4, 4), np.nan)]), "opencv-tvl1")


def test_wrong_parameters_and_names_are_refused() -> None:
    with pytest.raises(UsageError, match=r"flow\.tau must be positive"):
        TVL1Params(tau=0)
    with pytest.raises(UsageError, match="median_filtering must be 1"):
        TVL1Params(median_filtering=4)
    with pytest.raises(UsageError, match="did you mean 'opencv-tvl1'"):
        get_backend("opencv-tvl")


def test_the_version_names_opencv() -> None:
    assert get_backend("opencv-tvl1").version == f"cv2 {load_cv2().__version__}"


def test_two_opencv_distributions_are_named_with_the_mending_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install opencv-python` beside the contrib build takes TV-L1 away and says nothing."""
    info = tmp_path / "opencv_python-4.9.0.80.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.9.0.80\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"opencv-python 4\.9\.0\.80") as caught:
        load_cv2.__wrapped__()
    assert "pip uninstall -y opencv-python" in str(caught.value)
    assert "pip install opencv-contrib-python" in str(caught.value)


def test_opencv_without_tvl1_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = load_cv2()
    monkeypatch.delattr(cv2.optflow, "DualTVL1OpticalFlow_create")
    with pytest.raises(MissingDependencyError, match="has no TV-L1"):
        load_cv2.__wrapped__()
