"""Files and folders that exist whole or not at all, whatever was killed before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mer_flow.work.errors import UsageError
from mer_flow.work.files import new_file, new_folder, scratch_folder, size_of

GROWING = (
    "import sys, time; from pathlib import Path; from mer_flow.work.files import {name}\n"
    "with {name}({argument}) as part:\n"
    "    (part / 'half' if part.is_dir() else part).write_text('half'); print('begun', flush=True)\n"
    "    sys.stdin.read()"
)


def begun(name: str, argument: str, **environment: str) -> subprocess.Popen[str]:
    """Another process in the middle of such a block."""
    words = [sys.executable, "-c", GROWING.format(name=name, argument=argument)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(words, text=True, env=environment or None, **pipes)  # type: ignore[call-overload]
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("name", ["new_file", "new_folder"])
def test_one_process_writes_and_the_next_finds_nothing_of_a_killed_one(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make = {"new_file": new_file, "new_folder": new_folder}[name]
    with begun(name, f"Path({str(out)!r})") as other:
        with pytest.raises(UsageError, match=rf"out is being written by pid {other.pid} on "), make(out):
            pass
        other.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.iterdir())) == 2  # what was begun, and its lock
    with make(out) as part:
        assert not part.exists() or not any(part.iterdir())
        (part / "whole" if part.is_dir() else part).write_text("whole")
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["new_file", "new_folder"])
def test_an_error_leaves_nothing(name: str, tmp_path: Path) -> None:
    make = {"new_file": new_file, "new_folder": new_folder}[name]
    with pytest.raises(ZeroDivisionError), make(tmp_path / "out"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_scratch_folder_takes_the_leftovers_of_killed_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with begun("scratch_folder", "'bench'", TMPDIR=str(tmp_path)) as other:
        with scratch_folder("bench") as mine:
            assert len(list(tmp_path.glob("*/half"))) == 1, "a living process keeps its folder"
        assert not mine.exists()
        other.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob("*/half"))
    with scratch_folder("bench") as mine:
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [mine.name]
    assert not list(tmp_path.iterdir())


def test_only_a_file_has_a_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert size_of(tmp_path / "file") == 3
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(OSError, match="a pipe, a socket or a device"):
            size_of(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        size_of(tmp_path / "nothing")
