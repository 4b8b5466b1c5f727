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
from mer_bench.models.majority import SPECS
from mer_bench.models.registry import Registered
from mer_bench.protocols.folds import Population
from mer_bench.recipe import Recipe
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory, write_atomically, writing
from mer_bench.runs.manifest import RunManifest, read_manifest
from mer_bench.runs.train import prepare_data
from mer_bench.settings import Request, RunSettings
from mer_bench.training.result import FoldResult

Make = Callable[..., FoldResult]
FOLDS = {"samm/s00": [0, 1], "samm/s01": [2, 3]}


@pytest.fixture(scope="module")
def written(populate: Callable[..., Population]) -> RunManifest:
    """The manifest of a run of two folds and two seeds."""
    data = BenchData(np.zeros((4, 3, 4, 4), np.float32), populate(2, 2, ["samm"]), "whole-28", "raw")
    request = Request(RunSettings(model="majority", protocol="loso", db="samm", seeds=(0, 1)))
    return prepare_data(Registered(SPECS[0], "test 1.0"), request, data).manifest


@pytest.fixture
def run(tmp_path: Path, written: RunManifest) -> RunDirectory:
    return RunDirectory.create_or_resume(tmp_path, written)


def result(record: Make, fold: str = "samm/s00", seed: int = 0) -> FoldResult:
    return record(fold, FOLDS[fold], [[0] * len(FOLDS[fold]), [1] * len(FOLDS[fold])], seed=seed)


def with_recipe(manifest: RunManifest, lr: float) -> RunManifest:
    identity = manifest.identity.model_copy(update={"recipe": Recipe(lr=lr)})
    return manifest.model_copy(update={"identity": identity, "digest": identity.digest()}).sealed()


def test_a_manifest_comes_back_as_it_was(run: RunDirectory, written: RunManifest) -> None:
    assert read_manifest(run.path) == run.manifest == written
    assert run.path.name == f"majority-loso-{written.identity.digest()[:12]}"
    assert {fold.name: list(fold.test) for fold in run.manifest.folds} == FOLDS
    np.testing.assert_array_equal(run.column("subjects"), ["samm/s00"] * 2 + ["samm/s01"] * 2)


def test_a_record_comes_back_as_it_was(run: RunDirectory, record: Make) -> None:
    written = result(record)
    run.write(written)
    back = run.read(0, "samm/s00")
    for name, value in vars(written).items():
        np.testing.assert_array_equal(getattr(back, name), value)
    assert run.record_path(0, "samm/s00").name == "samm%2Fs00.npz"
    assert not list(run.path.rglob("*.tmp"))


def test_records_hold_no_pickle(run: RunDirectory, record: Make) -> None:
    run.write(result(record))
    with np.load(run.record_path(0, "samm/s00"), allow_pickle=False) as file:
        assert json.loads(str(file["meta"]))["versions"] == run.manifest.versions
        assert {file[name].dtype.kind for name in file.files} <= {"f", "i", "U"}


def test_status_lists_what_is_done_and_missing(run: RunDirectory, record: Make) -> None:
    run.write(result(record))
    status = run.status()
    assert status.done == {0: ("samm/s00",), 1: ()}
    assert status.missing == {0: ("samm/s01",), 1: ("samm/s00", "samm/s01")}
    assert not status.complete
    assert status.describe_gaps() == (
        "seed 0: 1 of 2 missing: samm/s01; seed 1: 2 of 2 missing: samm/s00, samm/s01"
    )


