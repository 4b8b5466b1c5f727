"""Builds with the PyTorch backend: equal bytes however the work is spread, refusals, and flow along clips."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mer_flow.config import PipelineConfig
from mer_flow.databases import get_database
from mer_flow.databases.clips import ClipTask
from mer_flow.databases.source import Source
from mer_flow.extraction.batched import compute_each, run_batched
from mer_flow.extraction.build import BuildOptions, BuildSummary, build_store
from mer_flow.extraction.extractor import extractor, resolve
from mer_flow.extraction.sample import Keep
from mer_flow.flow import get_backend
from mer_flow.store.reader import FlowStore
from mer_flow.store.verify import verify_store
from mer_flow.views.resample import resize_flow
from mer_flow.work.errors import FlowError, StoreError, StoreMismatchError, UsageError
from mer_flow.work.executor import LocalProcesses

TORCH = ("flow.backend=torch", "flow.device=cpu")


@pytest.fixture(scope="module")
def casme2(tree: Callable[[str], Path]) -> Path:
    return tree("casme2")


@pytest.fixture(scope="module")
def config(quick: Callable[..., PipelineConfig]) -> PipelineConfig:
    """The quick configuration, flow by PyTorch."""
    return quick(*TORCH)


@pytest.fixture(scope="module")
def whole(casme2: Path, config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built by one worker."""
    store = tmp_path_factory.mktemp("whole") / "flows.h5"
    assert build(casme2, store, config).built == 6
    return store


def build(
    root: Path, store: Path, config: PipelineConfig, keep: Keep | None = None, **options: int | bool
) -> BuildSummary:
    how = BuildOptions(**{"workers": 1, **options})  # type: ignore[arg-type]
    return build_store(Source("casme2", root), store, config, keep, how)


