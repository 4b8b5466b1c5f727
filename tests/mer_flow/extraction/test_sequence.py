"""Flow along a clip: its pairs, its reduction, and how a store takes and checks it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from mer_flow.config import load_config
from mer_flow.extraction.extractor import extractor
from mer_flow.extraction.sequence import reduced_sequence, sequence_pairs
from mer_flow.samples import Sample, SampleTable
from mer_flow.store.encode import SampleRecord, encode_sample
from mer_flow.store.reader import FlowStore
from mer_flow.store.verify import verify_store
from mer_flow.store.writer import StoreWriter
from mer_flow.work.errors import StoreError

PIPELINE = {"map_kind": {"kind": "computed", "map_size": 8, "values": "px"}}


def sample(name: str) -> Sample:
    return Sample(f"samm/s1/{name}", "samm", "samm/s1", name, 1, 5, 9, "sheet", "happiness", "", 0, 200.0)


def record(name: str, sequence: np.ndarray | None) -> SampleRecord:
    flow = np.zeros((3, 8, 8), np.float32)
    return SampleRecord(sample=sample(name), flow=flow, notes={"fallbacks": []}, flow_sequence=sequence)


def test_frames_pair_with_the_next_or_with_the_first() -> None:
    frames = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8)
    for mode, want in (("consecutive", [[0, 1], [1, 2], [2, 3]]), ("onset", [[0, 1], [0, 2], [0, 3]])):
        pairs = sequence_pairs(frames, mode)
        assert pairs.shape == (3, 2, 2, 3) and pairs.dtype == np.uint8
        assert pairs[..., 0, 0].tolist() == want


def test_head_motion_and_margin_go_and_the_unit_stays_true() -> None:
    config = load_config(sets=["align.size=64", "regions.backend=dlib"])
    margin = config.align.margin_px
    y, x = np.mgrid[0 : 64 + 2 * margin, 0 : 64 + 2 * margin].astype(np.float32)
    head = np.stack([2.0 + 0.01 * (y - 40), -1.0 - 0.01 * (x - 40)])
    brow = np.exp(-((x - 28 - margin) ** 2 + (y - 12 - margin) ** 2) / 18) * np.array([0, -2])[:, None, None]
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    landmarks = (32 + 28 * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)
    flows = np.stack([head, head + brow]).astype(np.float32)
    found = reduced_sequence(flows, landmarks, extractor(config), 16)
    assert found.shape == (2, 2, 16, 16)
    assert np.abs(found[0]).max() < 0.01
    inner = brow[:, margin:-margin, margin:-margin].reshape(2, 16, 4, 16, 4).mean(axis=(2, 4)) / 4
    np.testing.assert_allclose(found[1], inner, atol=0.02)


def test_a_store_takes_reads_and_verifies_it(tmp_path: Path) -> None:
    path = tmp_path / "flows.h5"
    values = np.random.default_rng(0).normal(size=(2, 3, 2, 4, 4)).astype(np.float32)
    names = ("a", "b")
    with StoreWriter(path, PIPELINE) as writer:
        writer.begin("samm", SampleTable([sample(name) for name in names]))
        for name, sequence in zip(names, values, strict=True):
            writer.commit(sample(name).sample_id, encode_sample(record(name, sequence)))
        writer.finish()
    with FlowStore(path) as store:
        assert store.has("samm", "flow_sequence")
        np.testing.assert_array_equal(store.flow_sequence("samm", 1), values[1].astype(np.float16))
        assert store.flow_sequence("samm", [1, 0]).shape == (2, 3, 2, 4, 4)
    assert verify_store(path) == []
    with h5py.File(path, "r+") as file:
        file["samm/flow_sequence"][0] = np.nan
    kinds = {problem.kind for problem in verify_store(path)}
    assert kinds == {"value", "digest"}


def test_what_is_no_sequence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"flow_sequence .*\(3, 3, 4, 4\), expected"):
        encode_sample(record("a", np.zeros((3, 3, 4, 4), np.float32)))
    with pytest.raises(StoreError, match=r"1 flow\w* value\(s\) are not finite"):
        bad = np.zeros((3, 2, 4, 4), np.float32)
        bad[0, 0, 0, 0] = np.inf
        encode_sample(record("a", bad))
    with StoreWriter(tmp_path / "flows.h5", PIPELINE) as writer:
        writer.begin("samm", SampleTable([sample("a"), sample("b")]))
        writer.commit(sample("a").sample_id, encode_sample(record("a", np.zeros((3, 2, 4, 4), np.float32))))
        with pytest.raises(StoreError):
            writer.commit(sample("b").sample_id, encode_sample(record("b", None)))
