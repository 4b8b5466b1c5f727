"""TV-L1 in PyTorch: against OpenCV, against the truth, and every pair by itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from mer_flow.config import PipelineConfig
from mer_flow.extraction.extractor import pipeline_record
from mer_flow.flow import BackendOptions, TVL1Params, factory, get_backend
from mer_flow.flow.factory import resolve_options
from mer_flow.flow.torch_tvl1 import cuda, solver
from mer_flow.flow.torch_tvl1.backend import TorchTVL1
from mer_flow.flow.torch_tvl1.images import gradient, level_shapes, padded, resize, warp
from mer_flow.work.errors import FlowError, MissingDependencyError, UsageError
from mer_flow.work.libraries import load_cv2

CPU = resolve_options("torch", BackendOptions(device="cpu"))
QUICK = TVL1Params(nscales=3, warps=2)


@pytest.fixture(scope="module")
def batch(face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Five pairs of 60x52 px that converge after different numbers of iterations."""
    onset = np.stack([face[i : i + 60, i + 20 : i + 72] for i in (60, 90, 120, 150, 180)])
    apex = np.stack([np.roll(frame, (i // 3, i), (0, 1)) for i, frame in enumerate(onset)])
    return onset, apex


def epe(a: np.ndarray, b: np.ndarray, cut: int = 28) -> float:
    return float(np.hypot(*(a - b))[cut:-cut, cut:-cut].mean())


# The parts, each against OpenCV.


def test_the_pyramid_is_that_of_opencv(face: np.ndarray) -> None:
    cv2 = load_cv2()
    image = face.astype(np.float32)
    shapes = level_shapes(280, 261, 5, 0.8)
    ours, theirs = torch.from_numpy(image[:, :261].copy()), image[:, :261].copy()
    for shape in shapes[1:]:
        theirs = cv2.resize(theirs, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR)
        ours = resize(ours, shape, 0.8)
        assert theirs.shape == shape
        np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-3)
    back = cv2.resize(theirs, (261, 280), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resize(ours, (280, 261)).numpy(), back, atol=4e-3)


def test_a_level_below_16_px_is_left_out() -> None:
    assert level_shapes(24, 100, 5, 0.5) == [(24, 100)]
    assert level_shapes(64, 64, 5, 0.5) == [(64, 64), (32, 32), (16, 16)]


@pytest.mark.parametrize("border", ["zeros", "clamp"])
def test_a_warp_is_the_bicubic_remap_of_opencv(border: str, face: np.ndarray) -> None:
    cv2 = load_cv2()
    image = face[:70, :90].astype(np.float32)
    rng = np.random.default_rng(0)
    # Positions in whole 1/32 px, to which OpenCV 4 rounds.
    flow = (rng.integers(-160, 160, size=(2, 70, 90)) / 32).astype(np.float32)
    y, x = np.mgrid[0:70, 0:90].astype(np.float32)
    mode = cv2.BORDER_CONSTANT if border == "zeros" else cv2.BORDER_REPLICATE
    want = cv2.remap(image, x + flow[0], y + flow[1], cv2.INTER_CUBIC, borderMode=mode)
    images = padded(torch.from_numpy(image)[None, None], border)
    got = warp(images, torch.from_numpy(flow)[:, None], border)[0, 0].numpy()
    np.testing.assert_allclose(got, want, atol=0.02)


def test_the_gradient_is_half_the_difference_of_the_neighbours() -> None:
    image = torch.arange(20.0).reshape(1, 4, 5) ** 2
    y, x = np.gradient(np.pad(image[0].numpy(), 1, mode="edge"))
    for ours, theirs in zip(gradient(image), (x, y), strict=True):
        np.testing.assert_array_equal(ours[0].numpy(), theirs[1:-1, 1:-1])


# The flow.


def test_it_agrees_with_opencv_on_a_face_and_is_no_farther_from_the_truth(
    smile: Callable[[float], tuple[np.ndarray, ...]],
) -> None:
    onset, apex, truth = smile(2.0)
    opencv = get_backend("opencv").compute(onset[None], apex[None])[0]
    for border, bound in (("zeros", 0.02), ("clamp", 0.03)):
        ours = TorchTVL1(TVL1Params(), replace(CPU, border=border)).compute(onset[None], apex[None])[0]
        assert epe(ours, opencv) < bound
        assert epe(ours, truth) <= 1.02 * epe(opencv, truth)
        assert epe(ours, truth) < 0.5 * epe(np.zeros_like(truth), truth)
        assert ours[0, 190, 195] > 0.6 and ours[1, 190, 195] < -0.4, "right and up"


@pytest.mark.parametrize(
    "change",
    [
        {}, {"tau": 0.05}, {"lambda_": 0.03}, {"theta": 2.0}, {"nscales": 1}, {"warps": 1}, {"epsilon": 0.1},
        {"inner_iterations": 3, "epsilon": 1e-3}, {"outer_iterations": 1, "epsilon": 1e-3, "warps": 1},
        {"scale_step": 0.2}, {"median_filtering": 1}, {"median_filtering": 3},
    ],
    ids=str,
)  # fmt: skip
def test_every_parameter_means_what_it_means_in_opencv(
    change: dict[str, float], face: np.ndarray, move: Callable, bump: Callable
) -> None:
    """Near OpenCV with the same parameters; and where the change matters, nearer than to the defaults."""
    onset = face[60:160, 60:160].copy()
    apex = move(onset, bump(onset.shape, (50, 50), (2.0, 1.0), 12))
    params = TVL1Params(**change)
    ours = TorchTVL1(params, CPU).compute(onset[None], apex[None])[0]
    same = get_backend("opencv", params).compute(onset[None], apex[None])[0]
    other = get_backend("opencv").compute(onset[None], apex[None])[0]
    assert epe(ours, same, 12) < 0.03
    if epe(same, other, 12) > 0.01:
        assert epe(ours, same, 12) < 0.7 * epe(ours, other, 12)


@pytest.mark.parametrize("shift", [(1, 0), (0, -1), (2, 1)])
def test_a_translation_is_found(shift: tuple[int, int], face: np.ndarray) -> None:
    dx, dy = shift
    onset, apex = face[40:180, 40:180], face[40 - dy : 180 - dy, 40 - dx : 180 - dx]
    flow = TorchTVL1(TVL1Params(), CPU).compute(onset[None], apex[None])[0]
    inner = flow[:, 20:-20, 20:-20]
    assert np.abs(inner.mean(axis=(1, 2)) - shift).max() < 0.05
    assert np.hypot(inner[0] - dx, inner[1] - dy).mean() < 0.1


@pytest.mark.parametrize("border", ["zeros", "clamp"])
def test_equal_frames_have_no_flow(border: str, face: np.ndarray) -> None:
    backend = TorchTVL1(TVL1Params(), replace(CPU, border=border))
    for frame in (face, face[:150, :201], np.full((40, 40), 7, np.uint8)):
        assert np.abs(backend.compute(frame[None], frame[None])).max() == 0


# The stop.


def levels(backend: TorchTVL1) -> list[solver.Level]:
    [found] = backend._plans.values()
    return found


def iterations(backend: TorchTVL1) -> list[int]:
    return [level.iterations for level in levels(backend)]


def test_a_looser_threshold_stops_earlier_and_a_rarer_look_later(
    batch: tuple[np.ndarray, np.ndarray],
) -> None:
    onset, apex = (frames[1:2] for frames in batch)
    counts = {}
    for name, epsilon, every in (("default", 0.01, 1), ("loose", 0.1, 1), ("rare", 0.01, 7)):
        backend = TorchTVL1(replace(QUICK, epsilon=epsilon), replace(CPU, check_every=every))
        backend.compute(onset, apex)
        counts[name] = sum(iterations(backend))
    assert counts["loose"] < counts["default"] < counts["rare"] <= counts["default"] + 6 * 3 * 2
    endless = TorchTVL1(
        replace(QUICK, epsilon=1e-9, inner_iterations=7, outer_iterations=2), replace(CPU, check_every=3)
    )
    endless.compute(onset, apex)
    assert iterations(endless) == [2 * 7 * 2] * 3, "warps x inner x outer iterations at every level"


def test_the_stop_is_the_mean_squared_update(batch: tuple[np.ndarray, np.ndarray]) -> None:
    """The last update of the finest level lies below the threshold, the one before it does not."""
    onset, apex = (frames[1:2] for frames in batch)
    single = replace(QUICK, warps=1, nscales=1, inner_iterations=100)
    backend = TorchTVL1(single, CPU)
    backend.compute(onset, apex)
    [count] = iterations(backend)
    assert 2 < count <= single.inner_iterations

    def last_update(most: int) -> float:
        limited = TorchTVL1(replace(single, outer_iterations=1, inner_iterations=most), CPU)
        limited.compute(onset, apex)
        state = levels(limited)[0].state
        return float((state.update**2).sum(0).mean().sqrt()) * single.theta / single.tau

    assert last_update(count) <= single.epsilon < last_update(count - 1)


# Batches.


@pytest.mark.parametrize("check_every", [1, 4])
def test_a_pair_does_not_depend_on_its_companions(
    check_every: int, batch: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CUDA computes them: in batches, set aside and moved to smaller batches, with flags read late."""
    onset, apex = batch
    options = replace(CPU, check_every=check_every)

    def each_alone() -> np.ndarray:
        # Pairs of two equal ones: batches of one on the CPU add up differently.
        backend = TorchTVL1(QUICK, options, batch=2)
        return np.concatenate([backend.compute(onset[[i, i]], apex[[i, i]])[:1] for i in range(len(onset))])

    alone = each_alone()
    for size in (4, 8):
        np.testing.assert_array_equal(TorchTVL1(QUICK, options, batch=size).compute(onset, apex), alone)
    back = TorchTVL1(QUICK, options, batch=8).compute(onset[::-1], apex[::-1])[::-1]
    np.testing.assert_array_equal(back, alone)

    class Late:
        """Returns the flags of the run before, as on CUDA."""

        def __init__(self, device: object) -> None:
            self.before: list[bool] | None = None

        def forget(self) -> None:
            self.before = None

        def look(self, active: torch.Tensor) -> list[bool] | None:
            before, self.before = self.before, active.tolist()
            return before

    monkeypatch.setattr(solver, "Monitor", Late)
    np.testing.assert_array_equal(TorchTVL1(QUICK, options, batch=8).compute(onset, apex), alone)


def test_one_by_one_and_in_batches_agree(batch: tuple[np.ndarray, np.ndarray]) -> None:
    onset, apex = batch
    single = TorchTVL1(QUICK, CPU)
    flows = single.compute(onset, apex)
    for i in range(len(onset)):
        np.testing.assert_array_equal(single.compute(onset[i : i + 1], apex[i : i + 1])[0], flows[i])
    np.testing.assert_allclose(TorchTVL1(QUICK, CPU, batch=8).compute(onset, apex), flows, atol=1e-3)


def test_finished_pairs_cost_no_more_iterations(batch: tuple[np.ndarray, np.ndarray]) -> None:
    onset, apex = (frames[[0, 0, 0, 0, 0, 0, 0, 4]] for frames in batch)  # seven that do not move
    backend = TorchTVL1(QUICK, CPU, batch=8)
    backend.compute(onset, apex)
    finest = levels(backend)[0]
    assert finest._smaller is not None and finest._smaller._smaller is not None
    assert finest._smaller.iterations > 0


# Compilation.


@pytest.mark.slow
def test_a_compiled_iteration_changes_rounding_only(
    smile: Callable[[float], tuple[np.ndarray, ...]],
) -> None:
    onset, apex = (frame[None, 140:240, 140:240] for frame in smile(2.0)[:2])
    compiled = TorchTVL1(QUICK, replace(CPU, compile="on"))
    try:
        flow = compiled.compute(onset, apex)
    except FlowError as error:
        pytest.skip(f"no compiler: {error}")
    eager = TorchTVL1(QUICK, CPU)
    assert epe(flow[0], eager.compute(onset, apex)[0], 1) < 1e-3
    assert compiled.version == f"{eager.version}, compiled"


# Names, options and refusals.


def test_the_record_tells_the_backends_apart() -> None:
    records = {}
    for name, flow in {
        "opencv": {"backend": "opencv"}, "torch": {}, "clamp": {"border": "clamp"},
        "rare": {"check_every": 5}, "compiled": {"compile": "on"},
    }.items():  # fmt: skip
        sections = {"regions": {"backend": "dlib"}, "flow": {"backend": "torch", "device": "cpu"} | flow}
        records[name] = pipeline_record(PipelineConfig.from_dict(sections))
    assert len({record["hash"] for record in records.values()}) == len(records)
    torch_record = records["torch"]
    assert torch_record["config"]["flow"]["backend"] == "torch-tvl1"
    assert torch_record["config"]["flow"]["border"] == "zeros"
    assert torch_record["versions"]["flow_backend"] == f"1, torch {torch.__version__}, cpu"
    assert records["opencv"]["versions"]["flow_backend"].startswith("cv2 ")


def test_auto_means_what_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda_here, triton, want in (
        (False, True, ("cpu", 1, "off")), (True, False, ("cuda", 5, "off")), (True, True, ("cuda", 5, "on")),
    ):  # fmt: skip
        monkeypatch.setattr(factory, "finds_cuda", lambda found=cuda_here: found)
        monkeypatch.setattr(factory, "find_spec", lambda name, found=triton: found or None)
        assert resolve_options("torch", BackendOptions()) == BackendOptions("zeros", *want)
        assert resolve_options("opencv", BackendOptions()) == BackendOptions("zeros", "cpu", 1, "off")


def test_the_version_is_known_without_loading_pytorch() -> None:
    code = (
        "import sys; from mer_flow.config import PipelineConfig; "
        "from mer_flow.extraction.extractor import pipeline_record; "
        "config = PipelineConfig.from_dict({'flow': {'backend': 'torch', 'device': 'cpu'}}); "
        "print(pipeline_record(config)['versions']['flow_backend'], 'torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == f"{TorchTVL1(QUICK, CPU).version} False"


def test_what_cannot_be_met_is_refused(face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "finds_cuda", lambda: False)
    with pytest.raises(UsageError, match="finds no CUDA device here; use --device cpu"):
        get_backend("torch", options=BackendOptions(device="cuda"))
    with pytest.raises(UsageError, match=r"opencv-tvl1 knows flow.device=cpu only, got cuda"):
        get_backend("opencv", options=BackendOptions(device="cuda"))
    with pytest.raises(UsageError, match=r"opencv-tvl1 knows flow.border=zeros only, got clamp"):
        get_backend("opencv", options=BackendOptions(border="clamp"))
    with pytest.raises(UsageError, match=r"no illumination variable, got flow.gamma=0.2"):
        get_backend("torch", TVL1Params(gamma=0.2))
    with pytest.raises(UsageError, match="did you mean 'torch-tvl1'"):
        get_backend("torch-tvl")
    for key, value in (("border", "clmap"), ("device", "cuda:7"), ("compile", "yes"), ("check_every", -1)):
        with pytest.raises(UsageError, match=f"flow.{key}"):
            PipelineConfig.from_dict({"flow": {key: value}})
    backend = TorchTVL1(QUICK, CPU)
    with pytest.raises(FlowError, match="uint8"):
        backend.compute(face[None].astype(np.float32), face[None])
    with pytest.raises(FlowError, match="one shape"):
        backend.compute(face[None], face[None, :50])


def test_a_diverging_flow_is_refused(face: np.ndarray) -> None:
    wild = TorchTVL1(TVL1Params(tau=1e30, nscales=1), CPU)
    with pytest.raises(FlowError, match="not finite for pair 0 of 1"):
        wild.compute(face[None, :40, :40], np.roll(face[None, :40, :40], 1, 2))


def test_a_missing_pytorch_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError("No module named 'torch'")

    from mer_flow.work import libraries as providers

    monkeypatch.setattr(providers.importlib, "import_module", refuse)
    providers.load_torch.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"pip install .*mer-flow\[torch\]'"):
        get_backend("torch")


def test_memory_that_runs_out_halves_the_batch_and_then_is_explained(
    batch: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    onset, apex = batch
    want = TorchTVL1(QUICK, CPU, batch=2).compute(onset, apex)
    small = TorchTVL1(QUICK, CPU, batch=8)
    compute, sizes = small._compute, []

    def limited(most: int) -> Callable:
        def call(onset: np.ndarray, *rest: object) -> np.ndarray:
            sizes.append(len(onset))
            if len(onset) > most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return compute(onset, *rest)

        return call

    monkeypatch.setattr(small, "_compute", limited(2))
    np.testing.assert_array_equal(small.compute(onset, apex), want)
    assert sizes == [5, 4, 2, 2, 1]
    monkeypatch.setattr(small, "_compute", limited(0))
    monkeypatch.setattr("mer_flow.flow.torch_tvl1.backend.free_memory", lambda device: 2**20)
    with pytest.raises(
        FlowError, match=r"needs about \d+ MB of GPU memory and 1 MB are free; .*--device cpu"
    ):
        small.compute(onset, apex)


def test_the_batch_fits_the_memory() -> None:
    assert cuda.fitting_batch(280, 280, 140 * 2**30) == cuda.LARGEST_BATCH
    assert cuda.fitting_batch(280, 280, 2**30) == 4
    assert cuda.fitting_batch(280, 280, 2**20) == 0


def test_every_field_of_the_options_is_a_setting() -> None:
    config = PipelineConfig().flow
    assert config.options == BackendOptions() and config.params == TVL1Params()
