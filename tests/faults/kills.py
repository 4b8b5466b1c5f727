"""Kill our own code where it writes, let it run again, and see that nothing is lost and nothing is left.

A *point* is the moment before or after a call that changes the disk: a write, flush, fsync, rename, removal,
link or new folder, by Python, the operating system's functions or h5py. They are counted in the process that
writes.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.faults.trials import Trials

#: Seconds that workers have to notice that their parent is gone.
GRACE = 10.0
#: Seconds after which a child counts as hanging; it ends by SIGABRT.
PATIENCE = 120.0

MODULES = {"mer-flow": "mer_flow.cli", "mer-bench": "mer_bench.cli", "ahmsa": "ahmsa_model.cli"}

_SYSTEM = frozenset({"fsync", "fdatasync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "link"})
_STREAM = frozenset({"write", "writelines", "flush", "truncate", "close"})
_HDF5 = frozenset({"create_dataset", "create_group", "__setitem__", "create", "flush", "close"})


@dataclass(frozen=True)
class Ended:
    """How a child process ended.

    Attributes:
        signal: What killed it; 0 where it ended by itself.
        answer: What its work returned or raised; None where it was killed.
        points: How many points it passed; 0 where it was killed or they were not counted.
        orphans: Processes that it started and that were alive `GRACE` seconds after it.
        said: What it printed.
    """

    signal: int
    answer: Any
    points: int
    orphans: int
    said: str


def command(program: str, *words: object) -> Callable[[], int]:
    """Return work that runs a command line of ours and returns its exit code."""

    def run() -> int:
        sys.argv = [program, *map(str, words)]
        try:
            importlib.import_module(MODULES[program]).main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


def in_child(
    work: Callable[[], Any],
    point: int = 0,
    after: float = 0.0,
    scratch: Path | None = None,
    counted: bool = False,
) -> Ended:
    """Run work in a forked child, killed at its n-th point or after so many seconds; never for 0.

    Args:
        work: Called without arguments in the child; what it returns is pickled.
        point: From 1.
        after: Seconds, from the beginning of the work; the kernel ends the child wherever it is.
        counted: Count its points, which takes half as long again.
        scratch: Folder for the child's temporary files.
    """
    read, write = os.pipe()
    with tempfile.TemporaryFile() as printed:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.close(read)
            os.setsid()  # its workers can be told by the session
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            sys.stdout = sys.stderr = os.fdopen(2, "w", closefd=False)  # pytest holds other ones
            if scratch is not None:
                os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
            watched = counted or point > 0
            os.write(write, pickle.dumps(_worked(work, point, after, watched)))
            os._exit(0)
        os.close(write)
        watch = threading.Timer(PATIENCE, os.kill, (child, signal.SIGABRT))
        watch.start()
        with os.fdopen(read, "rb") as pipe:
            content = pipe.read()
        status = os.waitpid(child, 0)[1]
        watch.cancel()
        orphans = alive(child)
        printed.seek(0)
        said = printed.read().decode(errors="replace")
    answer, points = pickle.loads(content) if content else (None, 0)
    return Ended(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, answer, points, orphans, said)


def _worked(work: Callable[[], Any], point: int, after: float, watched: bool) -> tuple[Any, int]:
    count = 0

    def profile(frame: FrameType, kind: str, argument: Any) -> None:
        nonlocal count
        if _changes_disk(frame, kind, argument):
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

    if after:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, after)
    if watched:
        threading.setprofile(profile)
        sys.setprofile(profile)
    answer: Any
    try:
        answer = work()
    except BaseException as error:
        answer = error
    finally:
        sys.setprofile(None)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return answer, count


def _changes_disk(frame: FrameType, kind: str, argument: Any) -> bool:
    if kind in ("c_call", "c_return"):
        name, owner = argument.__name__, argument.__self__
        if name in _SYSTEM:
            return owner is sys.modules[os.name]
        return (
            name in _STREAM
            and isinstance(owner, io.IOBase)
            and not isinstance(owner, io.BytesIO | io.StringIO)
        )
    return frame.f_code.co_name in _HDF5 and "h5py" in frame.f_code.co_filename


def alive(session: int) -> int:
    """Count a session's processes once they had time to end."""
    deadline = time.monotonic() + GRACE
    while (count := sum(_session(path) == session for path in Path("/proc").glob("[0-9]*"))) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    return count


