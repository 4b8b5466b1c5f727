"""A build killed anywhere, a full disk, a second writer: no commit is lost, the final bytes are the same."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.faults.kills import in_child
from tests.faults.trials import Trials
from tests.mer_flow.store.stores import PIPELINE, SIDE, record, row

from mer_flow.samples import Sample, SampleTable
from mer_flow.store.encode import encode_sample
from mer_flow.store.reader import FlowStore
from mer_flow.store.verify import verify_store
from mer_flow.store.writer import StoreWriter
from mer_flow.work.errors import StoreBusyError, StoreError

FAILING = 4


def payload_of(sample: Sample) -> bytes:
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 255, (2, SIDE, SIDE), dtype=np.uint8)
    points, regions = rng.uniform(0, SIDE, (68, 2)), rng.uniform(0, SIDE, (5, 2))
    return encode_sample(record(sample, landmarks=points, regions=regions, faces=faces))


TABLES = {
    database: SampleTable(row(i, database) for i in range(count))
    for database, count in (("casme2", 3), ("samm", 6))
}
PAYLOADS = {s.sample_id: payload_of(s) for table in TABLES.values() for s in table}


def build(path: Path, database: str, log: Callable[[str], None] = lambda sample_id: None) -> set[str]:
    """Builds what is missing of a database; returns what was there already."""
    table = TABLES[database]
    with StoreWriter(path, PIPELINE) as writer:
        done = writer.begin(database, table)
        for i, sample in enumerate(table):
            if sample.sample_id in done | writer.failed(database):
                continue
            if i == FAILING:
                writer.fail(sample.sample_id, "face", "no face in the onset frame")
            else:
                writer.commit(sample.sample_id, PAYLOADS[sample.sample_id])
                log(sample.sample_id)
        writer.finish()
    return done


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("reference") / "store.h5"
    build(path, "casme2")
    build(path, "samm")
    assert verify_store(path) == []
    return path.read_bytes()


def test_killed_anywhere_then_resumed_gives_the_same_bytes(
    tmp_path: Path, reference: bytes, record_property: Callable[[str, object], None]
) -> None:
    first = tmp_path / "first.h5"
    build(first, "casme2")
    counted = tmp_path / "counted.h5"
    counted.write_bytes(first.read_bytes())
    points = in_child(partial(build, counted, "samm"), counted=True).points
    trials, kills = Trials(record_property, "writer killed", few=24, many=200, share=0.04), 0
    for point in trials.among(range(1, points + 1)):
        folder = tmp_path / f"at{point}"
        folder.mkdir()
        path, log = folder / "store.h5", folder / "log"
        path.write_bytes(first.read_bytes())
        log.touch()

        def record(sample_id: str, log: Path = log) -> None:
            with log.open("a") as file:
                file.write(sample_id + "\n")

        assert in_child(partial(build, path, "samm", record), point).signal == signal.SIGKILL
        kills += 1
        with FlowStore(path) as store:  # a reader sees the old store or the new one, never half of one
            assert store.databases in (("casme2",), ("casme2", "samm"))
            assert len(store.flow("casme2")[:]) == 3
        assert set(log.read_text().split()) <= build(path, "samm"), (
            f"a commit was lost by the kill at point {point}"
        )
        assert path.read_bytes() == reference, f"kill at point {point} of {points}"
        assert sorted(p.name for p in folder.iterdir()) == ["log", "store.h5"]
    trials.end(kills, {"points": points})


def test_killed_again_and_again(tmp_path: Path, reference: bytes) -> None:
    rng = random.Random(1)
    path = tmp_path / "store.h5"
    for database in ("casme2", "samm"):
        for last in (40, 200) * 6:
            in_child(partial(build, path, database), rng.randrange(4, last))
        build(path, database)
    assert path.read_bytes() == reference


def test_bytes_depend_neither_on_order_nor_on_batches(tmp_path: Path, reference: bytes) -> None:
    path = tmp_path / "store.h5"
    build(path, "samm")
    build(path, "casme2")
    assert path.read_bytes() == reference
    piecewise = tmp_path / "piecewise.h5"
    for database, table in TABLES.items():
        for i in reversed(range(len(table))):
            with StoreWriter(piecewise, PIPELINE) as writer:
                writer.begin(database, SampleTable(list(table)[: i + 1]))
                if i == FAILING:
                    writer.fail(table[i].sample_id, "face", "no face in the onset frame")
                else:
                    writer.commit(table[i].sample_id, PAYLOADS[table[i].sample_id])
                assert writer.finish()
    assert piecewise.read_bytes() == reference


def test_an_unfinished_build_of_another_database_is_not_lost(tmp_path: Path, reference: bytes) -> None:
    path = tmp_path / "store.h5"
    with pytest.raises(KeyboardInterrupt), StoreWriter(path, PIPELINE) as writer:
        writer.begin("samm", TABLES["samm"])
        writer.commit(TABLES["samm"][0].sample_id, PAYLOADS[TABLES["samm"][0].sample_id])
        raise KeyboardInterrupt
    with pytest.raises(StoreError, match=r"unfinished build has committed 1 sample"):
        FlowStore(path)
    build(path, "casme2")
    with FlowStore(path) as store:
        assert store.databases == ("casme2", "samm")
    build(path, "samm")
    assert path.read_bytes() == reference


def limited(limit: int, work: Callable[[], Any]) -> Callable[[], Any]:
    """Wraps work so that no file may grow beyond a size: the kernel then answers as on an exhausted quota."""

    def run() -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return work()

    return run


def test_full_disk_while_committing(tmp_path: Path, reference: bytes) -> None:
    path = tmp_path / "store.h5"
    build(path, "casme2")
    before = path.read_bytes()
    ended = in_child(limited(1000, lambda: build(path, "samm")))
    error = ended.answer
    assert ended.signal == 0
    assert isinstance(error, StoreError)
    assert "disk is full" in str(error)
    assert "run the same command again" in str(error)
    assert path.read_bytes() == before
    build(path, "samm")
    assert path.read_bytes() == reference


def test_full_disk_while_assembling(tmp_path: Path, reference: bytes) -> None:
    path = tmp_path / "store.h5"
    build(path, "casme2")
    before = path.read_bytes()
    largest = max(map(len, PAYLOADS.values()))
    for limit in (largest + 2000, len(before), len(reference) - 100):
        ended = in_child(limited(limit, lambda: build(path, "samm")))
        error = ended.answer
        assert ended.signal == 0, f"limit {limit}: the writer must not crash"
        assert isinstance(error, StoreError), f"limit {limit}: {error!r}"
        assert "run the same command again" in str(error)
        assert path.read_bytes() == before
        assert not path.with_name("store.h5.tmp").exists()
    done = build(path, "samm")
    assert len(done) == len(TABLES["samm"]) - 1, "every commit survived"
    assert path.read_bytes() == reference


def test_too_little_space_is_said_before_assembling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.h5"
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr("mer_flow.store.writer.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(StoreError, match=r"disk is full: assembling .* 1 MiB are free"):
        build(path, "casme2")
    monkeypatch.undo()
    assert len(build(path, "casme2")) == 3


def test_second_writer_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    child = os.fork()
    if child == 0:
        with StoreWriter(path, PIPELINE) as writer:
            writer.begin("samm", TABLES["samm"])
            (tmp_path / "ready").touch()
            time.sleep(60)
        os._exit(0)
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(StoreBusyError, match=rf"pid {child} on ") as caught:
            build(path, "casme2")
        assert "Wait until it ends" in str(caught.value)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    build(path, "casme2")
    assert not path.with_name("store.h5.lock").exists()
