"""Folds spread over processes, one torch thread each: the fastest way on a CPU for small networks.

The parent hands out one fold at a time, the longest first, so that no process waits while another has folds
left. The maps are shared through one memory-mapped file; results and progress come back over a pipe per
process.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np

from mer_bench.errors import MerBenchError, TrainingError, UsageError
from mer_bench.protocols.folds import Fold
from mer_bench.training.plan import FoldFailures, OnFold, OnProgress, Plan

_REPORT_EVERY = 0.25
_MOST_DEATHS = 3
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    fold: int | None = None


def run_in_processes(
    plan: Plan,
    maps: np.ndarray,
    labels: np.ndarray,
    folds: Sequence[Fold],
    workers: int,
    on_fold: OnFold,
    on_progress: OnProgress | None,
) -> None:
    """Train every fold in one of several processes.

    Args:
        plan: The run's training.
        maps: `(N, C, H, W)` float32.
        labels: `(N,)` int64.
        folds: The folds.
        workers: Number of processes.
        on_fold: Called in this process with each fold's record, as it is finished.
        on_progress: Called in this process with epochs done over all folds, and their total.

    Raises:
        UsageError: If the model cannot be sent to another process.
        TrainingError: After all other folds are through, if folds failed or a process died over one.
    """
    try:
        pickle.dumps(plan)
    except Exception as error:  # pickle raises whatever a foreign object raises
        raise UsageError(
            f"model '{plan.spec.name}' cannot be sent to another process ({error}); make its builder a "
            "function of a module rather than a lambda or a local one, or train with engine 'serial'"
        ) from error
    with tempfile.TemporaryDirectory(prefix="mer-bench-", ignore_cleanup_errors=True) as folder:
        shared = Path(folder) / "maps.npy"
        try:
            np.save(shared, np.ascontiguousarray(maps, dtype=np.float32))
        except OSError as error:
            raise TrainingError(
                f"the maps ({maps.size * 4 / 1e6:.0f} MB) cannot be shared with the worker "
                f"processes through {shared}: {error}; free some space there, name another folder in TMPDIR, "
                "or train with engine 'serial'"
            ) from error
        _Pool(plan, shared, labels, folds, min(workers, len(folds))).run(on_fold, on_progress)


class _Pool:
    """The parent's side."""

    def __init__(
        self, plan: Plan, shared: Path, labels: np.ndarray, folds: Sequence[Fold], size: int
    ) -> None:
        self._plan = plan
        self._shared = shared
        self._labels = labels
        self._folds = folds
        self._size = size
        # Longest first: a long fold begun last would leave the other processes idle.
        self._waiting = deque(sorted(range(len(folds)), key=lambda i: -len(folds[i].train)))
        self._epochs_done = dict.fromkeys(range(len(folds)), 0)
        self._failures = FoldFailures()
        self._workers: list[_Worker] = []
        self._deaths = 0

    def run(self, on_fold: OnFold, on_progress: OnProgress | None) -> None:
        total = len(self._folds) * self._plan.epochs
        try:
            for _ in range(self._size):
                self._start()
            while self._workers:
                ready = multiprocessing.connection.wait([w.pipe for w in self._workers])
                for worker in [w for w in self._workers if w.pipe in ready]:
                    self._receive(worker, on_fold)
                if on_progress is not None:
                    on_progress(sum(self._epochs_done.values()), total)
        finally:
            for worker in self._workers:
                worker.process.terminate()
            for worker in self._workers:
                worker.process.join()
        self._failures.raise_if_any(len(self._folds))

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work,
            args=(theirs, self._plan, self._shared, self._labels, list(self._folds)),
            name=f"mer-bench fold worker {len(self._workers)}",
            daemon=True,
        )
        process.start()
        # Only the child may hold its end, or its death would go unnoticed.
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        self._hand_out(worker)

    def _hand_out(self, worker: _Worker) -> None:
        worker.fold = self._waiting.popleft() if self._waiting else None
        try:
            worker.pipe.send(worker.fold)
        except (BrokenPipeError, ConnectionResetError):
            return  # dead already; the broken pipe is noticed, and told of, on reading
        if worker.fold is None:
            self._workers.remove(worker)
            worker.process.join()

    def _receive(self, worker: _Worker, on_fold: OnFold) -> None:
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._bury(worker)
            return
        assert worker.fold is not None
        if kind == "epochs":
            self._epochs_done[worker.fold] = value
            return
        self._epochs_done[worker.fold] = self._plan.epochs
        if kind == "done":
            on_fold(value)
        else:
            self._failures.add(self._folds[worker.fold].name, value)
        self._hand_out(worker)

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        self._workers.remove(worker)
        self._deaths += 1
        if worker.fold is None:
            return
        fold = self._folds[worker.fold].name
        self._failures.add(fold, f"fold '{fold}': {_cause_of_death(worker.process.exitcode)}")
        self._epochs_done[worker.fold] = self._plan.epochs
        if self._waiting and self._deaths <= _MOST_DEATHS:
            self._start()
        elif self._waiting and not self._workers:
            for index in self._waiting:
                name = self._folds[index].name
                self._failures.add(
                    name, f"fold '{name}': not begun, as {self._deaths} worker processes died before it"
                )
            self._waiting.clear()


def _cause_of_death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        why = "was killed"
        remedy = (
            "if the machine ran out of memory, use fewer workers or a smaller batch; finished folds are kept"
        )
        return f"its worker process {why} by {name}; {remedy}"
    return (
        f"its worker process ended with exit code {code} and no result; its own message "
        "is on standard error. A script that calls this must do so under `if __name__ == '__main__':`, "
        "as workers import it; or train with engine 'serial'"
    )


def _keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one.

    By default it gives large blocks back at once, and the page faults of asking again cost a small network a
    tenth of its step. Where the C library is another, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    mallopt(_M_MMAP_THRESHOLD, 1 << 25)


def _work(pipe: Connection, plan: Plan, shared: Path, labels: np.ndarray, folds: list[Fold]) -> None:
    """The child's side: train the folds it is told to, until told None or left alone."""
    # Ctrl-C reaches the whole group; the parent decides what becomes of the folds.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from mer_bench.training.single import determinism, one_thread, train_fold

    _keep_freed_memory()
    maps = np.load(shared, mmap_mode="r")
    last = time.monotonic()

    def report(epochs: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_EVERY:
            last = now
            pipe.send(("epochs", epochs))

    try:
        with one_thread("cpu"), determinism(plan.deterministic):
            while (index := pipe.recv()) is not None:
                try:
                    pipe.send(("done", train_fold(plan, maps, labels, folds[index], "processes", report)))
                except MerBenchError as error:
                    pipe.send(("failed", str(error)))
                except (BrokenPipeError, ConnectionResetError):
                    raise
                except Exception as error:  # a plug-in's network may raise anything; the other folds go on
                    message = f"fold '{folds[index].name}': {type(error).__name__}: {error}"
                    pipe.send(("failed", message))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone, and nobody waits for a result