def test_notes_are_kept_and_grouped_by_what_they_say(run: RunDirectory, record: Make) -> None:
    run.write(replace(result(record), notes=("odd", "hot")))
    run.write(replace(result(record, "samm/s01"), notes=("odd",)))
    notes = RunDirectory(run.path).status().notes[0]
    assert notes == (("samm/s00", "odd"), ("samm/s00", "hot"), ("samm/s01", "odd"))
    assert run.describe_notes(notes) == ("fold 'samm/s00', 'samm/s01': odd", "fold 'samm/s00': hot")


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "garbage"])
def test_a_damaged_record_is_found_and_named(run: RunDirectory, record: Make, damage: str) -> None:
    run.write(result(record))
    path = run.record_path(0, "samm/s00")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        with np.load(path) as file:
            needle = file["logits"].tobytes()
        content[content.find(needle) + 5] ^= 0xFF
    path.write_bytes({"truncate": content[:-200], "empty": b"", "garbage": b"x" * 300}.get(damage, content))
    ((fold, reason),) = run.status().damaged[0]
    assert fold == "samm/s00"
    assert str(path) in reason and "damaged" in reason
    aside = run.set_aside(0, fold)
    assert aside.exists() and not path.exists()
    assert run.status().missing[0] == ("samm/s00", "samm/s01")


def test_a_record_of_another_run_seed_or_fold_is_refused(
    run: RunDirectory, record: Make, tmp_path: Path, written: RunManifest
) -> None:
    other = RunDirectory.create_or_resume(tmp_path, with_recipe(written, 0.1))
    other.write(result(record))
    target = run.record_path(0, "samm/s00")
    target.parent.mkdir(parents=True)
    target.write_bytes(other.record_path(0, "samm/s00").read_bytes())
    with pytest.raises(
        RunError, match=f"configuration {other.manifest.digest[:12]}.*expected.*{written.digest[:12]}"
    ):
        run.read(0, "samm/s00")
    run.write(result(record))
    moved = run.record_path(1, "samm/s00")
    moved.parent.mkdir(parents=True)
    moved.write_bytes(target.read_bytes())
    with pytest.raises(RunError, match="expected fold 'samm/s00', seed 1"):
        run.read(1, "samm/s00")


def test_a_record_that_does_not_fit_is_never_written(run: RunDirectory, record: Make) -> None:
    with pytest.raises(RunError, match="no such fold"):
        run.write(record("samm/999", [0], [[0]]))
    with pytest.raises(RunError, match="other test samples"):
        run.write(record("samm/s00", [0, 2], [[0, 0]]))
    with pytest.raises(RunError, match=r"logits have shape \(1, 2, 4\)"):
        run.write(record("samm/s00", [0, 1], [[0, 0]], classes=4))
    nan = result(record)
    nan.logits[0, 0, 0] = np.nan
    with pytest.raises(RunError, match="not finite"):
        run.write(nan)
    assert not list(run.path.rglob("*.npz"))


def test_a_directory_of_another_configuration_is_refused(tmp_path: Path, written: RunManifest) -> None:
    one, other = (with_recipe(written, lr) for lr in (0.1, 0.2))
    path = RunDirectory.create_or_resume(tmp_path, one).path.rename(other.path(tmp_path))
    with pytest.raises(RunError, match=r"another configuration \(recipe\.lr: 0\.1 there, 0\.2 asked for\)"):
        RunDirectory.create_or_resume(tmp_path, other)
    assert read_manifest(path) == one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"headline": "tail"}, "began with headline last, asked for is tail; .* give --headline last"),
        ({"tail_epochs": 3}, "began with tail_epochs left open, asked for is 3; .* leave --tail-epochs out"),
    ],
)
def test_a_headline_is_fixed_when_a_run_begins(
    run: RunDirectory, tmp_path: Path, written: RunManifest, change: dict[str, Any], message: str
) -> None:
    other = written.model_copy(update={"settings": written.settings.changed(**change)})
    assert other.identity.digest() == written.digest
    with pytest.raises(RunError, match=message):
        RunDirectory.create_or_resume(tmp_path, other)
    assert read_manifest(run.path) == written


def test_what_was_decided_comes_back(run: RunDirectory, record: Make) -> None:
    members = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)
    decided = {"weights": {"a": 0.25, "b": 0.75}}
    run.write(replace(result(record), members=members, decided=decided))
    back = run.read(0, "samm/s00")
    np.testing.assert_array_equal(back.members, members)
    assert back.decided == decided
    with pytest.raises(RunError, match=r"members are of shape \(3, 1, 3\)"):
        run.write(replace(result(record), members=members[:, :1]))