def _session(process: Path) -> int:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[3])


@dataclass
class Campaign:
    """Work that is killed over and over, each time in a fresh folder, and then run again until it ends.

    Attributes:
        prepare: Puts into an empty folder what the work begins with, and returns the work.
        result: What must be the same however often it was killed, as a store's bytes.
        kills: Kills so far.
        wrong: What went wrong, one line each.
        orphans: Processes that outlived a kill.
        left: Files that an uninterrupted pass does not leave, locks included, and files that are missing.
        lost: Second passes that failed or had another result.
    """

    prepare: Callable[[Path], Callable[[], Any]]
    result: Callable[[Path], Any]
    kills: int = 0
    wrong: list[str] = field(default_factory=list)
    orphans: int = 0
    left: int = 0
    lost: int = 0

    def run(self, folder: Path, trials: Trials, again: Callable[[Path], None] = lambda folder: None) -> None:
        """Kill the work at some of its points and, a quarter as often, at random times.

        Args:
            folder: For the trials, one folder each.
            trials: How many kills at points.
            again: Called between the kill and the second pass, with the folder: what a reader sees meanwhile.
        """
        whole, names, points = self._pass(folder / "counted", counted=True)
        began = time.monotonic()
        self._pass(folder / "timed")
        seconds = time.monotonic() - began
        rng = random.Random(1)
        times = [rng.uniform(0.01, 0.9) * seconds for _ in range(400)]
        for point in trials.among(range(1, points + 1)):
            self._trial(folder, f"at point {point} of {points}", again, whole, names, point=point)
        for after in trials.among(times, max(1, trials.wanted // 4)):
            self._trial(folder, f"after {after:.3f} s", again, whole, names, after=after)
        found = {"orphans": self.orphans, "files left": self.left, "lost": self.lost}
        trials.end(self.kills, {"points": len(trials.mine(range(points))), **found}, self.wrong)

    def _pass(self, folder: Path, counted: bool = False) -> tuple[Any, list[str], int]:
        (folder / "tmp").mkdir(parents=True)
        ended = in_child(self.prepare(folder), scratch=folder / "tmp", counted=counted)
        assert ended.answer in (0, None), f"{ended.answer!r}\n{ended.said}"
        assert ended.orphans == 0
        return self.result(folder), _names(folder), ended.points

    def _trial(
        self,
        folder: Path,
        where: str,
        again: Callable[[Path], None],
        whole: Any,
        names: Sequence[str],
        **kill: Any,
    ) -> None:
        own = Path(tempfile.mkdtemp(dir=folder))
        (own / "tmp").mkdir()
        work = self.prepare(own)
        ended = in_child(work, scratch=own / "tmp", **kill)
        self.kills += ended.signal != 0
        again(own)
        second = in_child(work, scratch=own / "tmp")
        if ended.orphans:
            self.orphans += ended.orphans
            self.wrong.append(f"{where}: {ended.orphans} orphan(s)")
        if second.signal or second.answer not in (0, None):
            self.lost += 1
            self.wrong.append(f"{where}: run again: {second.answer!r} {second.said[-300:]}")
            return
        if self.result(own) != whole:
            self.lost += 1
            self.wrong.append(f"{where}: another result")
        if left := sorted(set(_names(own)) ^ set(names)):
            self.left += len(left)
            self.wrong.append(f"{where}: files differ: {left}")
        shutil.rmtree(own)


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
