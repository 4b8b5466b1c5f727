"""Runs killed where they write, damaged bit by bit, begun twice, short of descriptors: nothing is lost."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.faults.kills import Campaign, command, in_child
from tests.faults.trials import PARTS, Trials, flipped
from tests.mer_flow.stores import sample_of, write_store

from mer_bench.conformance.audit import audit_run
from mer_bench.errors import MerBenchError, RunError
from mer_bench.runs.directory import RunDirectory, runs_below
from mer_bench.scores.summary import summarise

CLASSES = ("happiness", "anger", "surprise")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)  # or a forked child would wait for threads that it has not
    path = tmp_path_factory.mktemp("store") / "flows.h5"
    rng = np.random.default_rng(0)
    rows = [
        (sample_of("samm", f"00{s}", f"00{s}_1_{c}", CLASSES[(s + c) % 3]), rng.uniform(0, 1, (3, 28, 28)))
        for s in range(3)
        for c in range(3)
    ]
    write_store(path, rows).close()
    return path


def words_of(store: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        "run", "ststnet", "--protocol", "loso", "--db", "samm", "--store", store, "--out", out, "--seeds", 2,
        "--set", "epochs=2", "--workers", 1, "--device", "cpu", "--quiet", *more,
    )  # fmt: skip


def content(folder: Path) -> str:
    """What the records of a run say, without times."""
    (path,) = runs_below(folder / "runs")
    run, told = RunDirectory(path), hashlib.sha256()
    assert run.status().complete
    for seed in run.seeds:
        for record in run.records(seed):
            for part in (record.test_index, record.logits, record.train_loss, record.train_accuracy):
                told.update(np.ascontiguousarray(part).tobytes())
    return told.hexdigest()


def sound(folder: Path) -> None:
    """Whenever a run was killed, its manifest and every record that is there are whole."""
    for path in runs_below(folder / "runs"):
        status = RunDirectory(path).status()
        assert not any(status.damaged.values()) and status.writer is None


def test_bit_flips_are_told_or_harmless(
    store: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    command("mer-bench", *words_of(store, tmp_path / "runs"))()
    (whole,) = runs_below(tmp_path / "runs")
    manifest = whole / "manifest.json"
    files = [manifest, *sorted(whole.glob("records/*/*.npz"))]
    before = json.dumps(summarise(RunDirectory(whole), draws=100).to_json())
    outcome: Counter[str] = Counter()
    wrong = []
    trials = Trials(record_property, "bit of a run", few=120, many=1000, share=0.08)
    for nth in trials.among(range(100_000)):
        rng = random.Random(nth)
        file = manifest if rng.random() < 0.5 else rng.choice(files[1:])
        kind, original = file.suffix[1:], file.read_bytes()
        bit = rng.randrange(8 * len(original))
        where = f"{file.name}, bit {bit}"
        file.write_bytes(flipped(original, bit))
        try:
            after = json.dumps(summarise(RunDirectory(whole), draws=100).to_json())
        except MerBenchError as error:
            outcome[f"{kind} refused"] += 1
            if len(str(error).splitlines()) != 1:
                wrong.append(f"{where}: {error}")
        except Exception as error:
            wrong.append(f"{where}: unhandled {type(error).__name__}: {error}")
        else:
            outcome[f"{kind} harmless"] += 1
            if after != before:
                wrong.append(f"{where}: another result, untold")
        file.write_bytes(original)
    trials.end(outcome.total(), outcome, wrong)
    assert outcome["json refused"] and outcome["npz refused"]


@pytest.mark.parametrize("part", PARTS)
def test_runs(part: int, store: Path, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    command("mer-bench", *words_of(store, tmp_path / "first" / "runs"))()  # loads what every child then has

    def prepare(folder: Path) -> Callable[[], int]:
        return command("mer-bench", *words_of(store, folder / "runs"))

    trials = Trials(record_property, "run killed", few=6, many=200, share=0.25, part=part)
    Campaign(prepare, content).run(tmp_path, trials, again=sound)


@pytest.mark.slow
def test_two_runs_in_one_directory_train_once(store: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mer_bench.cli", *map(str, words_of(store, tmp_path, "--set", "lr=0.001"))]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in both]
    codes = sorted(code for *_, code in ended)
    if codes == [0, 1]:  # both at once: one is refused, by name
        (error,) = [err for _, err, code in ended if code == 1]
        assert "is being written by pid" in error and len(error.splitlines()) == 1
    else:  # one after the other: the second keeps what is there
        assert codes == [0, 0] and sum("6 kept from before" in out for out, *_ in ended) == 1
    (path,) = runs_below(tmp_path)
    assert not any(not one.passed for one in audit_run(path))
    assert not [*path.rglob("*.tmp"), *path.rglob(".lock*"), *path.rglob("*.damaged")]


def test_64_descriptors_are_enough(store: Path, tmp_path: Path) -> None:
    def work() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        return command("mer-bench", *words_of(store, tmp_path / "runs"))()

    ended = in_child(work)
    assert ended.answer == 0, ended.said
    assert content(tmp_path)


@pytest.mark.parametrize("kind", ["rename", "members", "flag"])
def test_a_crafted_archive_is_damaged_and_no_more(store: Path, tmp_path: Path, kind: str) -> None:
    command("mer-bench", *words_of(store, tmp_path / "runs"))()
    (path,) = runs_below(tmp_path / "runs")
    record = sorted(path.glob("records/*/*.npz"))[0]
    raw = record.read_bytes()
    if kind == "flag":  # of encryption, in the central directory
        at = raw.index(b"PK\x01\x02") + 8
        raw = raw[:at] + bytes([raw[at] | 1]) + raw[at + 1 :]
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(record) as old, zipfile.ZipFile(buffer, "w") as new:
            for name in old.namelist():
                new.writestr("../../" + name if kind == "rename" else name, old.read(name))
            if kind == "members":
                new.writestr("members.npy", b"\x93NUMPY\x01\x00\xff\xff{'descr': '|O'")
        raw = buffer.getvalue()
    record.write_bytes(raw)
    ((_, reason),) = RunDirectory(path).status().damaged[0]
    assert "is damaged" in reason
    assert not (tmp_path.parent / "meta.npy").exists()


@pytest.mark.parametrize("part", ["manifest.json", "record"])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_no_part_of_a_run_is_read_without_end(part: str, kind: str, store: Path, tmp_path: Path) -> None:
    command("mer-bench", *words_of(store, tmp_path / "runs"))()
    (path,) = runs_below(tmp_path / "runs")
    file = path / part if part != "record" else sorted(path.glob("records/*/*.npz"))[0]
    file.unlink()
    os.mkfifo(file) if kind == "pipe" else file.symlink_to("/dev/zero")
    with pytest.raises(RunError, match="a pipe, a socket or a device"):
        summarise(RunDirectory(path), draws=100)
