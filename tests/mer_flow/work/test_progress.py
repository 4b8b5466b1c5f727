"""Progress on a terminal, in a log, and nowhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from mer_flow.work import progress
from mer_flow.work.progress import Progress

SHOW = """
import time
from mer_flow.work.progress import Progress
with Progress("build casme2", 1234, "samples") as bar:
    for step in range(3):
        bar.advance(note="[casme2]/sub01/" + step * "a clip with a very long name ")
        time.sleep(0.4)
print("done")
"""


def test_plain_lines_say_count_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    stream = io.StringIO()
    with Progress("run", 2000, "fold-epochs", stream) as bar:
        bar.advance(1500, "fold 3")
        bar.reach(2000)
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"run: 1,500/2,000 fold-epochs, [\d,]+/s, \d+ s left  fold 3", first)
    assert second.startswith("run: 2,000/2,000 fold-epochs, ") and second.endswith("0 s left")


def test_plain_lines_are_rare() -> None:
    stream = io.StringIO()
    with Progress("run", 100, stream=stream) as bar:
        for _ in range(100):
            bar.advance()
    assert stream.getvalue() == "" and bar.done == 100


def test_who_does_the_work_may_tell_how_much_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    stream = io.StringIO()
    with Progress("build samm", stream=stream) as bar:
        bar.expect(2, already=5)
        bar.advance()
    assert stream.getvalue().startswith("build samm: 5 are there already, 2 to do\nbuild samm: 1/2, ")


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    stream = io.StringIO()
    with Progress("run", stream=stream, quiet=True) as bar:
        bar.expect(2, already=5)
        bar.advance()
    assert stream.getvalue() == "" and bar.done == 1


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_has_one_line_that_never_wraps_and_vanishes(columns: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    words = [sys.executable, "-c", SHOW]
    with subprocess.Popen(
        words, stdout=theirs, stderr=theirs, stdin=theirs, env=clean | {"TERM": "xterm"}
    ) as child:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 65536):
                shown += block
        except OSError:  # how Linux ends a terminal
            pass
    os.close(ours)
    assert child.returncode == 0, shown
    bare = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()
    lines = [line for line in re.split(r"[\r\n]+", bare) if line]
    assert max(map(len, lines)) <= columns
    assert any(line.startswith("build casme2: 2/1,234 sam") for line in lines)
    assert shown.count(b"\n") <= 2  # all on one line, but for what is printed after it
    assert lines[-1] == "done" and b"\x1b[2K" in shown
