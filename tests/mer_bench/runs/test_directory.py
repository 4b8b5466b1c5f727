"""Runs on disk: atomic records, damage found and named, one writer, one configuration."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench.errors import RunError
from mer_bench.runs.directory import RunDirectory, write_atomically
from mer_bench.training.result import FoldResult

Make = Callable[..., FoldResult]
FOLDS = {"samm/006": [0, 1], "samm/007": [2, 3, 4]}


def manifest(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "schema_version": 1,
        "digest": "d" * 64,
        "model": "net",
        "protocol": "loso",
        "identity": {"model": "net", "recipe": {"lr": 0.1}},
        "seeds": [0, 1],
        "classes": ["n", "p", "s"],
        "versions": {"torch": "2.13"},
        "samples": {
            "sample_ids": [f"samm/00{6 + (i > 1)}/c{i}" for i in range(5)],
            "subjects": [f"samm/00{6 + (i > 1)}" for i in range(5)],
            "databases": ["samm"] * 5,
            "labels": [0, 1, 2, 0, 1],
        },
        "folds": [
            {"name": name, "train": [i for i in range(5) if i not in test], "test": test, "inner": []}
            for name, test in FOLDS.items()
        ],
    }
    return {**content, **changes}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create_or_resume(tmp_path, manifest())


def result(record: Make, fold: str = "samm/006", seed: int = 0) -> FoldResult:
    return record(fold, FOLDS[fold], [[0] * len(FOLDS[fold]), [1] * len(FOLDS[fold])], seed=seed)


def test_a_record_comes_back_as_it_was(run: RunDirectory, record: Make) -> None:
    written = result(record)
    run.write(written)
    back = run.read(0, "samm/006")
    for name, value in vars(written).items():
        np.testing.assert_array_equal(getattr(back, name), value)
    assert run.record_path(0, "samm/006").name == "samm%2F006.npz"
    assert not list(run.path.rglob("*.tmp"))


def test_records_hold_no_pickle(run: RunDirectory, record: Make) -> None:
    run.write(result(record))
    with np.load(run.record_path(0, "samm/006"), allow_pickle=False) as file:
        assert json.loads(str(file["meta"]))["versions"] == {"torch": "2.13"}
        assert {file[name].dtype.kind for name in file.files} <= {"f", "i", "U"}


def test_status_lists_what_is_done_and_missing(run: RunDirectory, record: Make) -> None:
    run.write(result(record))
    status = run.status()
    assert status.done == {0: ("samm/006",), 1: ()}
    assert status.missing == {0: ("samm/007",), 1: ("samm/006", "samm/007")}
    assert not status.complete
    assert status.describe_gaps() == (
        "seed 0: 1 of 2 missing: samm/007; seed 1: 2 of 2 missing: samm/006, samm/007"
    )


def test_notes_are_kept_and_grouped_by_what_they_say(run: RunDirectory, record: Make) -> None:
    run.write(replace(result(record), notes=("odd", "hot")))
    run.write(replace(result(record, "samm/007"), notes=("odd",)))
    notes = RunDirectory(run.path).status().notes[0]
    assert notes == (("samm/006", "odd"), ("samm/006", "hot"), ("samm/007", "odd"))
    assert run.describe_notes(notes) == ("fold 'samm/006', 'samm/007': odd", "fold 'samm/006': hot")


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "garbage"])
def test_a_damaged_record_is_found_and_named(run: RunDirectory, record: Make, damage: str) -> None:
    run.write(result(record))
    path = run.record_path(0, "samm/006")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        with np.load(path) as file:
            needle = file["logits"].tobytes()
        content[content.find(needle) + 5] ^= 0xFF
    path.write_bytes({"truncate": content[:-200], "empty": b"", "garbage": b"x" * 300}.get(damage, content))
    ((fold, reason),) = run.status().damaged[0]
    assert fold == "samm/006"
    assert str(path) in reason and "damaged" in reason
    aside = run.set_aside(0, fold)
    assert aside.exists() and not path.exists()
    assert run.status().missing[0] == ("samm/006", "samm/007")


def test_a_record_of_another_run_seed_or_fold_is_refused(
    run: RunDirectory, record: Make, tmp_path: Path
) -> None:
    other = RunDirectory.create_or_resume(tmp_path, manifest(digest="e" * 64))
    other.write(result(record))
    target = run.record_path(0, "samm/006")
    target.parent.mkdir(parents=True)
    target.write_bytes(other.record_path(0, "samm/006").read_bytes())
    with pytest.raises(RunError, match=r"configuration eeee.*expected.*dddd"):
        run.read(0, "samm/006")
    run.write(result(record))
    moved = run.record_path(1, "samm/006")
    moved.parent.mkdir(parents=True)
    moved.write_bytes(target.read_bytes())
    with pytest.raises(RunError, match="expected fold 'samm/006', seed 1"):
        run.read(1, "samm/006")


def test_a_record_that_does_not_fit_is_never_written(run: RunDirectory, record: Make) -> None:
    with pytest.raises(RunError, match="no such fold"):
        run.write(record("samm/999", [0], [[0]]))
    with pytest.raises(RunError, match="other test samples"):
        run.write(record("samm/006", [0, 2], [[0, 0]]))
    with pytest.raises(RunError, match=r"logits have shape \(1, 2, 4\)"):
        run.write(record("samm/006", [0, 1], [[0, 0]], classes=4))
    nan = result(record)
    nan.logits[0, 0, 0] = np.nan
    with pytest.raises(RunError, match="not finite"):
        run.write(nan)
    assert not list(run.path.rglob("*.npz"))


def test_a_directory_of_another_configuration_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    other = manifest(digest="d" * 12 + "f" * 52, identity={"model": "net", "recipe": {"lr": 0.2}})
    with pytest.raises(RunError, match=r"another configuration \(recipe\.lr: 0\.1 there, 0\.2 asked for\)"):
        RunDirectory.create_or_resume(tmp_path, other)
    assert RunDirectory(run.path).digest == "d" * 64


def test_more_seeds_extend_the_run(run: RunDirectory, record: Make, tmp_path: Path) -> None:
    run.write(result(record))
    again = RunDirectory.create_or_resume(tmp_path, manifest(seeds=[5]))
    assert again.seeds == (0, 1, 5)
    assert again.status().done[0] == ("samm/006",)
    assert RunDirectory.create_or_resume(tmp_path, manifest(seeds=[1])).seeds == (0, 1, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no run directory"),
        ("{", "cannot be read"),
        ('{"schema_version": 99}', "schema version 99"),
        ('{"schema_version": 1}', "lacks digest"),
    ],
)
def test_a_bad_manifest_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=message):
        RunDirectory(tmp_path)


def test_records_without_a_manifest_are_not_adopted(run: RunDirectory, record: Make, tmp_path: Path) -> None:
    run.write(result(record))
    (run.path / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"no manifest\.json"):
        RunDirectory.create_or_resume(tmp_path, manifest())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_loses_nothing(
    run: RunDirectory, record: Make, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    run.write(result(record))

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match="Free some space" if code == errno.ENOSPC else "Mend that"):
        run.write(result(record, "samm/007"))
    monkeypatch.undo()
    assert not list(run.path.rglob("*.tmp"))
    assert run.status().done[0] == ("samm/006",)
    run.write(result(record, "samm/007"))
    assert not run.status().missing[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_really_full_device_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file.tmp").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"No space left on device\. Free some space"):
        write_atomically(tmp_path / "file", b"x" * 100)
    assert not (tmp_path / "file").exists()


def test_only_one_process_writes(run: RunDirectory) -> None:
    code = (
        "import sys; from pathlib import Path; from mer_bench.runs.directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).lock():\n"
        "    print('held', flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"written by process {other.pid}"), run.lock():
            pass
        assert run.status().writer == other.pid
        other.kill()
        other.wait()
    assert run.status().writer is None
    with run.lock():
        assert run.status().writer == os.getpid()
        with pytest.raises(RunError, match="being written"), RunDirectory(run.path).lock():
            pass
    assert run.status().writer is None


def test_what_a_killed_process_left_is_swept(run: RunDirectory) -> None:
    leftover = run.record_path(0, "samm/006").with_suffix(".npz.tmp")
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    with run.lock():
        assert not leftover.exists()
