"""Stores made to read their reader's files, to fill its memory, or to be taken for sound: refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from tests.faults.trials import Trials, flipped
from tests.mer_flow.stores import sample_of, write_store

from mer_flow.cli import cli
from mer_flow.store.reader import FlowStore
from mer_flow.store.schema import pipeline_hash
from mer_flow.store.verify import verify_store
from mer_flow.store.writer import StoreWriter
from mer_flow.work.errors import MerFlowError, StoreError

SECRET = b"root:secret-of-the-reader:0:0\n" * 40


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    (folder / "secret").write_bytes(SECRET)
    with h5py.File(folder / "other.h5", "w") as file:
        file["secret"] = np.frombuffer(SECRET, np.uint8)
    rng = np.random.default_rng(0)
    rows = [(sample_of("samm", "006", f"c_{n}", "anger"), rng.uniform(0, 1, (3, 8, 8))) for n in range(3)]
    points = rng.uniform(0, 8, (68, 2))
    write_store(folder / "flows.h5", rows, landmarks=points).close()
    return folder / "flows.h5"


Edit = Callable[[h5py.File, Path], None]


def external_storage(file: h5py.File, folder: Path) -> None:
    del file["samm/samples/emotion"]
    external = [(str(folder / "secret"), 0, h5py.h5f.UNLIMITED)]
    file["samm/samples"].create_dataset("emotion", (3,), "S20", external=external)


def external_link(file: h5py.File, folder: Path) -> None:
    del file["samm/notes"]
    file["samm/notes"] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


def external_database(file: h5py.File, folder: Path) -> None:
    file["smic"] = h5py.ExternalLink(str(folder / "other.h5"), "/")


def soft_link(file: h5py.File, folder: Path) -> None:
    del file["samm/content_digest"]
    file["samm/content_digest"] = h5py.SoftLink("/samm/row_digest")


def virtual_dataset(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((3, 3, 8, 8), np.float16)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (3, 3, 8, 8), np.float16)
    del file["samm/flow"]
    file.create_virtual_dataset("samm/flow", layout)


def claimed(name: str, shape: tuple[int, ...], dtype: str, **how: object) -> Edit:
    def edit(file: h5py.File, folder: Path) -> None:
        del file[name]
        file.create_dataset(name, shape, dtype, **how)

    return edit


def attribute(name: str, value: object) -> Edit:
    def edit(file: h5py.File, folder: Path) -> None:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return edit


def unknown_object(file: h5py.File, folder: Path) -> None:
    file["samm/more"] = np.zeros(3)


def group_for_dataset(file: h5py.File, folder: Path) -> None:
    del file["samm/notes"]
    file.create_group("samm/notes")


def dataset_for_group(file: h5py.File, folder: Path) -> None:
    del file["samm/failures"]
    file["samm/failures"] = np.zeros(3)


def column(name: str, value: bytes) -> Edit:
    def edit(file: h5py.File, folder: Path) -> None:
        texts = file[name][()].astype("S40")
        texts[0] = value
        del file[name]
        file[name] = texts.astype(h5py.string_dtype("utf-8", 40))

    return edit


HUGE = {"map_kind": {"kind": "computed", "map_size": 8, "values": "px"}}
NESTED = "[" * 100_000 + "]" * 100_000
#: What is planted, and what the one line must name.
PLANTED: dict[str, tuple[Edit, str]] = {
    "external storage": (external_storage, "samm/samples/emotion has its values in another file"),
    "external link": (external_link, "samm/notes is a link to another file"),
    "external database": (external_database, "smic is a link to another file"),
    "soft link": (soft_link, "samm/content_digest is a link to another place"),
    "virtual dataset": (virtual_dataset, "samm/flow is put together from other files"),
    "a column of 2 TB": (
        claimed("samm/samples/onset", (2**38,), "i8", chunks=(1,)), "samm/samples/onset claims 2,097,152 MiB"
    ),
    "a sample of 3 TB": (
        claimed("samm/flow", (3, 3, 2**19, 2**19), "f2", chunks=(1, 1, 8, 8)),
        "samm/flow claims 1,572,864 MiB",
    ),
    "points without end": (
        claimed("samm/landmarks", (2**40, 68, 2), "f4", chunks=(1, 68, 2)), "samm/landmarks claims"
    ),
    "text without length": (claimed("samm/notes", (3,), h5py.string_dtype()), "samm/notes holds neither"),
    "references": (claimed("samm/notes", (3,), h5py.ref_dtype), "samm/notes holds neither"),
    "other axes": (claimed("samm/flow", (3, 8), "f2"), "samm/flow has 2 axes, expected 4"),
    "unknown filter": (claimed("samm/flow", (3, 3, 8, 8), "f2", compression="lzf"), "uses the filter 32000"),
    "unknown object": (unknown_object, "samm/more is no part of a store"),
    "a group for a dataset": (group_for_dataset, "samm/notes is a group, expected a dataset"),
    "a dataset for a group": (dataset_for_group, "samm/failures is a dataset, expected a group"),
    "pipeline of 17 MiB": (attribute("pipeline", " " * (17 << 20)), "pipeline has 17825792 characters"),
    "pipeline is no JSON": (attribute("pipeline", "{"), "attribute pipeline is damaged"),
    "pipeline is a list": (attribute("pipeline", "[]"), "attribute pipeline is damaged (it is a list"),
    "pipeline without end": (attribute("pipeline", NESTED), "attribute pipeline is damaged"),
    "pipeline of numbers": (attribute("pipeline", np.zeros(3)), "attribute pipeline is no single number"),
    "other pipeline": (attribute("pipeline", json.dumps({**HUGE, "x": 1})), "one of them was changed"),
    "other hash": (attribute("pipeline_hash", "0" * 64), "one of them was changed"),
    "builds of numbers": (lambda file, _: file.attrs.update(builds="[1]"), "attribute builds is damaged"),
    "pipeline is a number": (attribute("pipeline", 3), "attribute pipeline is damaged"),
    "builds are a number": (lambda file, _: file.attrs.update(builds=3), "attribute builds is damaged"),
    "no hash": (attribute("pipeline_hash", None), "lacks the attributes ['pipeline_hash']"),
    "version as text": (attribute("schema_version", "one"), "follows schema one"),
}  # fmt: skip


@pytest.fixture(params=PLANTED)
def hostile(request: pytest.FixtureRequest, sound: Path, tmp_path: Path) -> tuple[Path, str]:
    edit, told = PLANTED[request.param]
    path = tmp_path / "flows.h5"
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+", libver="latest") as file:
        edit(file, sound.parent)
    return path, told


def test_a_hostile_store_is_refused_by_name_on_opening_verifying_and_extending(
    hostile: tuple[Path, str], sound: Path
) -> None:
    path, told = hostile
    with pytest.raises(StoreError) as refusal:
        FlowStore(path)
    assert told in str(refusal.value) and "\n" not in str(refusal.value)
    assert str(refusal.value).startswith(f"{path} ")
    (fault,) = verify_store(path)
    assert told in fault.message
    with FlowStore(sound) as store, pytest.raises(StoreError), StoreWriter(path, store.pipeline):
        pass
    for words in (
        ("info", path),
        ("verify", path),
        ("export", "npz", path, "--out", path.with_suffix(".npz")),
    ):
        done = CliRunner().invoke(cli, list(map(str, words)))
        assert done.exit_code == 1 and not isinstance(done.exception, MemoryError)
        assert b"secret-of" not in done.output.encode()


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (column("samm/samples/sample_id", b"samm/006/../../c"), "it has a part '..'"),
        (column("samm/samples/subject", b"samm/00\n6"), "control character"),
        (column("samm/samples/subject", b"smic/006"), "must begin with 'samm/'"),
    ],
)
def test_names_that_are_paths_or_lines_are_refused(
    edit: Edit, told: str, sound: Path, tmp_path: Path
) -> None:
    path = tmp_path / "flows.h5"
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+") as file:
        edit(file, tmp_path)
    with FlowStore(path) as store, pytest.raises(StoreError, match=told):
        store.samples("samm")
    assert any(told in fault.message for fault in verify_store(path))


def test_shapes_are_compared_with_the_schema_before_values_are_read(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "flows.h5"
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["samm/flow"]
        file.create_dataset("samm/flow", (3, 3, 4096, 4096), "f2", chunks=(1, 3, 64, 64), compression="gzip")
    with (
        FlowStore(path) as store,
        pytest.raises(StoreError, match=r"expected float16 or float32 \(3, 8, 8\)"),
    ):
        store.read_flow("samm", 0)


def everything(path: Path) -> str:
    """Read all that a store says, as one text."""
    with FlowStore(path) as store:
        told = [store.pipeline, store.builds, store.digest(), store.created_with]
        for name in store.databases:
            told += [
                store.samples(name),
                store.notes(name),
                store.failures(name),
                store.flow(name)[:].tolist(),
            ]
            told += [store.content_digests(name), store.landmarks(name).tolist()]
    return repr(told)


def test_a_flipped_bit_is_detected_or_harmless(
    sound: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every flip is one of these: refused with one line, found by verify, or nothing that is read differs."""
    content, whole = sound.read_bytes(), everything(sound)
    path = tmp_path / "flows.h5"
    found = {"refused": 0, "verify": 0, "harmless": 0}
    trials = Trials(record_property, "bit of a store", few=60, many=1000, share=0.04)
    for bit in trials.among(range(8 * len(content))):
        path.write_bytes(flipped(content, bit))
        try:
            same = everything(path) == whole
        except MerFlowError as error:
            assert "\n" not in str(error)
            found["refused"] += 1
            continue
        faults = verify_store(path)
        assert same or faults, f"bit {bit} changes what is read, and nothing says so"
        found["harmless" if same and not faults else "verify"] += 1
    trials.end(sum(found.values()), found)
    assert found["refused"]


def test_the_hash_that_a_reader_compares_is_that_of_the_writer(sound: Path) -> None:
    with FlowStore(sound) as store:
        assert store.pipeline_hash == pipeline_hash(store.pipeline)
