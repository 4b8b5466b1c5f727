"""Worker processes: their parent alone answers Ctrl-C, and none outlives it."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time

import pytest

from mer_flow.databases import get_database
from mer_flow.work.errors import UsageError, WorkerError
from mer_flow.work.executor import WorkerPool, run_all

#: Starts a worker, names it, and waits for a signal.
PARENT = (
    "import os, sys, time\n"
    "from mer_flow.work.executor import WorkerPool\n"
    "pool = WorkerPool(1, int)\n"
    "print(pool.submit(os.getpid).result(), flush=True)\n"
    "time.sleep(120)\n"
)


def test_results_come_back_whatever_their_number() -> None:
    assert sorted(run_all(abs, range(-40, 0), 2, int)) == list(range(1, 41))
    assert list(run_all(abs, [], 2, int)) == []


def test_a_worker_that_cannot_start_says_why() -> None:
    with pytest.raises(UsageError, match="did you mean 'samm'"):
        list(run_all(abs, [-1], 1, get_database, ("sam",)))


def test_a_killed_worker_is_named_as_such() -> None:
    with pytest.raises(WorkerError, match="fewer --workers"):
        list(run_all(os._exit, [1], 1, int))


def test_workers_leave_ctrl_c_to_their_parent() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with WorkerPool(1, int) as pool:
        blocked = pool.submit(functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK, [])).result()
    assert signal.SIGINT in blocked
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.send_signal(how)
        start = time.monotonic()
        # the worker holds the pipe's other end: it closes when the worker ends
        parent.communicate(timeout=30)
        assert time.monotonic() - start < 20
