"""Builds with the PyTorch backend: equal bytes however the work is spread, refusals, and flow along clips."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mer_flow.config import PipelineConfig, apply_settings
from mer_flow.databases import get_database
from mer_flow.databases.clips import ClipTask
from mer_flow.extraction.batched import compute_each, run_batched
from mer_flow.extraction.build import build_store
from mer_flow.extraction.extractor import extractor, resolve
from mer_flow.extraction.sample import Keep
from mer_flow.flow import get_backend
from mer_flow.store.reader import FlowStore
from mer_flow.store.verify import verify_store
from mer_flow.synthetic import make_tree
from mer_flow.views.resample import resize_flow
from mer_flow.work.errors import FlowError, StoreError, StoreMismatchError, UsageError

#: Small and quick, but the whole pipeline.
FAST = ("align.size=64", "flow.scale_step=0.5", "flow.warps=2", "flow.epsilon=0.05", "regions.backend=dlib")
TORCH = (*FAST, "flow.backend=torch", "flow.device=cpu")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CASME II with six samples."""
    root = tmp_path_factory.mktemp("tree") / "casme2"
    make_tree(root, "casme2", subjects=2, clips_per_subject=3, seed=1)
    return root


@pytest.fixture(scope="module")
def config() -> PipelineConfig:
    """The quick configuration, flow by PyTorch."""
    return apply_settings(PipelineConfig(), TORCH)


@pytest.fixture(scope="module")
def whole(tree: Path, config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built by one worker."""
    store = tmp_path_factory.mktemp("whole") / "flows.h5"
    assert build_store("casme2", tree, store, config=config, workers=1).built == 6
    return store


def test_a_resumed_build_on_two_workers_has_the_same_bytes(
    tree: Path, config: PipelineConfig, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    build_store("casme2", tree, store, config=config, workers=1, limit=2)
    build_store("casme2", tree, store, config=config, workers=2)
    assert store.read_bytes() == whole.read_bytes()


def test_a_flow_process_gives_the_same_bytes(
    tree: Path, config: PipelineConfig, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    summary = build_store("casme2", tree, store, config=config, workers=1, flow_process=True)
    assert summary.built == 6 and summary.flow_process
    assert set(summary.stage_seconds) == {"decode", "face", "flow", "stabilise", "compress"}
    assert store.read_bytes() == whole.read_bytes()


def test_the_flow_is_near_that_of_opencv(tree: Path, whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "opencv.h5"
    build_store("casme2", tree, other, config=apply_settings(PipelineConfig(), FAST), workers=1)
    with FlowStore(whole) as ours, FlowStore(other) as theirs:
        apart = np.hypot(*np.moveaxis(ours.flow("casme2")[:] - theirs.flow("casme2")[:], 1, 0)[:2])
        assert ours.pipeline_hash != theirs.pipeline_hash
        assert 0 < apart.mean() < 0.05


def test_backends_are_never_mixed(tree: Path, whole: Path) -> None:
    opencv = apply_settings(PipelineConfig(), FAST)
    with pytest.raises(StoreMismatchError, match=r"flow\.backend") as caught:
        build_store("casme2", tree, whole, config=opencv, workers=1)
    assert "torch-tvl1" in str(caught.value) and "opencv-tvl1" in str(caught.value)
    clamped = apply_settings(PipelineConfig(), (*TORCH, "flow.border=clamp"))
    with pytest.raises(StoreMismatchError, match=r"flow\.border"):
        build_store("casme2", tree, whole, config=clamped, workers=1)


def test_cuda_that_is_not_there_is_refused_before_any_work(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mer_flow.flow.factory.finds_cuda", lambda: False)
    cuda = apply_settings(PipelineConfig(), (*TORCH, "flow.device=cuda"))
    with pytest.raises(UsageError, match="no CUDA device here; use --device cpu"):
        build_store("casme2", tree, tmp_path / "flows.h5", config=cuda)
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
    tree: Path, config: PipelineConfig, whole: Path, tmp_path: Path
) -> None:
    source = get_database("casme2")
    locator = source.locate(tree, "auto")
    tasks = [ClipTask.of(locator, sample) for sample in source.read(tree, None).table]
    broken = ClipTask(tasks[1].sample, tmp_path / "nowhere", tasks[1].cropped)
    outcomes = {
        outcome.sample_id: outcome
        for outcome in run_batched([tasks[0], broken, tasks[2]], 1, resolve(config), Keep(), batch=1)
    }
    failed = outcomes.pop(broken.sample.sample_id)
    assert failed.payload is None and failed.stage == "frames"
    assert len(outcomes) == 2 and all(outcome.payload for outcome in outcomes.values())


@pytest.mark.parametrize("mode", ["consecutive", "onset"])
def test_flow_along_a_clip_is_kept(
    mode: str, tree: Path, config: PipelineConfig, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "flows.h5"
    keep = Keep(sequence=mode, sequence_frames=4, sequence_size=32, clips=4)
    flow_process = mode == "onset"
    build_store(
        "casme2", tree, store, config=config, keep=keep, workers=1, limit=2, flow_process=flow_process
    )
    assert verify_store(store) == []
    with FlowStore(store) as kept, FlowStore(whole) as plain:
        assert kept.pipeline["keep"]["sequence"] == mode and kept.has("casme2", "flow_sequence")
        sequence = kept.flow_sequence("casme2", slice(None))
        assert sequence.shape == (2, 3, 2, 32, 32) and sequence.dtype == np.float32
        assert len(kept.notes("casme2")[0]["sequence_frames"]) == 4
        np.testing.assert_array_equal(kept.flow("casme2")[:], plain.flow("casme2")[[0, 1]])
        with pytest.raises(StoreError, match=r"holds no flow_sequence; build with .*--keep-flow-sequence"):
            plain.flow_sequence("casme2", 0)
        engine = extractor(config)
        frames = kept.clips("casme2", 0)
        first, second = (1, 2) if mode == "consecutive" else (0, 2)
        direct = engine.flow.compute(*(_grey(frames[i])[None] for i in (first, second)))[0]
    # The frames kept lack the margin, and the head's motion is left in here, so near only where it is strong.
    wanted = resize_flow(direct - np.median(direct, axis=(1, 2))[:, None, None], 32)
    found = sequence[0, 1] - np.median(sequence[0, 1], axis=(1, 2))[:, None, None]
    assert np.corrcoef(wanted[:, 8:-8, 8:-8].ravel(), found[:, 8:-8, 8:-8].ravel())[0, 1] > 0.6


def _grey(frame: np.ndarray) -> np.ndarray:
    from mer_flow.faces.align import to_grey

    return to_grey(frame)


def test_a_sequence_that_cannot_be_is_refused(tree: Path, config: PipelineConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'consecutive'"):
        Keep(sequence="consecutiv")
    with pytest.raises(UsageError, match="at least 2 frames"):
        Keep(sequence="onset", sequence_frames=1)
    with pytest.raises(UsageError, match="4 to 64 px wide"):
        keep = Keep(sequence="onset", sequence_size=65)
        build_store("casme2", tree, tmp_path / "flows.h5", config=config, keep=keep)


def test_the_command_takes_backend_device_and_sequence(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "flows.h5"
    settings = [word for setting in FAST for word in ("--set", setting)]
    done = subprocess.run(
        [
            sys.executable, "-m", "mer_flow.cli", "build", "--db", "casme2", "--root", str(tree), "--store",
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
