"""`verify` finds what is planted, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from tests.mer_flow.store.stores import PIPELINE, SIDE, row

from mer_flow.cli import cli
from mer_flow.samples import SampleTable
from mer_flow.store.encode import SampleRecord, encode_sample
from mer_flow.store.verify import damaged, verify_store
from mer_flow.store.writer import StoreWriter
from mer_flow.work.errors import StoreError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "flows.h5"
    rng = np.random.default_rng(0)
    table = SampleTable(row(i) for i in range(4))
    with StoreWriter(path, PIPELINE) as writer:
        writer.begin("samm", table)
        for sample in list(table)[:3]:
            flow = np.abs(rng.normal(size=(3, SIDE, SIDE)))
            points, regions = rng.uniform(0, SIDE, (68, 2)), rng.uniform(0, SIDE, (5, 2))
            faces = rng.integers(0, 255, (2, SIDE, SIDE), dtype=np.uint8)
            record = SampleRecord(sample, flow, points, regions, np.eye(2, 3), faces, None, {"fallbacks": []})
            writer.commit(sample.sample_id, encode_sample(record))
        writer.fail(table[3].sample_id, "face", "no face")
        writer.finish()
    return path


def set_item(dataset: str, index: object, value: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        file[dataset][index] = value

    return edit


def delete(name: str) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]

    return edit


def exchange_for_group(name: str) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_group(name)

    return edit


def truncate(name: str, rows: int) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        values = file[name][:rows]
        del file[name]
        file[name] = values

    return edit


def exchange(name: str, shape: tuple[int, ...], dtype: str) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=(1, *shape[1:]), fletcher32=True)

    return edit


def set_attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        file.attrs[name] = value

    return edit


def sample(i: int, *kinds: str) -> set[tuple[str, str]]:
    return {(kind, f"samm/006/c_{i}") for kind in kinds}


#: What is planted, and the (kind, where) that verify must say of it.
PLANTED = {
    "flow not finite": (set_item("samm/flow", (1, 0, 3, 3), np.inf), sample(1, "value", "digest")),
    "flow exchanged": (set_item("samm/flow", (2, 0, 3, 3), 1.5), sample(2, "digest")),
    "flow too large": (set_item("samm/flow", (0, 1, 0, 0), 300), sample(0, "value", "digest")),
    "negative strain": (set_item("samm/flow", (0, 2, 0, 0), -1), sample(0, "value", "digest")),
    "face exchanged": (set_item("samm/faces", (0, 1), 7), sample(0, "digest")),
    "landmark far outside": (set_item("samm/landmarks", (1, 30), 99), sample(1, "value", "digest")),
    "region outside": (set_item("samm/regions", (1, 2), -1), sample(1, "value", "digest")),
    "half a landmark": (set_item("samm/landmarks", (1, 30, 0), np.nan), sample(1, "value", "digest")),
    "duplicate sample": (set_item("samm/samples/sample_id", 1, b"samm/006/c_0"), sample(0, "duplicate")),
    "other database": (set_item("samm/samples/database", 1, b"smic"), sample(1, "reference")),
    "other order": (
        set_item("samm/samples/sample_id", slice(0, 2), [b"samm/006/c_1", b"samm/006/c_0"]),
        {("schema", "samm")},
    ),
    "committed and failed": (
        set_item("samm/failures/sample_id", 0, b"samm/006/c_2"), sample(2, "reference")
    ),
    "no flow": (
        delete("samm/flow"),
        {("schema", "samm")} | sample(0, "digest") | sample(1, "digest") | sample(2, "digest"),
    ),
    "a folder for faces": (exchange_for_group("samm/faces"), {("unreadable", "")}),
    "no emotions": (delete("samm/samples/emotion"), {("unreadable", "samm")}),
    "no failures": (delete("samm/failures"), {("unreadable", "samm/failures")}),
    "short flow": (truncate("samm/flow", 2), {("shape", "samm/flow"), ("schema", "samm/flow")}),
    "flow of another side": (exchange("samm/flow", (3, 3, 8, 8), "f2"), {("shape", "samm/flow")}),
    "flow of whole numbers": (exchange("samm/flow", (3, 3, SIDE, SIDE), "i2"), {("shape", "samm/flow")}),
    "regions in float64": (exchange("samm/regions", (3, 5, 2), "f8"), {("shape", "samm/regions")}),
    "short landmarks": (truncate("samm/landmarks", 2), {("shape", "samm/landmarks")}),
    "short notes": (truncate("samm/notes", 2), {("shape", "samm/notes")}),
    "short emotions": (truncate("samm/samples/emotion", 2), {("unreadable", "samm")}),
    "notes no JSON": (set_item("samm/notes", 0, b"{"), {("unreadable", "samm/notes")}),
    "other pipeline": (set_attribute("pipeline", json.dumps({**PIPELINE, "x": 1})), {("unreadable", "")}),
    "no pipeline": (set_attribute("pipeline", "?"), {("unreadable", "")}),
    "other schema": (set_attribute("schema_version", 7), {("unreadable", "")}),
}  # fmt: skip


def test_a_sound_store_has_no_problems(sound: Path) -> None:
    read = []
    assert verify_store(sound, on_sample=lambda: read.append(1)) == []
    assert len(read) == 3


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(name: str, sound: Path, tmp_path: Path) -> None:
    edit, expected = PLANTED[name]
    path = tmp_path / "flows.h5"
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+") as file:
        edit(file)
    problems = verify_store(path)
    found = {(item.kind, item.where) for item in problems}
    assert found == expected, problems


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda file: None, set()),
        (set_item("samm/flow", (1, 0, 3, 3), 1.5), {"samm/006/c_1"}),
        (truncate("samm/landmarks", 2), {"samm"}),  # of no sample alone
        (delete("samm/samples/emotion"), {"samm"}),
    ],
)
def test_what_must_be_computed_anew(
    edit: Callable[[h5py.File], None], expected: set[str], sound: Path, tmp_path: Path
) -> None:
    path = tmp_path / "flows.h5"
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+") as file:
        edit(file)
    assert damaged(path, "samm") == expected
    assert damaged(path, "smic") == set(), "a database that is not there is not damaged"
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="not a readable HDF5 file"):
        damaged(path, "samm")


def test_a_sample_committed_and_failed_twice_is_told_once_with_its_count(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "flows.h5"
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+") as file:
        for name in file["samm/failures"]:
            values = np.repeat(file["samm/failures"][name][:], 2)
            del file["samm/failures"][name]
            file["samm/failures"][name] = values
    assert [str(fault) for fault in verify_store(path)] == [
        "duplicate: samm/006/c_3: its failure occurs 2 times"
    ]


def test_every_flipped_bit_of_the_arrays_is_found(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    rng = random.Random(0)
    path = tmp_path / "flows.h5"
    with h5py.File(sound) as file:
        for name in ("flow", "faces", "landmarks", "regions", "samples/emotion", "notes"):
            dataset = file["samm"][name]
            for _ in range(6):
                chunk = dataset.id.get_chunk_info(rng.randrange(dataset.id.get_num_chunks()))
                flipped = bytearray(content)
                flipped[chunk.byte_offset + rng.randrange(chunk.size)] ^= 1 << rng.randrange(8)
                path.write_bytes(flipped)
                assert verify_store(path), f"a flipped bit in {name} went unnoticed"


def test_a_truncated_or_missing_file(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "flows.h5"
    assert [item.kind for item in verify_store(path)] == ["unreadable"]
    path.write_bytes(sound.read_bytes()[:-500])
    assert [item.kind for item in verify_store(path)] == ["unreadable"]


def test_a_file_that_may_not_be_a_store_is_not_to_be_deleted(sound: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("three years")
    for path in (tmp_path / "none.h5", thesis):
        run = CliRunner().invoke(cli, ["verify", str(path)])
        assert run.exit_code == 1
        assert "Delete the store" not in run.output


def test_the_command(sound: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(cli, ["verify", str(sound)])
    assert run.exit_code == 0
    assert "is sound: 3 samples" in run.output
    path = tmp_path / "flows.h5"
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+") as file:
        file["samm/flow"][1, 0, 3, 3] = np.nan
    run = CliRunner().invoke(cli, ["verify", str(path), "--json"])
    assert run.exit_code == 1
    content = json.loads(run.output)
    assert (content["sound"], content["samples"]) == (False, 3)
    assert {item["kind"] for item in content["problems"]} == {"value", "digest"}
    run = CliRunner().invoke(cli, ["verify", str(path)])
    assert run.exit_code == 1
    assert "value: samm/006/c_1: 1 flow value(s) are not finite" in run.output
