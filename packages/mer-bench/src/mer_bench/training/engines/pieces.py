"""A run's folds in pieces that workers of a cluster train: a fold on a CPU, some stacked ones on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mer_bench.errors import TrainingError
from mer_bench.protocols.folds import Fold
from mer_bench.training.device import engine_of, resolve_device, torch_held
from mer_bench.training.engines.local import train_fold
from mer_bench.training.engines.stacked import run_stacked
from mer_bench.training.job import Job
from mer_bench.training.result import FoldResult


@dataclass
class Piece:
    """Folds that one worker trains.

    Attributes:
        place: Which run they are of.
        data: Stands for the run's `TrainingData`, which the worker has.
        gpu: Whether it needs a GPU worker; how many folds that stacks at once, its own memory says.
        stopped: Runs that are given up; their pieces are sent without folds from then on.
    """

    place: int
    job: Job
    data: Any
    folds: tuple[Fold, ...]
    gpu: bool = False
    stopped: set[int] = field(default_factory=set)

    def __reduce__(self) -> tuple[Any, ...]:
        folds = () if self.place in self.stopped else self.folds
        return Piece, (self.place, self.job, self.data, folds, self.gpu)


def pieces_of(place: int, job: Job, data: Any, folds: Sequence[Fold], workers: int) -> list[Piece]:
    """Cut one seed's folds: one each, or with engine `stacked` a share for each GPU worker."""
    if engine_of(job) == "local":
        # What `auto` is, the driver decides for all workers.
        device = resolve_device(job.training.device) if job.spec.kind == "network" else "cpu"
        job = replace(job, training=job.training.changed(device=device))
        return [Piece(place, job, data, (fold,), device != "cpu") for fold in folds]
    size = job.training.chunk or -(-len(folds) // max(workers, 1))
    return [
        Piece(place, job, data, tuple(folds[start : start + size]), True)
        for start in range(0, len(folds), size)
    ]


def train_piece(piece: Piece) -> tuple[list[FoldResult], dict[str, str]]:
    """Train the folds of a piece, on a worker.

    Returns:
        The records, and by name why folds have none.
    """
    kept, failures = _Kept(), {}
    job = piece.job
    try:
        if piece.folds and engine_of(job) == "stacked":
            run_stacked(job, piece.data, piece.folds, kept)
        else:
            with torch_held(job):
                for fold in piece.folds:
                    kept.fold(train_fold(job, piece.data, fold, lambda _: None))
    except TrainingError as error:
        done = {result.fold for result in kept.results}
        failures = {fold.name: str(error) for fold in piece.folds if fold.name not in done}
    return kept.results, failures


class _Kept:
    def __init__(self) -> None:
        self.results: list[FoldResult] = []

    def fold(self, result: FoldResult) -> None:
        self.results.append(result)

    def progress(self, done: int, total: int) -> None:
        """Not told across machines; the driver counts whole pieces."""
