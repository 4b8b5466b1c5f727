"""Runs trained at once on a cluster: the folds of all in one queue, the longest first.

No worker waits for a run's last fold, and records are written as they come, by this process alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mer_bench.errors import MerBenchError, RunError
from mer_bench.runs.estimate import estimate_seconds
from mer_bench.runs.part import Part
from mer_bench.runs.train import Begun, OnProgress, Outcome, Prepared, begun
from mer_bench.training.failures import FoldFailures
from mer_flow.work.cluster import dask_executor
from mer_flow.work.errors import WorkerError
from mer_flow.work.executor import run_all
from mer_flow.work.where import Needs, Where

if TYPE_CHECKING:
    from mer_bench.training.engines.pieces import Piece
    from mer_flow.work.cluster import OnDask

#: What a worker's folds depend on, in the versions of the driver.
PACKAGES = ("python", "mer-flow", "mer-bench", "ahmsa-model", "torch", "numpy", "scikit-learn")
#: Pieces of a run that workers may die over, before its rest is given up.
_MOST_LOST = 3
#: Operations per second that costs are compared at.
_RATE = 1e10


@contextmanager
def open_cluster(where: Where, models: Iterable[str], workers: int | None = None) -> Iterator[OnDask]:
    """Open the cluster that runs are trained on; errors as `mer_flow.work.cluster.dask_executor`.

    Args:
        where: Which cluster.
        models: Packages of the models, with their versions.
        workers: Of a cluster on this machine alone.
    """
    plugins = {package.split()[0] for package in models} - set(PACKAGES)
    with dask_executor(where, Needs.of((*PACKAGES, *sorted(plugins))), workers) as executor:
        yield executor


def execute_together(
    runs: Sequence[Prepared],
    out: Path,
    executor: OnDask,
    part: Part | None = None,
    on_progress: OnProgress | None = None,
) -> list[Outcome | MerBenchError]:
    """Train the missing folds of several runs, and record each as soon as it is done.

    Args:
        runs: The runs.
        out: Folder of all runs.
        executor: The cluster.
        part: Which folds.
        on_progress: Told of fold-epochs, over all runs.

    Returns:
        What became of each run: an error where it could not be begun or written, with what was written kept.

    Raises:
        ClusterError: The cluster was lost.
        UsageError: A model cannot be sent to a worker.
    """
    together = _Together(executor, on_progress)
    with ExitStack() as stack:
        for place, prepared in enumerate(runs):
            try:
                begin = stack.enter_context(begun(prepared, out, part or Part()))
                together.begin(place, begin)
            except MerBenchError as error:
                together.errors[place] = error
        together.train()
        return [together.outcome(place) for place in range(len(runs))]


class _Together:
    """The runs that were begun, and what came of their folds."""

    def __init__(self, executor: OnDask, on_progress: OnProgress | None):
        self.executor, self.on_progress = executor, on_progress
        self.runs: dict[int, Begun] = {}
        self.errors: dict[int, MerBenchError] = {}
        self.failures: dict[tuple[int, int], FoldFailures] = {}
        self.lost: dict[int, int] = {}
        self.stopped: set[int] = set()
        self.queue: list[tuple[float, Piece]] = []

    def begin(self, place: int, begin: Begun) -> None:
        """Queue the missing folds of a run."""
        from mer_bench.training.engines.pieces import pieces_of
        from mer_bench.training.folds import prepare_data
        from mer_bench.training.job import TrainingData

        self.runs[place] = begin
        prepared = begin.prepared
        if not any(begin.missing.values()):
            return
        job, data = prepared.job, prepared.data
        shared = self.executor.share(prepare_data(job, TrainingData(data.maps, data.population.labels)))
        cost = (estimate_seconds(prepared, 1, _RATE) or 0.0) + 1e-6
        for seed, folds in begin.missing.items():
            self.failures[place, seed] = FoldFailures()
            for piece in pieces_of(place, replace(job, seed=seed), shared, folds, self.executor.workers):
                piece.stopped = self.stopped
                self.queue.append((cost * sum(len(fold.train) for fold in piece.folds), piece))

    def train(self) -> None:
        """Train all that is queued."""
        from mer_bench.training.engines.pieces import train_piece

        pieces = [piece for _, piece in sorted(self.queue, key=lambda queued: -queued[0])]
        total, done = sum(piece.job.epochs * len(piece.folds) for piece in pieces), 0
        with closing(run_all(self.executor, train_piece, pieces)) as running:
            for piece, future in running:
                if piece.place not in self.stopped:
                    try:
                        self._take(piece, *future.result())
                    except WorkerError as error:
                        self._lose(piece, error)
                    except RunError as error:
                        self.errors[piece.place] = error
                        self.stopped.add(piece.place)
                done += piece.job.epochs * len(piece.folds)
                if self.on_progress is not None:
                    self.on_progress(done, total)

    def _take(self, piece: Piece, results: Sequence[object], failed: dict[str, str]) -> None:
        run = self.runs[piece.place]
        for result in results:
            run.fold(result)  # type: ignore[arg-type]
        for name, message in failed.items():
            self.failures[piece.place, piece.job.seed].add(name, message)

    def _lose(self, piece: Piece, error: WorkerError) -> None:
        """Note that workers died over a piece; the third of a run ends it, and spares the workers."""
        failures = self.failures[piece.place, piece.job.seed]
        for fold in piece.folds:
            failures.add(fold.name, f"fold '{fold.name}': {error}")
        self.lost[piece.place] = self.lost.get(piece.place, 0) + 1
        if self.lost[piece.place] == _MOST_LOST:
            self.stopped.add(piece.place)

    def outcome(self, place: int) -> Outcome | MerBenchError:
        """Say what became of a run."""
        if place in self.errors:
            return self.errors[place]
        run, said = self.runs[place], []
        for (other, seed), failures in self.failures.items():
            message = failures.message(len(run.missing[seed])) if other == place else ""
            said += [f"seed {seed}: {message}"] if message else []
        if place in self.stopped:
            said.append(f"its other folds were given up, as workers had died over {self.lost[place]}")
        return run.outcome(said)
