"""A build whose flow one process computes in batches, as CUDA wants it, while workers do everything else.

Samples go worker -> flow process -> worker -> writer. The flow process takes whatever waits for it, up to a
limit, as soon as it is free, so batches fill up by themselves where flow is the slowest part and nothing
waits where it is not. A pair's flow does not depend on its batch, so neither does the store.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from mer_flow.config import PipelineConfig
from mer_flow.databases.clips import ClipTask
from mer_flow.extraction.sample import (
    Keep,
    Outcome,
    PreparedSample,
    finish_sample,
    prepare_sample,
    prepare_worker,
)
from mer_flow.flow.base import FlowBackend
from mer_flow.work.errors import FlowError
from mer_flow.work.executor import QUEUE_PER_WORKER, WorkerPool, deaths_explained, peak_memory_mb

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


#: Set once in the flow process.
_backend: FlowBackend | None = None


def prepare_flow(config: PipelineConfig) -> None:
    """Sets the flow process up."""
    from mer_flow.extraction.extractor import flow_backend

    global _backend
    _backend = flow_backend(config)


def answer(requests: Sequence[np.ndarray]) -> list[Answer]:
    """Computes the flow of a batch, in the flow process.

    Args:
        requests: uint8 (M, 2, H, W) each: M pairs of frames.

    Returns:
        One answer per request. Where a batch fails each request is tried by itself, so a bad one fails alone.
    """
    if _backend is None:
        raise RuntimeError("prepare_flow was not called in this process")
    return compute_each(_backend, requests)


def compute_each(backend: FlowBackend, requests: Sequence[np.ndarray]) -> list[Answer]:
    """Computes the flow of requests; see `answer`."""
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


def run_batched(
    tasks: Sequence[ClipTask], workers: int, config: PipelineConfig, keep: Keep, batch: int = BATCH
) -> Generator[Outcome, None, None]:
    """Extracts samples, their flow in batches by one process of its own.

    Args:
        tasks: The samples.
        workers: Processes for everything but the flow.
        config: The pipeline, resolved.
        keep: What to keep.
        batch: Samples handed to the flow process at once, at most.

    Yields:
        Outcomes, as they complete.

    Raises:
        WorkerError: A process was killed.
        MerFlowError: A process could not be set up.
    """
    if not tasks:
        return
    waiting = deque(tasks)
    preparing: set[Future[tuple[Outcome, PreparedSample | None]]] = set()
    ready: deque[tuple[Outcome, PreparedSample]] = deque()
    flowing: dict[Future[list[Answer]], list[tuple[Outcome, PreparedSample]]] = {}
    finishing: set[Future[Outcome]] = set()
    # Bounds the memory of what is under way: one batch being computed, one waiting, the workers' queues.
    most = 2 * batch + workers * QUEUE_PER_WORKER
    with (
        deaths_explained(),
        WorkerPool(min(workers, len(tasks)), prepare_worker, (config, keep, False)) as pool,
        WorkerPool(1, prepare_flow, (config,)) as device,
    ):
        try:
            while waiting or preparing or ready or flowing or finishing:
                under_way = len(preparing) + len(ready) + len(finishing) + sum(map(len, flowing.values()))
                while waiting and len(preparing) < workers * QUEUE_PER_WORKER and under_way < most:
                    preparing.add(pool.submit(prepare_sample, waiting.popleft()))
                    under_way += 1
                while ready and (not flowing or (len(flowing) < 2 and len(ready) >= batch)):
                    chosen = [ready.popleft() for _ in range(min(batch, len(ready)))]
                    requests = [prepared.pairs(keep.sequence) for _, prepared in chosen]
                    flowing[device.submit(answer, requests)] = chosen
                pending: set[Future[Any]] = {*preparing, *flowing, *finishing}
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done & preparing:
                    preparing.discard(future)
                    outcome, prepared = future.result()
                    if prepared is None:
                        yield outcome
                    else:
                        ready.append((outcome, prepared))
                for future in done & flowing.keys():
                    for (outcome, prepared), found in zip(flowing.pop(future), future.result(), strict=True):
                        outcome.seconds["flow"] = outcome.seconds.get("flow", 0.0) + found.seconds
                        outcome.wall += found.seconds
                        outcome.peak_mb = max(outcome.peak_mb, found.peak_mb)
                        if found.flows is None:
                            outcome.stage, outcome.reason = "flow", found.reason
                            yield outcome
                        else:
                            finishing.add(pool.submit(finish_sample, outcome, prepared, found.flows))
                for future in done & finishing:
                    finishing.discard(future)
                    yield future.result()
        except BaseException:
            for processes in (pool, device):
                processes.shutdown(wait=False, cancel_futures=True)
            raise