def test_more_seeds_extend_the_run_and_nothing_else_of_it(
    run: RunDirectory, record: Make, tmp_path: Path, written: RunManifest
) -> None:
    run.write(result(record))
    later = {"created": "later", "commit": "another", "seeds": (5,), "versions": {"torch": "9"}}
    again = RunDirectory.create_or_resume(tmp_path, written.model_copy(update=later))
    assert again.manifest == written.model_copy(update={"seeds": (0, 1, 5)})
    assert again.versions == {"torch": "9"}
    assert again.status().done[0] == ("samm/s00",)
    assert RunDirectory.create_or_resume(tmp_path, written).seeds == (0, 1, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "no run directory"),
        ("{", "cannot be read"),
        ("[]", "schema version None"),
        ({"schema_version": 99}, "schema version 99"),
        ({"digest": ..., "folds": ...}, "lacks digest, folds"),
        ({"classes": 3}, "a wrong classes"),
        ({"strange": 3}, "a wrong strange"),
        ({"identity": {}}, r"lacks identity\.model"),
    ],
)
def test_a_bad_manifest_is_named(tmp_path: Path, written: RunManifest, change: Any, message: str) -> None:
    if isinstance(change, dict):
        content = {**json.loads(written.to_json()), **change}
        change = json.dumps({key: value for key, value in content.items() if value is not ...})
    if change is not None:
        (tmp_path / "manifest.json").write_text(change)
    with pytest.raises(RunError, match=message) as refusal:
        RunDirectory(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1


def test_records_without_a_manifest_are_not_adopted(
    run: RunDirectory, record: Make, tmp_path: Path, written: RunManifest
) -> None:
    run.write(result(record))
    (run.path / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"no manifest\.json"):
        RunDirectory.create_or_resume(tmp_path, written)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_loses_nothing(
    run: RunDirectory, record: Make, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    run.write(result(record))

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunError, match="Free some space" if code == errno.ENOSPC else "Mend that"):
        run.write(result(record, "samm/s01"))
    monkeypatch.undo()
    assert not list(run.path.rglob("*.tmp"))
    assert run.status().done[0] == ("samm/s00",)
    run.write(result(record, "samm/s01"))
    assert not run.status().missing[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_really_full_device_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file.tmp").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"No space left on device\. Free some space"):
        write_atomically(tmp_path / "file", b"x" * 100)
    assert not (tmp_path / "file").exists()


def test_only_one_process_writes(run: RunDirectory, tmp_path: Path, written: RunManifest) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from mer_bench.runs.directory import writing; from mer_bench.runs.manifest import read_manifest\n"
        "path = Path(sys.argv[1])\n"
        "with writing(path.parent, read_manifest(path)) as run:\n"
        # Looking who writes must not let go of the lock.
        "    print(run.status().writer, flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline().startswith(f"pid {other.pid} on ")
        before = (run.path / "manifest.json").read_bytes()
        for _ in range(2):
            grown = written.model_copy(update={"seeds": (7,)})
            with (
                pytest.raises(RunError, match=f"is being written by pid {other.pid} on .*mer-bench status"),
                writing(tmp_path, grown),
            ):
                pass
            assert str(run.status().writer).startswith(f"pid {other.pid} on ")
        assert (run.path / "manifest.json").read_bytes() == before
        other.kill()
        other.wait()
    assert run.status().writer is None
    with writing(tmp_path, written):
        assert str(run.status().writer).startswith(f"pid {os.getpid()} on ")
        with pytest.raises(RunError, match="being written"), writing(tmp_path, written):
            pass
    assert run.status().writer is None


def test_what_a_killed_process_left_is_swept(run: RunDirectory, tmp_path: Path, written: RunManifest) -> None:
    leftover = run.record_path(0, "samm/s00").with_suffix(".npz.tmp")
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    with writing(tmp_path, written):
        assert not leftover.exists()
