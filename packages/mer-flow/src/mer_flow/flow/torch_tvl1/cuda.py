"""CUDA: recorded runs, flags read without waiting, and how many pairs fit."""

from __future__ import annotations

from collections.abc import Callable

import torch

#: Planes of a pair's size that its work takes: 165 to 190 are kept (arrays of all levels and of their halves,
#: the median filter's registers; counted on the CPU), the rest is room for images and for what each recorded
#: run allocates.
PLANES_PER_PAIR = 400
#: Part of the free memory that a batch may take.
SHARE = 0.7
#: Pairs in a batch at most: enough to fill a large GPU at 224x224 px.
LARGEST_BATCH = 64


class Monitor:
    """Which pairs of a batch still go on; read one run late on CUDA, so that the device never waits."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._waiting: tuple[torch.Tensor, torch.cuda.Event] | None = None

    def forget(self) -> None:
        """Drop what was looked at before."""
        self._waiting = None

    def look(self, active: torch.Tensor) -> list[bool] | None:
        """Note the flags, bool (N,), and return those noted last, if any; on the CPU those given."""
        if not self._cuda:
            return list(active.tolist())
        before = self._waiting
        copy = torch.empty(active.shape, dtype=torch.bool, pin_memory=True)
        copy.copy_(active, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting = (copy, event)
        if before is None:
            return None
        before[1].synchronize()
        return list(before[0].tolist())


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """Record what a call launches as a CUDA graph and return what replays it.

    The call works on the same memory every time and never waits for the device. It is made a few times first,
    so that nothing is compiled or reserved while recording.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def bytes_per_pair(height: int, width: int) -> int:
    """Return what one pair takes while it is computed."""
    return 4 * PLANES_PER_PAIR * height * width


def fitting_batch(height: int, width: int, free: int) -> int:
    """Return how many pairs fit into free memory: a power of two up to `LARGEST_BATCH`; 0 where none does.

    >>> fitting_batch(280, 280, 8 * 2**30), fitting_batch(1024, 1024, 8 * 2**30)
    (32, 2)
    """
    fits = int(free * SHARE) // bytes_per_pair(height, width)
    return 1 << (min(fits, LARGEST_BATCH).bit_length() - 1) if fits else 0


def free_memory(device: torch.device) -> int:
    """Return the bytes that a CUDA device can still give, PyTorch's own cache included."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
