"""TV-L1 through OpenCV: its calls, its traps, and its accuracy on a real face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mer_flow.flow import TVL1Params, get_backend
from mer_flow.flow.base import check_finite
from mer_flow.work.errors import FlowError, MissingDependencyError, UsageError
from mer_flow.work.libraries import load_cv2

#: Parameter -> how OpenCV's getter calls it, and another value than the default.
PARAMETERS = {
    "tau": ("Tau", 0.1), "lambda_": ("Lambda", 0.05), "theta": ("Theta", 0.5), "nscales": ("ScalesNumber", 2),
    "warps": ("WarpingsNumber", 1), "epsilon": ("Epsilon", 0.1), "inner_iterations": ("InnerIterations", 3),
    "outer_iterations": ("OuterIterations", 1), "scale_step": ("ScaleStep", 0.5), "gamma": ("Gamma", 0.2),
    "median_filtering": ("MedianFiltering", 1),
}  # fmt: skip


def test_defaults_are_those_of_opencv() -> None:
    solver = load_cv2().optflow.DualTVL1OpticalFlow_create()
    theirs = {name: getattr(solver, f"get{getter}")() for name, (getter, _) in PARAMETERS.items()}
    assert theirs == asdict(TVL1Params())
    assert not solver.getUseInitialFlow()


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_reaches_opencv(name: str, face: np.ndarray, move: Callable, bump: Callable) -> None:
    small = face[60:160, 60:160].copy()
    apex = move(small, bump(small.shape, (50, 50), (2.0, 1.0), 12))
    # Outer iterations count only where inner ones run out.
    base = TVL1Params(epsilon=1e-3, inner_iterations=5)
    changed = replace(base, **{name: PARAMETERS[name][1]})
    plain, other = (get_backend("opencv", p).compute(small[None], apex[None]) for p in (base, changed))
    assert np.abs(plain - other).max() > 1e-4


@pytest.mark.parametrize(("amplitude", "bound"), [(0.5, 0.05), (1.0, 0.06), (2.0, 0.08), (3.0, 0.10)])
def test_end_point_error_on_a_real_face(
    amplitude: float, bound: float, smile: Callable[[float], tuple[np.ndarray, ...]]
) -> None:
    """Two movements, a lip corner up and a brow up, known exactly; error over the moved half of the face."""
    onset, apex, field = smile(amplitude)
    flow = get_backend("opencv-tvl1").compute(onset[None], apex[None])[0]
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
    assert "pip uninstall -y opencv-contrib-python" in str(caught.value)
    assert "pip install opencv-contrib-python" in str(caught.value)


def test_opencv_without_tvl1_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = load_cv2()
    monkeypatch.delattr(cv2.optflow, "DualTVL1OpticalFlow_create")
    with pytest.raises(MissingDependencyError, match="has no TV-L1"):
        load_cv2.__wrapped__()
