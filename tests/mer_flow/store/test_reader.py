"""Reading a store: lazily, in other processes, and with clear errors."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.mer_flow.store.stores import PIPELINE, SIDE, row
from tests.mer_flow.stores import write_store

from mer_flow.samples import Sample, SampleTable
from mer_flow.store.encode import SampleRecord, encode_sample
from mer_flow.store.reader import FlowStore
from mer_flow.store.writer import StoreWriter
from mer_flow.work.errors import StoreError, UsageError


def sample_of(database: str, i: int) -> Sample:
    return row(i, database, clip=f"ü_{i}", sample_id=f"{database}/006/ü_{i}")


def flow_of(i: int) -> np.ndarray:
    return np.random.default_rng(i).uniform(0, 2, (3, SIDE, SIDE)).astype(np.float16)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "flows.h5"
    for database, faces in (("samm", True), ("smic", False)):
        with StoreWriter(path, PIPELINE) as writer:
            table = SampleTable(sample_of(database, i) for i in range(5))
            writer.begin(database, table)
            for i, sample in enumerate(table):
                points = np.full((68, 2), i, np.float32) if i != 2 else None
                images = np.full((2, SIDE, SIDE), i, np.uint8) if faces else None
                clips = np.full((3, SIDE, SIDE, 3), i, np.uint8) if faces else None
                matrix = np.array([[1.0, 0, i], [0, 1, 0]])
                record = SampleRecord(
                    sample, flow_of(i), points, None, matrix, images, clips, {"fallbacks": ["x"] * i}
                )
                writer.commit(sample.sample_id, encode_sample(record))
            writer.finish()
    return path


def test_everything_comes_back(path: Path) -> None:
    with FlowStore(path) as store:
        assert store.databases == ("samm", "smic")
        assert (store.map_kind.kind, store.map_size, store.values, store.schema_version) == (
            "computed",
            SIDE,
            "px",
            1,
        )
        assert store.pipeline == PIPELINE
        assert len(store.pipeline_hash) == 64
        assert store.created_with.startswith("mer-flow ")
        assert store.samples("smic") == SampleTable(sample_of("smic", i) for i in range(5))
        assert len(store.table()) == 10
        assert store.landmarks("samm")[3, 0].tolist() == [3, 3]
        assert np.isnan(store.landmarks("samm")[2]).all()
        assert store.alignment("samm")[4, 0, 2] == 4
        assert store.notes("samm")[2] == {"fallbacks": ["x", "x"]}
        assert store.faces("samm", 3).shape == (2, SIDE, SIDE)
        assert store.clips("samm", [4, 0])[:, 0, 0, 0, 0].tolist() == [4, 0]
        assert [store.has("samm", what) for what in ("flow", "faces", "regions")] == [True, True, False]
        assert not store.has("smic", "clips")
        assert store.failures("samm") == ()


def test_every_array_goes_with_its_sample_whatever_the_order_of_ids_and_commits(tmp_path: Path) -> None:
    """As text c_10 comes before c_2; and a later build puts samples between those that are there."""
    path = tmp_path / "flows.h5"

    def build(*numbers: int) -> None:
        with StoreWriter(path, PIPELINE) as writer:
            writer.begin("samm", SampleTable(row(i) for i in numbers))
            for i in numbers:
                images = np.full((2, SIDE, SIDE), i, np.uint8)
                points, centres = np.full((68, 2), i), np.full((5, 2), i)
                sequence = np.full((1, 2, 8, 8), i)
                record = SampleRecord(
                    row(i, onset=i), np.full((3, SIDE, SIDE), i), points, centres, np.full((2, 3), i), images,
                    images, {"number": i}, sequence,
                )  # fmt: skip
                writer.commit(row(i).sample_id, encode_sample(record))
            writer.finish()

    build(10, 2, 1)
    build(21, 3, 12)
    with FlowStore(path) as store:
        numbers = [sample.onset for sample in store.samples("samm")]
        assert numbers == [1, 2, 3, 10, 12, 21]
        assert [note["number"] for note in store.notes("samm")] == numbers
        arrays = (
            store.flow("samm")[:],
            store.landmarks("samm"),
            store.regions("samm"),
            store.alignment("samm"),
            store.faces("samm", slice(None)),
            store.clips("samm", range(6)),
            store.flow_sequence("samm", [0, 1, 2, 3, 4, 5]),
        )
        for array in arrays:
            assert array.reshape(6, -1).min(axis=1).tolist() == numbers
            assert array.reshape(6, -1).max(axis=1).tolist() == numbers


def test_flow_is_a_lazy_array(path: Path) -> None:
    with FlowStore(path) as store:
        maps = store.flow("samm")
        everything = np.stack([flow_of(i) for i in range(5)]).astype(np.float32)
        assert (maps.shape, len(maps), maps.dtype) == ((5, 3, SIDE, SIDE), 5, np.float32)
        for index in (0, -1, slice(1, 4), slice(None, None, -2), [3, 0, 3], np.array([4, 1]), []):
            assert np.array_equal(maps[index], everything[index])
            assert maps[index].dtype == np.float32
        assert np.array_equal(np.asarray(maps), everything)
        assert np.array_equal(store.read_flow("samm", [1], channels=2), everything[[1], :2])
        with pytest.raises(IndexError, match="sample 5 of samm, which has 5"):
            maps[5]


def read_one(store: FlowStore) -> tuple[int, np.ndarray]:
    return os.getpid(), store.read_flow("samm", 1)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes_open_it_themselves(path: Path, method: str) -> None:
    store = FlowStore(path)
    expected = store.read_flow("samm", 1)  # the handle is open when the worker starts
    with multiprocessing.get_context(method).Pool(2) as pool:
        for pid, flow in pool.map(read_one, [store] * 4):
            assert pid != os.getpid()
            assert np.array_equal(flow, expected)


def test_pickling_drops_the_handle(path: Path) -> None:
    store = FlowStore(path)
    copy = pickle.loads(pickle.dumps(store))
    assert copy._file is None
    assert copy.digest() == store.digest()


def test_a_forked_child_does_not_use_its_parents_handle(path: Path) -> None:
    store = FlowStore(path)
    parents = store._open().id.id
    child = os.fork()
    if child == 0:
        same = store._open() is store._file and store._owner == os.getpid() and store._file.id.id != parents
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_digest_is_of_the_content(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.h5"
    with h5py.File(path) as source, h5py.File(copy, "w") as target:  # another layout of the same content
        for name in source:
            source.copy(name, target)
        target.attrs.update(source.attrs)
    assert copy.read_bytes() != path.read_bytes()
    with FlowStore(path) as store, FlowStore(copy) as other:
        assert store.digest() == other.digest()
        assert store.digest(["samm"]) != store.digest(["smic"])
        assert store.digest(["smic", "samm"]) == store.digest()


PARTS = {
    "flow": np.zeros((3, SIDE, SIDE), np.float32),
    "landmarks": np.ones((68, 2)),
    "regions": np.ones((5, 2)),
    "alignment": np.eye(2, 3),
    "faces": np.zeros((2, SIDE, SIDE), np.uint8),
    "clips": np.zeros((3, SIDE, SIDE, 3), np.uint8),
    "flow_sequence": np.zeros((2, 2, 8, 8), np.float32),
}


@pytest.mark.parametrize("part", PARTS)
def test_the_digest_sees_a_single_value(part: str, tmp_path: Path) -> None:
    changed = PARTS[part].copy()
    changed[(-1,) * changed.ndim] += 1
    digests = []
    for name, parts in (("a", PARTS), ("b", PARTS), ("c", PARTS | {part: changed})):
        parts = dict(parts)
        with write_store(
            tmp_path / f"{name}.h5", [(sample_of("samm", 0), parts.pop("flow"))], **parts
        ) as store:
            digests.append(store.digest())
    assert digests[0] == digests[1] != digests[2]


def test_missing_things_are_named(path: Path) -> None:
    with FlowStore(path) as store:
        with pytest.raises(UsageError, match="did you mean 'samm'"):
            store.samples("sam")
        with pytest.raises(UsageError, match="did you mean 'regions'"):
            store.has("samm", "region")
        with pytest.raises(StoreError, match=r"smic holds no faces; build with .*--keep-faces"):
            store.faces("smic", 0)
        with pytest.raises(StoreError, match="--keep-clips K"):
            store.clips("smic", 0)
        with pytest.raises(StoreError, match="holds no regions"):
            store.regions("samm")


def test_wrong_files_are_explained(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no store at .*none\.h5.*mer-flow demo"):
        FlowStore(tmp_path / "none.h5")
    with pytest.raises(StoreError, match="is a folder"):
        FlowStore(tmp_path)
    text = tmp_path / "text.h5"
    text.write_text("u,v\n")
    with pytest.raises(StoreError, match="not a readable HDF5 file"):
        FlowStore(text)
    truncated = tmp_path / "truncated.h5"
    truncated.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(StoreError, match="not a readable HDF5 file"):
        FlowStore(truncated)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with pytest.raises(StoreError, match="not a flow store"):
        FlowStore(other)
    for version, remedy in ((99, "upgrade mer-flow"), (0, "build it again")):
        newer = tmp_path / f"v{version}.h5"
        newer.write_bytes(path.read_bytes())
        with h5py.File(newer, "r+") as file:
            file.attrs["schema_version"] = version
        with pytest.raises(StoreError, match=rf"follows schema {version} .* {remedy}"):
            FlowStore(newer)


def test_a_damaged_chunk_is_an_error_not_a_number(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.h5"
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["samm/flow"].id.get_chunk_info_by_coord((2, 0, 0, 0))
    content[chunk.byte_offset + chunk.size // 2] ^= 0x10
    damaged.write_bytes(content)
    with FlowStore(damaged) as store:
        assert np.array_equal(store.read_flow("samm", 1), flow_of(1))
        with pytest.raises(StoreError, match=r"reading flow of samm failed .*mer-flow verify"):
            store.read_flow("samm", 2)


def test_a_damaged_table_is_explained(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.h5"
    for name in ("samples/onset", "notes", "failures", "alignment"):
        content = bytearray(path.read_bytes())
        with h5py.File(path) as file:
            at = h5py.h5o.get_info(file[f"samm/{name}"].id).addr
        content[at : at + 8] = b"\xff" * 8  # the header of the object
        damaged.write_bytes(content)
        with (
            FlowStore(damaged) as store,
            pytest.raises(StoreError, match=r"reading .* failed .*mer-flow verify"),
        ):
            store.samples("samm"), store.notes("samm"), store.failures("samm"), store.alignment("samm")


def test_a_read_only_store_in_a_read_only_folder(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    copy = folder / "flows.h5"
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o400)
    folder.chmod(0o500)
    try:
        with FlowStore(copy) as store:
            assert len(store.flow("samm")[:]) == 5
        assert [item.name for item in folder.iterdir()] == ["flows.h5"]
    finally:
        folder.chmod(0o700)
