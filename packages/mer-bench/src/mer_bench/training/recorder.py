"""The recorder: outside the training, it keeps what each epoch's networks say of the held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mer_bench.protocols.folds import Fold, absent_class_note
from mer_bench.training.device import device_name
from mer_bench.training.graphs import Graphs
from mer_bench.training.job import Job, TrainingData
from mer_bench.training.networks import Networks
from mer_bench.training.reading import Reading
from mer_bench.training.result import FoldResult
from mer_bench.training.samples import Maps

# Samples predicted at once: so many over all folds, but not too few of each.
_BLOCK, _LEAST = 256, 64


class Recorder:
    """Records the logits of each fold's held-out and inner samples after every epoch.

    It reads the networks and never changes them; nothing flows back to the trainer.

    Args:
        networks: The folds' networks, asked as they are at each call.
        data: The run's data.
        folds: Their `test` and `inner` samples are watched.
        epochs: How many epochs there will be.
        classes: Width of the logits.
        graphs: The chunk's CUDA graphs; none are used unless given.
        reading: What is recorded of logits; they themselves unless given.
    """

    def __init__(
        self,
        networks: Networks,
        data: TrainingData,
        folds: Sequence[Fold],
        epochs: int,
        classes: int,
        graphs: Graphs | None = None,
        reading: Reading | None = None,
    ) -> None:
        self._networks = networks
        self._reading = reading
        self._folds = folds
        # Folds watch unequal numbers of samples; the rows that fill up are predicted and never read.
        self._maps = Maps(data.maps, [np.concatenate([fold.test, fold.inner]) for fold in folds], networks)
        self._positions = torch.arange(self._maps.padded, device=networks.device).expand(len(folds), -1)
        self._block = max(_BLOCK // len(folds), _LEAST)
        self._record = torch.zeros(epochs, len(folds), self._maps.padded, classes, device=networks.device)
        self._seen = 0
        self._replayed = (graphs or Graphs()).replayed(self._predict, "prediction of held-out samples")

    def observe(self) -> None:
        """Predict every watched sample with the networks as they are now; the record stays on the device."""
        record = self._record[self._seen]
        for start in range(0, self._maps.padded, self._block):
            positions = self._positions[:, start : start + self._block]
            record[:, start : start + self._block] = self._replayed(positions)
        self._seen += 1

    def _predict(self, positions: Tensor) -> Tensor:
        maps, predict = self._maps.pick(positions), self._networks.predict
        return predict(maps) if self._reading is None else self._reading(predict, maps)

    def logits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the record.

        Returns:
            Per fold `(epochs, n, classes)` float32 of the held-out samples and `(epochs, m, classes)` of the
            inner ones.
        """
        record = self._record.cpu().numpy()
        parts = []
        for place, fold in enumerate(self._folds):
            held_out, inner = len(fold.test), len(fold.inner)
            rows = record[:, place]
            parts.append((rows[:, :held_out].copy(), rows[:, held_out : held_out + inner].copy()))
        return parts


@dataclass(frozen=True)
class Course:
    """How the training of one fold went, epoch by epoch.

    Attributes:
        logits: `(epochs, n, classes)` float32 of the held-out samples.
        inner_logits: `(epochs, m, classes)` float32 of the inner ones.
        train_loss: `(epochs,)` float32.
        train_accuracy: `(epochs,)` float32.
        seconds: Wall time.
    """

    logits: np.ndarray
    inner_logits: np.ndarray
    train_loss: np.ndarray
    train_accuracy: np.ndarray
    seconds: float


def fold_result(
    job: Job, data: TrainingData, fold: Fold, engine: str, course: Course, notes: Sequence[str] = ()
) -> FoldResult:
    """Put a fold's record together; a class that its training samples lack is noted in it."""
    counts = np.bincount(data.labels[fold.train], minlength=len(job.classes))
    absent = [absent_class_note(job.classes[k]) for k in np.flatnonzero(counts == 0)]
    return FoldResult(
        fold=fold.name,
        seed=job.seed,
        test_index=np.asarray(fold.test, np.int64),
        logits=course.logits,
        inner_index=np.asarray(fold.inner, np.int64),
        inner_logits=course.inner_logits,
        train_loss=course.train_loss,
        train_accuracy=course.train_accuracy,
        seconds=course.seconds,
        engine=engine,
        device="cpu" if engine == "classifier" else device_name(job),
        notes=(*absent, *notes),
    )
