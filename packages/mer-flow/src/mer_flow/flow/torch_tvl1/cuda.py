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
    """Which pairs of a batch still go on, read on CUDA one run late, so that the device never waits for it.

    Args:
        device: Where the flags live.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._waiting: tuple[torch.Tensor, torch.cuda.Event] | None = None

    def forget(self) -> None:
        """Drops what was looked at before."""
        self._waiting = None

    def look(self, active: torch.Tensor) -> list[bool] | None:
        """Notes the flags and returns those noted last; on the CPU those given.

        Args:
            active: bool (N,).

        Returns:
            N flags; None where none were noted before.
        """
        if not self._cuda:
            flags: list[bool] = active.tolist()
            return flags
        before = self._waiting
        copy = torch.empty(active.shape, dtype=torch.bool, pin_memory=True)
        copy.copy_(active, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting = (copy, event)
        if before is None:
            return None
        before[1].synchronize()
        flags = before[0].tolist()
        return flags


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """Records what a call launches as a CUDA graph.

    Args:
        run: Works on the same memory in every call and never waits for the device; called a few times first,
            so that nothing is compiled or reserved while recording.

    Returns:
        Replays the record.
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
    replay: Callable[[], None] = graph.replay
    return replay


def bytes_per_pair(height: int, width: int) -> int:
    """Returns what one pair takes while it is computed."""
    return 4 * PLANES_PER_PAIR * height * width


def fitting_batch(height: int, width: int, free: int, largest: int = LARGEST_BATCH) -> int:
    """Returns how many pairs fit into free memory: a power of two up to `largest`; 0 where none does.

    >>> fitting_batch(280, 280, 8 * 2**30)
    32
    >>> fitting_batch(1024, 1024, 8 * 2**30)
    2
    """
    fits = int(free * SHARE) // bytes_per_pair(height, width)
    return 1 << (min(fits, largest).bit_length() - 1) if fits else 0


def free_memory(device: torch.device) -> int:
    """Returns the bytes that a CUDA device can still give, PyTorch's own cache included."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
