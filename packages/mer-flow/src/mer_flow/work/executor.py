"""Worker processes: deaf to Ctrl-C, gone with their parent, and clear about why they cannot start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mer_flow.work.errors import MerFlowError, WorkerError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

#: How many tasks per worker wait in the queue: enough to keep workers busy, few enough to bound memory.
QUEUE_PER_WORKER = 3


class WorkerPool(ProcessPoolExecutor):
    """Spawned processes that leave Ctrl-C to their parent and end when it does, even by `kill -9`.

    Args:
        workers: How many.
        prepare: Called once in each; a mer-flow error that it raises is raised again by every task.
        arguments: Its arguments.
    """

    def __init__(self, workers: int, prepare: Callable[..., Any], arguments: Sequence[Any] = ()):
        # spawn: forked children would inherit the HDF5 handles and thread pools of this process
        context = multiprocessing.get_context("spawn")
        super().__init__(workers, context, _start, (prepare, tuple(arguments)))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queues one call, starting a worker for it where one is still to be started."""
        with _interrupts_held():
            return super().submit(_run, fn, *args, **kwargs)


def run_all(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    workers: int,
    prepare: Callable[..., Any],
    arguments: Sequence[Any] = (),
) -> Generator[_Result, None, None]:
    """Runs a function over tasks in worker processes.

    Args:
        function: Called in a worker, with one task.
        tasks: The tasks; a few per worker are in flight at a time.
        workers: Worker processes.
        prepare: Called once in each worker.
        arguments: Its arguments.

    Yields:
        Results, as they complete.

    Raises:
        WorkerError: A worker was killed.
        MerFlowError: `prepare` failed.
    """
    if not tasks:
        return
    waiting = iter(tasks)
    pending: set[Future[_Result]] = set()
    with deaths_explained(), WorkerPool(min(workers, len(tasks)), prepare, arguments) as pool:
        try:
            for task in waiting:
                pending.add(pool.submit(function, task))
                if len(pending) < workers * QUEUE_PER_WORKER:
                    continue
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def deaths_explained() -> Iterator[None]:
    """Turns the death of a worker into a WorkerError that says what to do."""
    try:
        yield
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process was killed, most often because memory ran out. What was committed is kept: "
            "run the same command again, with fewer --workers if it repeats."
        ) from error


#: Why this worker could not be prepared.
_refusal: MerFlowError | None = None


def _start(prepare: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _refusal
    parent = multiprocessing.parent_process()
    if parent is not None:
        # An orphan would wait for tasks for ever, a few hundred megabytes large.
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        prepare(*arguments)
    except MerFlowError as error:  # raised here it would only break the pool, and the reason would be lost
        _refusal = error


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _run(function: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> _Result:
    if _refusal is not None:
        raise _refusal
    return function(*args, **kwargs)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back; processes started meanwhile never see it, so that only their parent answers."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def peak_memory_mb() -> float:
    """Returns the peak resident memory of this process, MB; 0 where the system does not tell.

    On Linux `getrusage` would report the parent's peak for a child that was just forked from it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(peaks[0]) / 2**10 if peaks else 0.0
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes
