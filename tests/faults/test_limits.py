"""Ctrl-C, few descriptors, and many processes at one store."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
from tests.faults.kills import alive
from tests.faults.test_hostile_inputs import QUICK, run
from tests.mer_flow.store.stores import PIPELINE, SIDE, record, row, write

from mer_flow.samples import SampleTable
from mer_flow.store.encode import encode_sample
from mer_flow.store.reader import FlowStore
from mer_flow.store.verify import verify_store
from mer_flow.store.writer import StoreWriter
from mer_flow.synthetic import make_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree") / "casme2"
    make_tree(root, "casme2", subjects=1, clips_per_subject=4, seed=1)
    return root


def build(tree: Path, store: Path) -> list[str]:
    source = ["--db", "casme2", "--root", str(tree), "--store", str(store), "--workers", "2", "--quiet"]
    return [sys.executable, "-m", "mer_flow.cli", "build", *source, *QUICK]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("where", ["local", "dask"])
def test_ctrl_c_ends_a_build_and_its_workers_and_keeps_what_was_committed(
    times: int, where: str, tree: Path, tmp_path: Path
) -> None:
    pytest.importorskip("distributed")
    store = tmp_path / "flows.h5"
    words = [*build(tree, store), "--executor", where]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr
        while process.poll() is None and not list(tmp_path.rglob("*.part")):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to workers too
        told = process.stderr.readline()
        if told.startswith("dask: scheduler"):
            told = process.stderr.readline()
        if times == 2:
            os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert told.startswith("stopping: what is unfinished in 2 worker processes is given up"), told
    ends = {1: ["interrupted; what"], 2: ["ended at once; what", "interrupted; what"]}[times]
    assert process.returncode == 130 and any(end in err for end in ends) and alive(process.pid) == 0, err
    assert len(err.strip().splitlines()) == 1, err
    assert list(tmp_path.rglob("*.part")) and (times == 2 or not (tmp_path / "flows.h5.lock").exists())
    assert subprocess.run(build(tree, store), capture_output=True).returncode == 0
    assert verify_store(store) == [] and sorted(path.name for path in tmp_path.iterdir()) == ["flows.h5"]


def read_on(path: Path, stop: Event, results: multiprocessing.queues.Queue[tuple[int, str]]) -> None:
    """Open and read a store over and over; what is seen must be whole."""
    seen = 0
    try:
        while not stop.is_set():
            with FlowStore(path) as store:
                count = len(store.samples("samm"))
                maps = store.flow("samm")[:]
                assert len(maps) == count and np.isfinite(maps).all()
                seen += 1
        results.put((seen, ""))
    except BaseException as error:
        results.put((seen, repr(error)))
        raise


def test_eight_spawned_readers_during_a_build_see_whole_stores(tmp_path: Path) -> None:
    path = tmp_path / "flows.h5"
    write(path, [row(0)])
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    readers = [context.Process(target=read_on, args=(path, stop, results)) for _ in range(8)]
    for reader in readers:
        reader.start()
    added = 1
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline or added < 12:
        write(path, [row(i) for i in range(added + 1)])
        added += 1
    time.sleep(1)
    stop.set()
    seen = [results.get(timeout=120) for _ in readers]
    for reader in readers:
        reader.join()
    print(f"8 readers read {sum(count for count, _ in seen)} times while {added} stores were written")
    assert [why for _, why in seen if why] == []
    assert verify_store(path) == [] and not list(tmp_path.glob("*.lock"))


FEW = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"


def test_64_descriptors_are_enough_for_a_build_an_import_an_export_and_the_check(tmp_path: Path) -> None:
    store, samples = tmp_path / "flows.h5", [row(i) for i in range(90)]  # more parts than descriptors
    with StoreWriter(store, PIPELINE) as writer:
        writer.begin("samm", SampleTable(samples))
        for sample in samples:
            writer.commit(sample.sample_id, encode_sample(record(sample)))
    script = "import resource; " + FEW + "\n"
    script += "from tests.mer_flow.store.stores import *\n"
    script += f"write(Path({str(store)!r}), [row(i) for i in range(90)])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    out = tmp_path / "maps.npz"
    for words in (
        ("verify", store),
        ("export", "npz", store, "--out", out, "--view", f"whole-{SIDE}", "--normalisation", "raw"),
        ("import", "npz", out, "--store", tmp_path / "again.h5"),
        ("info", tmp_path / "again.h5", "--json"),
    ):
        done = run(*words, limits=FEW)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 90
