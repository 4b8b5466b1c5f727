"""Work on a cluster: `concurrent.futures` over Dask, on a running scheduler or one that a queue starts.

The only room that imports dask. Tasks are those of a local run. The driver, this process, sends them, takes
their results and alone writes; a worker needs our packages, one thread, and for clips the database's tree.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import io
import logging
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mer_flow.work.errors import ClusterError, MissingDependencyError, UsageError
from mer_flow.work.executor import TaskReturnedError, interrupts_held, usable_cores
from mer_flow.work.libraries import extra_command
from mer_flow.work.malloc import keep_freed_memory
from mer_flow.work.settings import read_toml
from mer_flow.work.where import QUEUES, Needs, Where

#: Workers that a task may be lost with before the scheduler gives it back, in clusters that are started here.
_ALLOWED_FAILURES = 1
#: A worker's sampling profiler and ticks would take Python's lock from its task a hundred times a second.
_CALM = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}
#: Seconds between two looks at who is there.
_LOOK_EVERY = 1.0
#: Seconds for a worker started here to end when what it does is given up; then it is killed.
_END_WITHIN = 0.5


@dataclass(frozen=True)
class Shared:
    """Stands in tasks for a value that lies with the workers; they get the value itself."""

    key: str


@contextmanager
def dask_executor(where: Where, needs: Needs, workers: int | None = None) -> Iterator[OnDask]:
    """Connect to a cluster, or start one, and check its workers.

    Args:
        where: Which cluster.
        needs: What every worker must have.
        workers: Of a cluster of kind `local`; None for one per usable core.

    Raises:
        MissingDependencyError: Dask is not installed.
        UsageError: The scheduler's address or the queue's options are wrong, or a worker does not fit.
        ClusterError: No scheduler or no worker within `where.wait` seconds.
    """
    distributed = _load("distributed")
    _quiet()
    with ExitStack() as stack:
        if where.scheduler:
            address: Any = where.scheduler
        else:
            address = stack.enter_context(_started(where, workers or usable_cores()))
        client = stack.enter_context(_connected(distributed, address, where))
        executor = stack.enter_context(OnDask(client, where, needs))
        executor.check()
        print(f"dask: {executor.described()}", file=sys.stderr, flush=True)
        yield executor


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"--executor dask needs {module} ({error}); mend with: {extra_command('cluster')}"
        ) from None


def _quiet() -> None:
    """Keep Dask from telling, with traces, what this room says in one line."""
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _connected(distributed: Any, address: Any, where: Where) -> Iterator[Any]:
    named = where.scheduler or "the cluster's scheduler"
    try:
        client = distributed.Client(address, timeout=where.wait, set_as_default=False)
    except ValueError as error:
        raise UsageError(
            f"--scheduler {where.scheduler}: {error}; write it as the scheduler prints it, as in tcp://HOST:8786"
        ) from None
    except (OSError, TimeoutError, RuntimeError) as error:
        raise ClusterError(
            f"{named} does not answer within {where.wait:g} s ({type(error).__name__}); check the address "
            "and that `dask scheduler` runs there, or wait longer: --wait SECONDS"
        ) from None
    try:
        yield client
    finally:
        # The scheduler may be gone, or the machine too busy to say goodbye in time.
        with suppress(OSError, TimeoutError):
            client.close(timeout=5)


@contextmanager
def _started(where: Where, workers: int) -> Iterator[Any]:
    """Start a cluster; yield what a client takes as its address."""
    dask = _load("dask")
    # Read by scheduler and workers when they start.
    with dask.config.set({"distributed.scheduler.allowed-failures": _ALLOWED_FAILURES, **_CALM}):
        if where.cluster in QUEUES:
            cluster = _queued(where)
        else:
            own = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
            with interrupts_held():
                cluster = _load("distributed").LocalCluster(workers, threads_per_worker=1, **own)
    try:
        yield cluster
    except BaseException:
        if where.cluster not in QUEUES:
            cluster.sync(_end_workers, cluster.workers.values())
        raise
    finally:
        with suppress(OSError, TimeoutError):
            cluster.close()


async def _end_workers(nannies: Iterable[Any]) -> None:
    """End workers whatever they are doing; Dask would let them finish for some seconds."""
    # A killed process that a busy machine buries late is a TimeoutError.
    closings = (nanny.close(timeout=_END_WITHIN) for nanny in nannies)
    await asyncio.gather(*closings, return_exceptions=True)


def _queued(where: Where) -> Any:
    """Start a scheduler here and queue jobs of workers."""
    options = read_toml(where.cluster_options) if where.cluster_options else {}
    jobs = options.pop("jobs", 1)
    if not isinstance(jobs, int) or jobs < 1:
        raise UsageError(f"{where.cluster_options}: jobs must be a number of at least 1, got {jobs!r}")
    # A worker trains one fold at a time, on one thread.
    options.setdefault("processes", options.get("cores", 1))
    kind = getattr(_load("dask_jobqueue"), QUEUES[where.cluster])
    try:
        cluster = kind(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"--cluster {where.cluster} with the options of {where.cluster_options or 'no file'}: {error}; "
            "they are those of dask-jobqueue (cores, memory, queue, walltime, ...) and jobs"
        ) from None
    cluster.scale(jobs=jobs)
    return cluster


class OnDask(Executor):
    """Run calls on the workers of a cluster.

    A task that workers died over raises BrokenExecutor; one that came back because the scheduler, the shared
    values or an unfit worker went, TaskReturnedError.
    """

    def __init__(self, client: Any, where: Where, needs: Needs):
        self._client, self._where, self._needs = client, where, needs
        self._values: dict[str, Any] = {}
        self._held: dict[str, Any] = {}
        self._unfit: dict[str, str] = {}
        self._lock = threading.Lock()
        self._last = self._seen = 0.0
        self._cause = "was lost"
        self.workers = 0

    def described(self) -> str:
        """Say which scheduler, how many workers and where the dashboard is."""
        there = self._client.scheduler.address, self.counted(), self._client.dashboard_link
        return "scheduler {}, {}, dashboard {}".format(*there)

    def counted(self) -> str:
        """Say how many workers there are, as in `3 workers`."""
        return f"{self.workers} worker{'s' if self.workers != 1 else ''}"

    def cause_of_death(self) -> str:
        """Say how the last task was lost that workers died over."""
        return self._cause

    def check(self) -> None:
        """Wait for workers and refuse those that do not fit, by name."""
        self._await_workers()
        found = self._client.run(_fit, self._needs, on_error="return")
        for address, answer in found.items():
            if isinstance(answer, BaseException):
                raise UsageError(
                    f"worker {address} cannot load our packages ({type(answer).__name__}: {answer}); "
                    "install there what is installed here"
                )
            if answer:
                raise UsageError(f"worker {address} {answer}")

    def watch(self) -> None:
        """Count the workers, and end where none was there for too long; called often, looks now and then."""
        now = time.monotonic()
        if now - self._last < _LOOK_EVERY:
            return
        self._last = now
        self._dismiss()
        self.workers = self._count()
        if self.workers:
            self._seen = now
        elif now - self._seen > self._where.wait:
            self._await_workers()

    def _count(self) -> int:
        if self._client.status != "running":
            return 0
        try:
            return len(self._client.nthreads())
        except (OSError, TimeoutError, RuntimeError, ValueError):
            return 0

    def _await_workers(self) -> None:
        """Wait until the scheduler is there and has a worker."""
        deadline = time.monotonic() + self._where.wait
        while not (workers := self._count()):
            if self._client.status in ("closed", "closing"):
                break
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        self.workers, self._seen = workers, time.monotonic()
        if workers:
            return
        named = self._where.scheduler or "the cluster"
        what = "has no worker" if self._client.status == "running" else "was lost and did not come back"
        raise ClusterError(
            f"{named} {what} within {self._where.wait:g} s; start workers with `dask worker "
            "ADDRESS --nthreads 1`, look at the queue, or wait longer: --wait SECONDS. What was recorded is "
            "kept, and the same command continues"
        )

    def _dismiss(self) -> None:
        """Send unfit workers away that came late, and say why."""
        with self._lock:
            unfit, self._unfit = self._unfit, {}
        for address, reason in unfit.items():
            print(f"dask: worker {address} refused: {reason}", file=sys.stderr, flush=True)
            self._client.retire_workers([address], close_workers=True)

    def share(self, value: Any) -> Shared:
        """Give a value to every worker, once per content; tasks name it by what this returns."""
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        digest = hashlib.sha256(head)
        for buffer in buffers:
            digest.update(buffer.raw())
        shared = Shared(f"shared-{digest.hexdigest()[:24]}")
        self._values.setdefault(shared.key, value)
        return shared

    def forget(self, shared: Shared) -> None:
        """Let workers drop a shared value."""
        self._values.pop(shared.key, None)
        self._held.pop(shared.key, None)

    def _remote(self, key: str) -> Any:
        """Return the scattered value, scattering it where it is not there (any more)."""
        if key not in self._held or self._held[key].status != "finished":
            scattered = self._client.scatter(
                {key: self._values[key]}, broadcast=True, timeout=self._where.wait
            )
            self._held[key] = scattered[key]
        return self._held[key]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Send one call; a first argument with a true `gpu` asks for the resource GPU=1.

        Raises:
            UsageError: The call cannot be pickled.
            ClusterError: The cluster was lost.
        """
        packed = io.BytesIO()
        pickler = _Pickler(packed)
        try:
            pickler.dump(functools.partial(fn, *args, **kwargs))
        except Exception as error:  # pickle raises whatever a foreign object raises
            raise UsageError(
                f"a task cannot be sent to another machine ({error}); models and functions must belong to a "
                "module that workers have too"
            ) from error
        resources = {"GPU": 1} if args and getattr(args[0], "gpu", False) else None
        self._dismiss()
        try:
            if not self.workers or self._client.status != "running":
                self._await_workers()
            keys = tuple(dict.fromkeys(pickler.shared))
            held = [self._remote(key) for key in keys]
            remote = self._client.submit(
                _run, packed.getvalue(), self._needs, keys, *held, pure=False, resources=resources
            )
        except (OSError, TimeoutError, RuntimeError, ValueError):  # the scheduler went in between
            self.workers = 0
            lost: Future[Any] = Future()
            lost.set_exception(TaskReturnedError("the scheduler was lost"))
            return lost
        future: Future[Any] = Future()
        future.add_done_callback(lambda done: remote.cancel() if done.cancelled() else None)
        self._client.loop.add_callback(self._settle, remote, future)
        return future

    async def _settle(self, remote: Any, future: Future[Any]) -> None:
        """Hand the outcome of a Dask future on."""
        from distributed import KilledWorker

        try:
            found = await remote._result(raiseit=False)
        except Exception as gone:  # the connection went while the result came; a future must never hang
            if future.set_running_or_notify_cancel():
                future.set_exception(TaskReturnedError(f"the result was lost on its way ({gone})"))
            return
        if not future.set_running_or_notify_cancel():
            return
        if remote.status == "finished":
            if isinstance(found, _Unfit):
                with self._lock:
                    self._unfit[found.address] = found.reason
                future.set_exception(TaskReturnedError(found.reason))
            else:
                future.set_result(found)
        elif remote.status == "error":
            error = found[1]
            if isinstance(error, KilledWorker):
                self._cause = f"was lost, and so were {error.allowed_failures} it was tried on again"
                error = BrokenExecutor(str(error))
            future.set_exception(error)
        else:
            future.set_exception(TaskReturnedError(f"the task came back {remote.status}"))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let go of what was shared; the client is closed by who opened it."""
        self._held.clear()
        self._values.clear()


@dataclass(frozen=True)
class _Unfit:
    """In place of a result: this worker must not work for us."""

    address: str
    reason: str


class _Pickler(pickle.Pickler):
    """Names shared values by their keys."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.shared: list[str] = []

    def persistent_id(self, obj: Any) -> str | None:
        if not isinstance(obj, Shared):
            return None
        self.shared.append(obj.key)
        return obj.key


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: dict[str, Any]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, pid: Any) -> Any:
        return self._shared[pid]


def _fit(needs: Needs, dask_worker: Any = None) -> str:
    """Say, on a worker, why it does not fit; empty where it does."""
    threads = dask_worker.state.nthreads
    reason = needs.unmet()
    if not reason and threads != 1:
        reason = f"it has {threads} threads, and torch's state is a process's; start it with --nthreads 1"
    return f"on {socket.gethostname()}: {reason}" if reason else ""


def _run(payload: bytes, needs: Needs, keys: tuple[str, ...], *values: Any) -> Any:
    """Do one call on a worker, with the shared values in their places."""
    from distributed import get_worker

    worker = get_worker()
    address = worker.address
    if reason := _fit(needs, worker):
        return _Unfit(address, reason)
    try:
        call = _Unpickler(io.BytesIO(payload), dict(zip(keys, values, strict=True))).load()
    except Exception as error:  # pickle raises whatever a foreign object raises
        raise ClusterError(
            f"worker {address} on {socket.gethostname()} cannot load a task "
            f"({type(error).__name__}: {error}); install there what is installed here, plug-ins included"
        ) from None
    keep_freed_memory()
    return call()
