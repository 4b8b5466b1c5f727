"""Work spread over processes: results, deaths told from innocence, and no orphans."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import pytest

from mer_flow.work.errors import WorkerError
from mer_flow.work.executor import InThisProcess, LocalProcesses, local_executor, run_all, tick, usable_cores

#: Starts a worker, names it, and waits for a signal.
PARENT = """
import os, time
from mer_flow.work.executor import LocalProcesses
if __name__ == "__main__":
    pool = LocalProcesses(1)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(120)
"""


def half(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    tick(number)
    return number // 2


def die(number: int, culprit: int, how: Callable[[], Any]) -> int:
    if number == culprit:
        how()
    return number


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(number: int, folder: Path) -> int:
    if number == 0 and not (folder / "died").exists():
        (folder / "died").touch()
        kill_me()
    return number


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def results(executor: Executor, function: Callable[[int], Any], count: int, **options: Any) -> dict[int, Any]:
    def read(future: Future[Any]) -> Any:
        error = future.exception()
        return f"{type(error).__name__}: {error}" if error else future.result()

    with executor:
        return {task: read(future) for task, future in run_all(executor, function, range(count), **options)}


@pytest.mark.parametrize("workers", [1, 2])
def test_results_and_errors_belong_to_their_tasks(workers: int) -> None:
    executor = local_executor(workers)
    assert isinstance(executor, InThisProcess if workers == 1 else LocalProcesses)
    told: list[int] = []
    found = results(executor, half, 20, on_tick=told.append)
    assert found == {n: f"ValueError: {n} is odd" if n % 2 else n // 2 for n in range(20)}
    assert executor.ticks() == sum(range(0, 20, 2)) and told == sorted(told)
    assert results(local_executor(workers), half, 0) == {}
    assert local_executor().workers == usable_cores()


def test_a_tick_outside_an_executor_counts_nowhere() -> None:
    tick()
    assert InThisProcess().ticks() == 0


@pytest.mark.parametrize(
    ("how", "told"), [(kill_me, "was killed by SIGKILL"), (functools.partial(os._exit, 3), "exit code 3")]
)
def test_the_task_that_kills_workers_is_named_and_bystanders_survive(
    how: Callable[[], None], told: str
) -> None:
    found = results(LocalProcesses(2), functools.partial(die, culprit=3, how=how), 12)
    reason = found.pop(3)
    assert reason.startswith("WorkerError: ") and told in reason and "fewer --workers" in reason
    assert found == {n: n for n in range(12) if n != 3}


def test_a_task_whose_worker_died_is_tried_again(tmp_path: Path) -> None:
    found = results(LocalProcesses(2), functools.partial(die_once, folder=tmp_path), 8)
    assert (tmp_path / "died").exists() and found == {n: n for n in range(8)}


class Crew(Executor):
    """Breaks once, with all that it was given; else ends one task at every second look at it."""

    workers = 2

    def __init__(self) -> None:
        self.open: dict[Future[int], int] = {}
        self.company: dict[int, int] = {}
        self.looks = 0

    def submit(self, fn: Callable[..., int], /, *args: Any, **kwargs: Any) -> Future[int]:
        future: Future[int] = Future()
        self.open[future] = args[0]
        for task in self.open.values():
            self.company[task] = max(self.company.get(task, 0), len(self.open))
        return future

    def ticks(self) -> int:
        self.looks += 1
        if self.looks == 1:
            self.suspects = sorted(self.open.values())
            for future in self.open:
                future.set_exception(BrokenExecutor())
            self.open, self.company = {}, {}
        elif self.looks % 2 and self.open:
            future = next(iter(self.open))
            future.set_result(self.open.pop(future))
        return self.looks


def test_a_suspect_has_no_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mer_flow.work.executor._LOOK_EVERY", 0.01)
    crew = Crew()
    assert results(crew, abs, 20, on_tick=lambda _: None) == {n: n for n in range(20)}
    assert crew.suspects == [0, 1, 2, 3, 4, 5]
    assert {task for task, others in crew.company.items() if others == 1} >= set(crew.suspects)
    assert max(crew.company.values()) > 1


def test_what_is_left_is_cancelled_with_the_generator() -> None:
    executor = InThisProcess()
    running = run_all(executor, half, range(0, 100, 2))
    assert next(running)[0] == 0
    running.close()
    assert executor.ticks() == 0


def test_workers_leave_ctrl_c_to_their_parent() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with LocalProcesses(1) as pool:
        blocked = pool.submit(functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK, [])).result()
    assert signal.SIGINT in blocked
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_an_error_ends_the_workers_at_once() -> None:
    with pytest.raises(ZeroDivisionError), LocalProcesses(1) as pool:
        worker = pool.submit(os.getpid).result()
        pool.submit(time.sleep, 600)
        raise ZeroDivisionError
    assert not is_alive(worker)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_alive(worker)
        parent.send_signal(how)
        # the worker holds the pipe's other end: it closes when the worker ends
        parent.communicate(timeout=60)


def test_a_lost_task_raises_an_error_of_ours() -> None:
    with LocalProcesses(1) as pool:
        ((_, future),) = run_all(pool, functools.partial(die, culprit=0, how=kill_me), [0])
        with pytest.raises(WorkerError):
            future.result()
        assert pool.submit(half, 4).result() == 2  # a fresh pool has taken over
