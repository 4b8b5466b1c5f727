"""Locks between processes, and within one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mer_flow.work.errors import LockHeldError
from mer_flow.work.lock import hold, holder

HOLD = (
    "import sys, time; from pathlib import Path; from mer_flow.work.lock import hold\n"
    "with hold(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until its input ends."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "x.lock")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_another_process_is_kept_out_and_the_holder_named(
    other: subprocess.Popen[str], tmp_path: Path
) -> None:
    path = tmp_path / "x.lock"
    for _ in range(2):  # asking leaves the holder's name in place
        with pytest.raises(LockHeldError, match=rf"^pid {other.pid} on "), hold(path):
            pass
        assert f"pid {other.pid} on " in (holder(path) or "")
    other.communicate("")
    assert not path.exists() and holder(path) is None
    with hold(path):
        pass


def test_a_killed_holder_holds_nothing(other: subprocess.Popen[str], tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    other.kill()
    other.communicate()
    assert holder(path) is None
    with hold(path):
        assert f"pid {os.getpid()} on " in path.read_text()
    assert not path.exists()


def test_a_second_place_in_one_process_is_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with hold(path):
        with pytest.raises(LockHeldError, match=str(os.getpid())), hold(path):
            pass
        assert str(os.getpid()) in (holder(path) or "")
    with hold(path):
        pass


def test_an_error_within_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with pytest.raises(ZeroDivisionError), hold(path):
        raise ZeroDivisionError
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError), hold(tmp_path / "file" / "x.lock"):
        pass
