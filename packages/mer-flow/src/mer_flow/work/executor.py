"""Where work runs: here, in processes beside this one, or wherever a `concurrent.futures.Executor` sends it.

Tasks are small and whole in themselves (a clip, a fold), so that any executor may run them, and run one again
whose worker was lost.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

from mer_flow.work.errors import WorkerError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

#: Tasks per worker that wait in the queue: enough to keep it busy, few enough to bound memory.
QUEUE_PER_WORKER = 3
#: Seconds between two looks at the progress within tasks.
_LOOK_EVERY = 0.25
#: How often a task may come back without fault of its own.
_MOST_RETURNS = 5


class TaskReturnedError(BrokenExecutor):
    """A task came back undone and not by its own fault, as where a scheduler was lost; it is queued again."""


def usable_cores() -> int:
    """Return the number of cores this process may use: the affinity mask where the system has one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InThisProcess(Executor):
    """Run each task at once, here."""

    workers = 1

    def __init__(self) -> None:
        self._ticks = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run one call; the future that comes back is done."""
        global _tick
        future: Future[Any] = Future()
        before, _tick = _tick, self._count
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        finally:
            _tick = before
        return future

    def _count(self, steps: int) -> None:
        self._ticks += steps

    def ticks(self) -> int:
        """Return how many steps tasks have told of by `tick`."""
        return self._ticks


class LocalProcesses(Executor):
    """Run tasks in spawned processes that leave Ctrl-C to their parent, and end with it, even by `kill -9`.

    A pool that broke, because a worker died, is replaced by a fresh one at the next `submit`. Leaving the
    `with` block by an error ends the workers at once, whatever they are doing.

    Args:
        workers: How many processes.
    """

    def __init__(self, workers: int):
        self.workers = workers
        self._context = _Remembering(workers)
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, self._context, _begin, (self._context.ticks,))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue one call, starting a worker for it where one is still to be started."""
        with interrupts_held():
            try:
                return self._pool.submit(fn, *args, **kwargs)
            except BrokenExecutor:
                self._pool.shutdown(wait=True)
                self._context.started.clear()
                self._pool = self._start()
                return self._pool.submit(fn, *args, **kwargs)

    def ticks(self) -> int:
        """Return how many steps tasks have told of by `tick`."""
        return sum(self._context.ticks)

    def cause_of_death(self) -> str:
        """Say how the worker ended that broke the pool, as in `was killed by SIGKILL`."""
        self._pool.shutdown(wait=True)  # until then exit codes are missing
        codes = [process.exitcode for process in self._context.started if process.exitcode]
        # The pool ends the other workers by SIGTERM.
        own = [code for code in codes if code != -signal.SIGTERM] or codes
        if not own:
            return "ended without a result"
        if own[0] > 0:
            return f"ended with exit code {own[0]}"
        return f"was killed by {signal.Signals(-own[0]).name}"

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the workers end once their tasks are done."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._pool.shutdown(wait=True)
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._context.started:
            process.terminate()
        for process in self._context.started:
            process.join()


def local_executor(workers: int | None = None) -> InThisProcess | LocalProcesses:
    """Return the executor of this machine: processes, or this process for one worker.

    Args:
        workers: How many tasks at a time; None for one per usable core.
    """
    workers = workers or usable_cores()
    return InThisProcess() if workers == 1 else LocalProcesses(workers)


def run_all(
    executor: Executor,
    function: Callable[[_Task], _Result],
    tasks: Iterable[_Task],
    on_tick: Callable[[int], None] | None = None,
) -> Generator[tuple[_Task, Future[_Result]], None, None]:
    """Run a function over tasks, each whole in itself.

    A task whose worker died is tried once more, by itself, so that the task that kills workers is told from
    those that ran beside it. An executor on several machines is asked now and then, by its method `watch`,
    whether it still has workers. Closing the generator cancels what has not begun.

    Args:
        executor: Where they run.
        function: Called with one task; both can be pickled unless the executor is `InThisProcess`.
        tasks: The tasks; a few per worker are in flight at a time.
        on_tick: Called now and then with the steps that tasks have told of, where the executor counts them.

    Yields:
        Each task with its future, which is done, in order of completion. The future of a task that workers
        died over twice raises WorkerError.
    """
    waiting, suspects = deque(tasks), deque[_Task]()
    pending: dict[Future[_Result], _Task] = {}
    retried: Future[_Result] | None = None
    returned: Counter[int] = Counter()
    ticks = getattr(executor, "ticks", None) if on_tick else None
    watch = getattr(executor, "watch", None)
    try:
        while waiting or suspects or pending:
            if watch:
                watch()
            # Workers of a cluster come and go.
            workers = getattr(executor, "workers", usable_cores())
            most = 1 if isinstance(executor, InThisProcess) else workers * QUEUE_PER_WORKER
            if suspects and not pending:
                task = suspects.popleft()
                retried = executor.submit(function, task)
                pending[retried] = task
            while waiting and not suspects and retried is None and len(pending) < most:
                task = waiting.popleft()
                pending[executor.submit(function, task)] = task
            done, _ = wait(pending, _LOOK_EVERY if ticks or watch else None, FIRST_COMPLETED)
            if ticks and on_tick:
                on_tick(ticks())
            for future in done:
                task = pending.pop(future)
                again, retried = future is retried, None
                error = future.exception()
                if not isinstance(error, BrokenExecutor):
                    yield task, future
                elif isinstance(error, TaskReturnedError) and returned[id(task)] < _MOST_RETURNS:
                    returned[id(task)] += 1
                    waiting.appendleft(task)
                elif again:
                    yield task, _lost(executor)
                else:
                    suspects.append(task)
    finally:
        for future in pending:
            future.cancel()


def _lost(executor: Executor) -> Future[Any]:
    told = getattr(executor, "cause_of_death", None)
    cause = told() if told else "was lost"
    future: Future[Any] = Future()
    future.set_exception(
        WorkerError(f"its worker process {cause}, twice; if memory ran out, use fewer --workers")
    )
    return future


def tick(steps: int = 1) -> None:
    """Tell the driver, from within a task, that so many of its steps are done."""
    _tick(steps)


def _nobody_counts(steps: int) -> None:
    """Of a task outside our executors."""


_tick: Callable[[int], None] = _nobody_counts


class _Remembering(SpawnContext):
    """Spawned processes, remembered for their exit codes; each counts ticks in a cell of its own.

    spawn: forked children would inherit the HDF5 handles and thread pools of this process. A cell has one
    writer at a time, so that a worker killed while it writes holds up nobody.
    """

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []
        self.ticks: Sequence[int] = self.RawArray("q", workers)

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        process = _Worker(*args, **kwargs)
        process.name = f"worker {len(self.started) % len(self.ticks)}"
        self.started.append(process)
        return process


class _Worker(SpawnProcess):
    """A spawned process that does not run the script again which started it.

    A script needs no `if __name__ == "__main__":` then. Tasks are functions of modules.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


def _begin(ticks: Any) -> None:
    """Set a worker up."""
    global _tick
    # An orphan would wait for tasks for ever, a few hundred megabytes large.
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    cell = int(multiprocessing.current_process().name.rpartition(" ")[2])
    _tick = functools.partial(_count_in, ticks, cell)


def _count_in(ticks: Any, cell: int, steps: int) -> None:
    ticks[cell] += steps


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back; processes started in the block never see it, so that only their parent answers."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # started in the block, with the first process, it would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
