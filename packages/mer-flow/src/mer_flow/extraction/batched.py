"""A build whose flow one process computes in batches, as CUDA wants it, while workers do everything else.

Samples go worker -> flow process -> worker -> writer. While the flow process computes one batch, the workers
finish the batch before and prepare the next. A pair's flow does not depend on its batch, so neither does the
store.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from mer_flow.config import PipelineConfig
from mer_flow.databases.clips import ClipTask
from mer_flow.extraction.extractor import extractor
from mer_flow.extraction.sample import Keep, Outcome, finish_sample, outcome_of, prepare_sample
from mer_flow.flow.base import FlowBackend
from mer_flow.work.clock import peak_memory_mb
from mer_flow.work.errors import FlowError
from mer_flow.work.executor import LocalProcesses, run_all

#: Samples handed to the flow process at once.
BATCH = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """The flow of one request, or why there is none.

    Attributes:
        flows: float32 (M, 2, H, W) px; None where it failed.
        reason: Why it failed.
        seconds: Its share of the batch's time.
        peak_mb: Peak resident memory of the flow process, MB.
    """

    flows: np.ndarray | None
    reason: str
    seconds: float
    peak_mb: float


def compute_each(backend: FlowBackend, requests: Sequence[np.ndarray]) -> list[Answer]:
    """Compute the flow of a batch.

    Args:
        backend: Computes it.
        requests: uint8 (M, 2, H, W) each: M pairs of frames.

    Returns:
        One answer per request. Where a batch fails each request is tried by itself, so a bad one fails alone.
    """
    start = time.perf_counter()
    try:
        pairs = np.concatenate(list(requests))
        flows = backend.compute(pairs[:, 0], pairs[:, 1])
    except (FlowError, MemoryError, ValueError) as error:
        if len(requests) > 1:
            return [found for request in requests for found in compute_each(backend, [request])]
        return [Answer(None, str(error), time.perf_counter() - start, peak_memory_mb())]
    ends = np.cumsum([len(request) for request in requests])
    share = (time.perf_counter() - start) / len(requests)
    return [
        Answer(part, "", share, peak_memory_mb()) for part in np.split(flows, [int(end) for end in ends[:-1]])
    ]


def _answer(requests: Sequence[np.ndarray], config: PipelineConfig) -> list[Answer]:
    return compute_each(extractor(config).flow, requests)


def run_batched(
    pool: LocalProcesses, tasks: Sequence[ClipTask], config: PipelineConfig, keep: Keep, batch: int = BATCH
) -> Generator[Outcome, None, None]:
    """Extract samples, their flow in batches by one process of its own.

    Args:
        pool: Does everything but the flow.
        tasks: The samples.
        config: The pipeline, resolved.
        keep: What to keep.
        batch: Samples handed to the flow process at once, at most.

    Yields:
        Outcomes, as they complete.

    Raises:
        WorkerError: The flow process died twice over one batch.
    """
    prepare = partial(prepare_sample, config=config, keep=keep)
    batches = [tasks[start : start + batch] for start in range(0, len(tasks), batch)]
    with LocalProcesses(1) as device:
        computing: _Batch | None = None
        for chunk in (*batches, ()):
            ready = []
            for task, future in run_all(pool, prepare, chunk):
                outcome = outcome_of(task.sample.sample_id, future)
                if outcome.prepared is None:
                    yield outcome
                else:
                    ready.append(outcome)
            before, computing = computing, _Batch(ready, device, config, keep) if ready else None
            if before is not None:
                yield from before.finished(pool)


class _Batch:
    """Prepared samples whose flow is being computed."""

    def __init__(self, ready: list[Outcome], device: LocalProcesses, config: PipelineConfig, keep: Keep):
        self.ready, self.device = ready, device
        self.answer = partial(_answer, config=config)
        self.finish = partial(finish_sample, config=config, keep=keep)
        self.requests = [item.prepared.pairs(keep.sequence) for item in ready if item.prepared]
        self.computing = device.submit(self.answer, self.requests)

    def finished(self, pool: LocalProcesses) -> Iterator[Outcome]:
        """Wait for the flow, and do what comes after it."""
        work = []
        for outcome, found in zip(self.ready, self._answers(), strict=True):
            outcome.seconds["flow"] = found.seconds
            outcome.peak_mb = max(outcome.peak_mb, found.peak_mb)
            if found.flows is None:
                outcome.stage, outcome.reason = "flow", found.reason
                yield outcome
            else:
                work.append((outcome, found.flows))
        for (outcome, _), future in run_all(pool, self.finish, work):
            yield outcome_of(outcome.sample_id, future)

    def _answers(self) -> list[Answer]:
        try:
            return self.computing.result()
        except BrokenExecutor:
            ((_, again),) = run_all(self.device, self.answer, [self.requests])
            return again.result()
