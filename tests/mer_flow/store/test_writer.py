"""What the writer accepts, refuses and replaces."""

from __future__ import annotations

import multiprocessing
import stat
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.mer_flow.store.stores import PIPELINE, SIDE, encoded, record, row, write

from mer_flow.samples import SampleTable
from mer_flow.store.encode import EncodeOptions, SampleRecord, encode_sample
from mer_flow.store.reader import FlowStore
from mer_flow.store.verify import verify_store
from mer_flow.store.writer import MANIFEST, StoreWriter
from mer_flow.work.errors import StoreError, StoreMismatchError

ZERO, ONE = row(0).sample_id, row(1).sample_id


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    write(path, [row(0), row(1)])
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    assert write(path, [row(0), row(1)]) == {ZERO, ONE}
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == stamp
    assert [item.name for item in tmp_path.iterdir()] == ["store.h5"]


def test_finish_says_whether_it_wrote(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store.h5", PIPELINE) as writer:
        writer.begin("samm", SampleTable([row(0)]))
        assert not writer.finish()
        writer.commit(ZERO, encoded(0))
        assert writer.finish()
        assert not writer.finish()


def test_spawned_workers_encode_the_same_bytes(tmp_path: Path) -> None:
    alone = [encoded(i) for i in range(4)]
    assert alone == [encoded(i) for i in range(4)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(encoded, range(4))) == alone


def test_another_parameter_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    write(path, [row(0)])
    other = {**PIPELINE, "flow": {"tau": 0.25, "warps": 3}, "new": 1}
    before = path.read_bytes()
    with pytest.raises(StoreMismatchError) as caught:
        write(path, [row(1)], other)
    text = str(caught.value)
    assert "2 differ" in text
    assert "flow.warps: 5 there, 3 now" in text
    assert "new: 'absent' there, 1 now" in text
    assert "another store" in text
    assert "tau" not in text
    assert path.read_bytes() == before
    assert not path.with_name("store.h5.lock").exists()


def versions(numpy: str, cv2: str = "cv2 4.11.0") -> dict[str, Any]:
    made = {"numpy": numpy, "flow_backend": cv2, "region_backend": "mediapipe 0.10.30, model 64184e22"}
    return {**PIPELINE, "versions": made}


def test_another_patch_version_extends_the_store_and_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    first, second, third = versions("2.1.0"), versions("2.1.1"), versions("2.1.1", "cv2 4.12.0")
    write(path, [row(0)], first)
    with StoreWriter(path, second) as writer:  # killed after one commit
        assert writer.warnings == [
            f"numpy was 2.1.0 when {path} was begun and is 2.1.1 now; both are recorded"
        ]
        writer.begin("samm", SampleTable([row(0), row(1)]))
        writer.commit(ONE, encoded(1))
    assert write(path, [row(0), row(1), row(2)], third) == {ZERO, ONE}
    before = path.read_bytes()
    write(path, [row(0), row(1), row(2)], versions("9"))  # nothing to do, so nothing to record
    assert path.read_bytes() == before
    with FlowStore(path) as store:
        assert store.pipeline == first
        assert store.builds == [first["versions"], second["versions"], third["versions"]]
    assert verify_store(path) == []
    with pytest.raises(StoreMismatchError, match=r"1 differ.*flow_backend: 'cv2 4' there, 'cv2 5' now"):
        write(path, [row(3)], versions("2.1.0", "cv2 5.0.0"))


def test_another_mediapipe_is_recorded_and_another_model_of_it_refused(tmp_path: Path) -> None:
    path, later, other = tmp_path / "store.h5", versions("2.1.0"), versions("2.1.0")
    write(path, [row(0)], versions("2.1.0"))
    later["versions"]["region_backend"] = "mediapipe 1.2.3, model 64184e22"
    assert write(path, [row(0), row(1)], later) == {ZERO}
    with FlowStore(path) as store:
        assert [build["region_backend"] for build in store.builds] == [
            "mediapipe 0.10.30, model 64184e22",
            "mediapipe 1.2.3, model 64184e22",
        ]
    other["versions"]["region_backend"] = "mediapipe 0.10.30, model 0badf00d"
    with pytest.raises(StoreMismatchError, match=r"1 differ.*region_backend: 'mediapipe, model 64184e22'"):
        write(path, [row(2)], other)


def test_parts_of_other_versions_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    for i, version in enumerate(("2.1.0", "2.1.1")):  # both killed before the store is there
        with StoreWriter(path, versions(version)) as writer:
            writer.begin("samm", SampleTable([row(0), row(1)]))
            writer.commit(row(i).sample_id, encoded(i))
    assert write(path, [row(0), row(1)], versions("2.1.2")) == {ZERO, ONE}
    with FlowStore(path) as store:
        assert [build["numpy"] for build in store.builds] == ["2.1.0", "2.1.1"]


def test_a_long_list_of_differences_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    write(path, [row(0)])
    other = {**PIPELINE, "extra": {f"key_{i:02d}": i for i in range(40)}}
    with pytest.raises(StoreMismatchError, match=r"\(40 differ\).*key_03.*; and 28 more"):
        write(path, [row(0)], other)
    imported = {"map_kind": {"kind": "imported", "map_size": SIDE, "values": "minmax-255"}}
    with pytest.raises(StoreMismatchError, match="holds computed maps, and imported ones are to be added"):
        write(path, [row(0)], imported)


def test_parts_of_another_pipeline_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    with StoreWriter(path, PIPELINE) as writer:
        writer.begin("samm", SampleTable([row(0)]))
        writer.commit(ZERO, encoded(0))
    with pytest.raises(
        StoreMismatchError, match=r"unfinished build in .*store\.h5\.parts .*warps: 5 there, 2 now"
    ):
        write(path, [row(0)], {**PIPELINE, "flow": {"tau": 0.25, "warps": 2}})
    assert write(path, [row(0)]) == {ZERO}


def test_a_changed_sheet_row_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    write(path, [row(0), row(1)])
    changed = [row(0), row(1, apex=6)]
    assert write(path, changed, value=1.0) == {ZERO}
    with FlowStore(path) as store:
        assert store.samples("samm")[ONE].apex == 6
        assert store.read_flow("samm", 1).min() >= 1.0 > store.read_flow("samm", 0).min()
    assert verify_store(path) == []


def test_the_apex_that_was_used_may_differ_from_the_sheet(tmp_path: Path) -> None:
    path, sheet = tmp_path / "store.h5", row(0, apex=-1, apex_source="none")
    used = replace(sheet, apex=4, apex_source="spotted:flow-peak")
    for expected in (set(), {sheet.sample_id}):
        with StoreWriter(path, PIPELINE) as writer:
            assert writer.begin("samm", SampleTable([sheet])) == expected
            if not expected:
                writer.commit(sheet.sample_id, encode_sample(record(used)))
            writer.finish()
    with FlowStore(path) as store:
        assert store.samples("samm")[0] == used


def test_failures_are_kept_retried_and_replaced(tmp_path: Path) -> None:
    path, samples = tmp_path / "store.h5", SampleTable([row(0), row(1)])
    with StoreWriter(path, PIPELINE) as writer:
        writer.begin("samm", samples)
        writer.commit(ZERO, encoded(0))
        writer.fail(ONE, "frames", "onset frame 1 is missing")
        assert writer.failed("samm") == {ONE}
        writer.finish()
    with StoreWriter(path, PIPELINE) as writer:
        assert writer.begin("samm", samples) == {ZERO}
        assert writer.failures("samm") == [(ONE, "frames", "onset frame 1 is missing")]
        with pytest.raises(StoreError, match="committed already"):
            writer.fail(ZERO, "face", "?")
        assert writer.begin("samm", SampleTable([row(0), row(1, onset=2)])) == {ZERO}
        assert writer.failed("samm") == set(), "a changed row is tried again"
        writer.begin("samm", samples)
        writer.commit(ONE, encoded(1))
        assert writer.failures("samm") == []
        writer.finish()
    with FlowStore(path) as store:
        assert store.failures("samm") == ()
        assert len(store.samples("samm")) == 2


def test_a_sample_that_fails_with_its_new_row_loses_its_old_flow(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    write(path, [row(0), row(1)])
    for _ in range(2):  # the second time from the file
        with StoreWriter(path, PIPELINE) as writer:
            writer.begin("samm", SampleTable([row(0), row(1, apex=8)]))
            writer.fail(ONE, "frames", "apex frame 8 is missing")
            writer.finish()
        with FlowStore(path) as store:
            assert store.samples("samm").sample_ids == (ZERO,)
            assert [item.reason for item in store.failures("samm")] == ["apex frame 8 is missing"]
    assert verify_store(path) == []


def test_all_samples_failed(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    with StoreWriter(path, PIPELINE) as writer:
        writer.begin("samm", SampleTable([row(0)]))
        writer.fail(ZERO, "face", "kein Gesicht: 臉")
        assert writer.finish()
    with FlowStore(path) as store:
        assert len(store.samples("samm")) == 0
        assert store.failures("samm")[0].reason == "kein Gesicht: 臉"
        assert store.flow("samm")[:].shape == (0, 3, SIDE, SIDE)
        assert store.regions("samm").shape == (0, 5, 2) and store.regions("samm").dtype == np.float32
    with h5py.File(path) as file:
        empty = file["samm/samples"]
        assert h5py.check_string_dtype(empty["sample_id"].dtype).encoding == "utf-8"
        assert (empty["onset"].dtype, empty["fps"].dtype) == (np.int64, np.float64)
    assert verify_store(path) == []


def test_layout_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    write(path, [row(10), row(9)])
    with h5py.File(path) as file:
        flow = file["samm/flow"]
        assert (flow.shape, flow.dtype, flow.chunks) == ((2, 3, SIDE, SIDE), np.float16, (1, 3, SIDE, SIDE))
        filters = flow.shuffle, flow.compression, flow.compression_opts, flow.fletcher32
        assert filters == (True, "gzip", 4, True)
        text = h5py.check_string_dtype(file["samm/samples/sample_id"].dtype)
        assert (text.encoding, file["samm/samples/sample_id"].fletcher32) == ("utf-8", True)
        assert file["samm/samples/sample_id"][()].tolist() == [b"samm/006/c_9", b"samm/006/c_10"]
        assert set(file["samm"]) == {"samples", "flow", "notes", "row_digest", "content_digest", "failures"}


def test_float32_is_kept_whole(tmp_path: Path) -> None:
    path, options = tmp_path / "store.h5", EncodeOptions(dtype="float32", compression=1)
    with StoreWriter(path, PIPELINE, options) as writer:
        writer.begin("samm", SampleTable([row(0)]))
        writer.commit(ZERO, encode_sample(record(row(0)), options))
        writer.finish()
    with FlowStore(path) as store:
        assert np.array_equal(store.read_flow("samm", 0), record(row(0)).flow.astype(np.float32))
    with h5py.File(path) as file:
        assert {file[f"samm/{name}"].compression_opts for name in ("flow", "notes", "samples/fps")} == {1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flow": np.zeros((2, SIDE, SIDE))}, r"flow is float16 \(2, 16, 16\), expected .* \(3, 16, 16\)"),
        ({"flow": np.full((3, SIDE, SIDE), np.nan)}, r"768 flow value\(s\) are not finite"),
        ({"flow": np.full((3, SIDE, SIDE), 7e4)}, "not finite as float16"),
        ({"regions": np.zeros((4, 2))}, r"regions is float32 \(4, 2\), expected float32 \(5, 2\)"),
        ({"landmarks": np.full((68, 2), np.inf)}, "landmarks value.* not finite"),
        ({"faces": np.zeros((2, SIDE, SIDE))}, "expected uint8"),
        ({"faces": np.zeros((1, SIDE, SIDE), np.uint8)}, "expected uint8"),
        ({"clips": np.zeros((4, SIDE, 3), np.uint8)}, "clips is uint8"),
        ({"notes": {"x": object()}}, "notes are not JSON"),
        ({"sample": row(0, emotion="an\0ger")}, "NUL"),
    ],
)
def test_a_wrong_record_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        encode_sample(replace(record(row(0)), **changes))
    assert ZERO in str(caught.value), "the sample is named"


def test_a_record_of_flow_alone_has_empty_notes(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    with StoreWriter(path, PIPELINE) as writer:
        writer.begin("samm", SampleTable([row(0)]))
        writer.commit(ZERO, encode_sample(SampleRecord(row(0), np.ones((3, SIDE, SIDE)))))
        writer.finish()
    with FlowStore(path) as store:
        assert store.notes("samm") == [{}]
        assert [store.has("samm", what) for what in ("flow", "landmarks", "regions", "faces")] == [
            *(True, False, False, False)
        ]


def test_a_payload_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store.h5", PIPELINE) as writer:
        with pytest.raises(StoreError, match="was not begun"):
            writer.failed("samm")
        with pytest.raises(StoreError, match="is in no table"):
            writer.commit(ZERO, encoded(0))
        with pytest.raises(StoreError, match="got rows of samm"):
            writer.begin("smic", SampleTable([row(0)]))
        writer.begin("samm", SampleTable([row(0), row(1)]))
        with pytest.raises(StoreError, match="not an encoded sample"):
            writer.commit(ZERO, b"nonsense")
        with pytest.raises(StoreError, match=r"committed as samm/006/c_0 is of samm/006/c_1"):
            writer.commit(ZERO, encoded(1))
        with pytest.raises(StoreMismatchError, match="expected"):
            writer.commit(ZERO, encode_sample(record(row(0), flow=np.zeros((3, 8, 8)))))
        with pytest.raises(StoreError, match="float32"):
            writer.commit(ZERO, encode_sample(record(row(0)), EncodeOptions(dtype="float32")))
        writer.commit(ZERO, encoded(0))
        clip = np.zeros((5, SIDE, SIDE), np.uint8)
        with pytest.raises(StoreMismatchError, match="--keep-clips"):
            writer.commit(ONE, encode_sample(record(row(1), clips=clip)))


def test_needs_a_context_and_a_map_kind(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not open"):
        StoreWriter(tmp_path / "a.h5", PIPELINE).begin("samm", SampleTable([]))
    with pytest.raises(StoreError, match="map_kind"):
        StoreWriter(tmp_path / "a.h5", {})
    for nameless in ("", ".", "/"):
        with pytest.raises(StoreError, match="names no file"):
            StoreWriter(nameless, PIPELINE)
    with pytest.raises(StoreError, match="not JSON"):
        StoreWriter(tmp_path / "a.h5", {**PIPELINE, "x": object()})
    with pytest.raises(StoreError, match=r"unknown value of dtype 'float64'.*float16, float32"):
        EncodeOptions(dtype="float64")  # type: ignore[arg-type]


def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(StoreError, match="not a readable HDF5 file"):
        write(path, [row(0)])
    assert path.read_text() == "mine"
    assert [item.name for item in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        (folder / "probe").touch()
    except PermissionError:
        with pytest.raises(StoreError, match="Choose a --store folder"):
            write(folder / "store.h5", [row(0)])
    else:
        pytest.skip("this user may write anywhere")
    finally:
        folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("length", [0, 100, -100])
def test_a_damaged_part_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "store.h5"
    with StoreWriter(path, PIPELINE) as writer:
        writer.begin("samm", SampleTable([row(0)]))
        writer.commit(ZERO, encoded(0))
    part = next(tmp_path.rglob("*.part"))
    part.write_bytes(part.read_bytes()[:length])
    with pytest.raises(StoreError, match=rf"{part.name} is damaged .* Delete it"):
        write(path, [row(0)])
    part.unlink()
    assert write(path, [row(0)]) == set()


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_manifest_of_an_unfinished_build_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.h5"
    with StoreWriter(path, PIPELINE) as writer:
        writer.begin("samm", SampleTable([row(0)]))
        writer.commit(ZERO, encoded(0))
    (manifest := next(tmp_path.rglob(MANIFEST))).write_bytes(content)
    with pytest.raises(
        StoreError, match=rf"{manifest} is damaged .*Delete {manifest.parent} and build again"
    ):
        write(path, [row(0)])