def test_a_resumed_build_on_two_workers_has_the_same_bytes(
    casme2: Path, config: PipelineConfig, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    build(casme2, store, config, limit=2)
    build(casme2, store, config, workers=2)
    assert store.read_bytes() == whole.read_bytes()


def test_a_flow_process_gives_the_same_bytes(
    casme2: Path, config: PipelineConfig, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    summary = build(casme2, store, config, flow_process=True)
    assert summary.built == 6 and summary.flow_process
    assert set(summary.stage_seconds) == {"decode", "face", "flow", "stabilise", "compress"}
    assert store.read_bytes() == whole.read_bytes()


def test_the_flow_is_near_that_of_opencv(
    casme2: Path, quick: Callable[..., PipelineConfig], whole: Path, tmp_path: Path
) -> None:
    other = tmp_path / "opencv.h5"
    build(casme2, other, quick())
    with FlowStore(whole) as ours, FlowStore(other) as theirs:
        apart = np.hypot(*np.moveaxis(ours.flow("casme2")[:] - theirs.flow("casme2")[:], 1, 0)[:2])
        assert ours.pipeline_hash != theirs.pipeline_hash
        assert 0 < apart.mean() < 0.05


def test_backends_are_never_mixed(casme2: Path, quick: Callable[..., PipelineConfig], whole: Path) -> None:
    with pytest.raises(StoreMismatchError, match=r"flow\.backend") as caught:
        build(casme2, whole, quick())
    assert "torch-tvl1" in str(caught.value) and "opencv-tvl1" in str(caught.value)
    with pytest.raises(StoreMismatchError, match=r"flow\.border"):
        build(casme2, whole, quick(*TORCH, "flow.border=clamp"))


def test_cuda_that_is_not_there_is_refused_before_any_work(
    casme2: Path, quick: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with pytest.raises(UsageError, match="no CUDA device here; use --device cpu"):
        build(casme2, tmp_path / "flows.h5", quick("flow.backend=torch", "flow.device=cuda"))
    assert list(tmp_path.iterdir()) == []


class Picky:
    """A backend that fails on a batch with a black apex, as one whose flow is not finite would."""

    name, version = "picky", "1"

    def __init__(self) -> None:
        self.calls: list[int] = []

    def compute(self, onset: np.ndarray, apex: np.ndarray) -> np.ndarray:
        self.calls.append(len(onset))
        if (apex.max(axis=(1, 2)) == 0).any():
            raise FlowError("not finite for a pair")
        return np.stack([apex, onset], axis=1).astype(np.float32)


def test_a_bad_pair_of_a_batch_fails_alone() -> None:
    frames = np.arange(1, 7, dtype=np.uint8)[:, None, None, None, None] * np.ones((1, 1, 2, 4, 4), np.uint8)
    requests = [frames[0], frames[1], np.concatenate([frames[2], 0 * frames[2]]), frames[3]]
    backend = Picky()
    answers = compute_each(backend, requests)
    assert [found.flows is None for found in answers] == [False, False, True, False]
    assert answers[2].reason == "not finite for a pair"
    assert backend.calls == [5, 1, 1, 2, 1]
    assert answers[3].flows is not None and (answers[3].flows == 4).all()
    assert all(found.flows.shape == (1, 2, 4, 4) for found in answers if found.flows is not None)


def test_a_sample_without_frames_fails_alone_beside_a_flow_process(
    casme2: Path, config: PipelineConfig, tmp_path: Path
) -> None:
    source = get_database("casme2")
    locator = source.locate(casme2, "auto")
    tasks = [ClipTask.of(locator, sample) for sample in source.read(casme2, None).table]
    broken = ClipTask(tasks[1].sample, tmp_path / "nowhere", tasks[1].cropped)
    with LocalProcesses(1) as pool:
        running = run_batched(pool, [tasks[0], broken, tasks[2]], resolve(config), Keep(), batch=1)
        outcomes = {outcome.sample_id: outcome for outcome in running}
    failed = outcomes.pop(broken.sample.sample_id)
    assert failed.payload is None and failed.stage == "frames"
    assert len(outcomes) == 2 and all(outcome.payload for outcome in outcomes.values())


@pytest.mark.parametrize("mode", ["consecutive", "onset"])
def test_flow_along_a_clip_is_kept(
    mode: str, casme2: Path, config: PipelineConfig, whole: Path, tmp_path: Path
) -> None:
    from mer_flow.faces.align import to_grey

    store = tmp_path / "flows.h5"
    keep = Keep(sequence=mode, sequence_frames=4, sequence_size=32, clips=4)
    build(casme2, store, config, keep, limit=2, flow_process=mode == "onset")
    assert verify_store(store) == []
    with FlowStore(store) as kept, FlowStore(whole) as plain:
        assert kept.pipeline["keep"]["sequence"] == mode and kept.has("casme2", "flow_sequence")
        sequence = kept.flow_sequence("casme2", slice(None))
        assert sequence.shape == (2, 3, 2, 32, 32) and sequence.dtype == np.float32
        assert len(kept.notes("casme2")[0]["sequence_frames"]) == 4
        np.testing.assert_array_equal(kept.flow("casme2")[:], plain.flow("casme2")[[0, 1]])
        with pytest.raises(StoreError, match=r"holds no flow_sequence; build with .*--keep-flow-sequence"):
            plain.flow_sequence("casme2", 0)
        frames = kept.clips("casme2", 0)
        first, second = (1, 2) if mode == "consecutive" else (0, 2)
        direct = extractor(config).flow.compute(*(to_grey(frames[i])[None] for i in (first, second)))[0]
    # The frames kept lack the margin, and the head's motion is left in here, so near only where it is strong.
    wanted = resize_flow(direct - np.median(direct, axis=(1, 2))[:, None, None], 32)
    found = sequence[0, 1] - np.median(sequence[0, 1], axis=(1, 2))[:, None, None]
    assert np.corrcoef(wanted[:, 8:-8, 8:-8].ravel(), found[:, 8:-8, 8:-8].ravel())[0, 1] > 0.6


def test_a_sequence_that_cannot_be_is_refused(casme2: Path, config: PipelineConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'consecutive'"):
        Keep(sequence="consecutiv")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"keep\.sequence_frames must lie in \[2, 1000\], got 1"):
        Keep(sequence="onset", sequence_frames=1)
    with pytest.raises(UsageError, match="4 to 64 px wide"):
        build(casme2, tmp_path / "flows.h5", config, Keep(sequence="onset", sequence_size=65))


def test_the_command_takes_backend_device_and_sequence(
    casme2: Path, fast: tuple[str, ...], tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    settings = [word for setting in fast for word in ("--set", setting)]
    done = subprocess.run(
        [
            sys.executable, "-m", "mer_flow.cli", "build", "--db", "casme2", "--root", str(casme2), "--store",
            str(store), "--limit", "1", "--workers", "1", "--json", "--quiet", "--flow-backend", "torch",
            "--device", "cpu", "--keep-flow-sequence", "onset", "--sequence-frames", "3", "--sequence-size",
            "16", *settings,
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["built"] == 1
    with FlowStore(store) as found:
        flow = found.pipeline["config"]["flow"]
        assert (flow["backend"], flow["device"], flow["border"]) == ("torch-tvl1", "cpu", "zeros")
        assert found.pipeline["versions"]["flow_backend"] == get_backend("torch", options=None).version
        assert found.flow_sequence("casme2", 0).shape == (2, 2, 16, 16)
