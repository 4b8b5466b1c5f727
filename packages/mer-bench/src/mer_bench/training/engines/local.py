"""One fold per task, through an executor: the way for a CPU.

A process takes one fold at a time on one thread, the longest first, so that no process waits while another
has folds left. The maps are shared with processes through one memory-mapped file.
"""

from __future__ import annotations

import functools
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from mer_bench.errors import TrainingError, UsageError
from mer_bench.protocols.folds import Fold
from mer_bench.training.classifier import fit_fold
from mer_bench.training.device import device_of, torch_held
from mer_bench.training.engines.chunk import train_chunk
from mer_bench.training.failures import FoldFailures, named_failures
from mer_bench.training.job import Job, Sink, TrainingData
from mer_bench.training.network import build_network, fold_generators
from mer_bench.training.networks import OneNetwork
from mer_bench.training.result import FoldResult
from mer_flow.work.errors import WorkerError
from mer_flow.work.executor import InThisProcess, run_all, tick
from mer_flow.work.files import scratch_folder
from mer_flow.work.malloc import keep_freed_memory

# Folds that workers may die over, before the rest is given up.
_MOST_LOST = 3


def run_local(job: Job, data: TrainingData, folds: Sequence[Fold], executor: Executor, sink: Sink) -> None:
    """Train each fold as a task of its own.

    Raises:
        UsageError: The model cannot be sent to another process.
        TrainingError: Folds failed, or workers died over them; raised after the others were delivered.
    """
    failures = FoldFailures()
    here = isinstance(executor, InThisProcess)
    progress = _Progress(sink, len(folds) * job.epochs, getattr(executor, "ticks", int)())
    waiting, lost = [fold.name for fold in folds], 0
    # Longest first: a long fold begun last would leave the other processes idle.
    tasks = sorted(folds, key=lambda fold: -len(fold.train))
    with nullcontext(data) if here else _shared(job, data, executor) as given:
        # Here ticks would be looked at between folds alone.
        train = functools.partial(_train, job, given, progress.advance if here else tick)
        for fold, future in run_all(executor, train, tasks, None if here else progress.ticked):
            waiting.remove(fold.name)
            try:
                result = future.result()
            except TrainingError as error:
                failures.add(fold.name, str(error))
            except WorkerError as error:
                failures.add(fold.name, f"fold '{fold.name}': {error}")
                lost += 1
            else:
                sink.fold(result)
            progress.through(job.epochs)
            if lost == _MOST_LOST:
                for name in waiting:
                    failures.add(name, f"fold '{name}': given up, as workers had died over {lost} others")
                break
    failures.raise_if_any(len(folds))


class _Progress:
    """Fold-epochs done: those that tasks have told of, and at least all of the folds that are through."""

    def __init__(self, sink: Sink, total: int, before: int) -> None:
        self._sink, self._total, self._before = sink, total, before
        self._done = self._through = 0

    def advance(self, epochs: int) -> None:
        self._reach(self._done + epochs)

    def ticked(self, ticks: int) -> None:
        self._reach(ticks - self._before)

    def through(self, epochs: int) -> None:
        self._through += epochs
        self._reach(self._through)

    def _reach(self, done: int) -> None:
        # A fold that failed stopped early; one that was tried again told of its epochs twice.
        self._done = min(max(done, self._done), self._total)
        self._sink.progress(self._done, self._total)


@dataclass(frozen=True)
class _Shared:
    """Data whose maps lie in a file: small, whatever their size."""

    path: str
    labels: np.ndarray
    map_shape: tuple[int, ...] | None

    def load(self) -> TrainingData:
        return TrainingData(_mapped(self.path), self.labels, self.map_shape)


@functools.lru_cache(maxsize=1)
def _mapped(path: str) -> np.ndarray:
    maps: np.ndarray = np.load(path, mmap_mode="r")
    return maps


@contextmanager
def _shared(job: Job, data: TrainingData, executor: Executor) -> Iterator[_Shared]:
    try:
        sent = pickle.dumps(job)
    except Exception as error:  # pickle raises whatever a foreign object raises
        raise UsageError(
            f"model '{job.spec.name}' cannot be sent to another process ({error}); make its builder a "
            "function of a module that refers to no open file, lock or lambda, or train in this process: "
            "--workers 1 (workers=1)"
        ) from error
    # What is of __main__ pickles, but the worker has another __main__.
    stranger = None
    if b"__main__" in sent:
        try:
            stranger = executor.submit(_unreadable, sent).result()
        except BrokenExecutor:
            stranger = "the process ended over reading __main__"
    if stranger:
        raise UsageError(
            f"model '{job.spec.name}' is defined in a notebook or in __main__, where other processes do not "
            f"find it ({stranger}); give the function itself to mer_bench.evaluate, put it into a module (a "
            ".py file) and import it, or train in this process: workers=1 in TrainingSettings, --workers 1"
        )
    with scratch_folder("mer-bench") as folder:
        path = folder / "maps.npy"
        try:
            np.save(path, np.ascontiguousarray(data.maps, dtype=np.float32))
        except OSError as error:
            raise TrainingError(
                f"the maps ({data.maps.size * 4 / 1e6:.0f} MB) cannot be shared with the worker "
                f"processes through {path}: {error}; free some space there, name another folder in TMPDIR, "
                "or train in this process: --workers 1"
            ) from error
        yield _Shared(str(path), data.labels, data.map_shape)


def _unreadable(sent: bytes) -> str | None:
    """Say why a job cannot be read in this process; None where it can."""
    try:
        pickle.loads(sent)
    except Exception as error:  # as above
        return str(error)
    return None


def _train(
    job: Job, given: TrainingData | _Shared, on_epoch: Callable[[int], None], fold: Fold
) -> FoldResult:
    if multiprocessing.parent_process() is not None:
        keep_freed_memory()
    with torch_held(job):
        return train_fold(job, given.load() if isinstance(given, _Shared) else given, fold, on_epoch)


def train_fold(job: Job, data: TrainingData, fold: Fold, on_epoch: Callable[[int], None]) -> FoldResult:
    """Train one fold, or fit a classifier on it; `on_epoch` is told how many more epochs are done.

    Raises:
        TrainingError: The loss is not finite or the network fails; names fold, epoch and remedy.
    """
    if job.spec.kind == "classifier":
        result = fit_fold(job, data, fold)
        on_epoch(1)
        return result
    device, seed = device_of(job), job.seed_of(fold.name)
    with named_failures(job, fold.name, data.shape), fold_generators(seed, device):
        network = build_network(job.spec, job.options, len(job.classes), data.shape, device, stacked=False)
        networks = OneNetwork(network, seed, job.network_recipe)
        results, failed = train_chunk(job, data, [fold], networks, on_epoch)
    if failed:
        raise TrainingError(failed[fold.name])
    return results[0]
