"""Work on a GPU launched once as a CUDA graph, in place of kernel by kernel.

A step of a small network is hundreds of kernels of a few microseconds, which Python launches slower than the
GPU runs them. A graph replays all of them with one call. It may be captured where a function reads and
writes the same memory each time and never waits for the GPU: shapes are fixed, step counters and learning
rates are tensors, and nothing is asked back (`item`, `nonzero`, a branch on a value).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mer_bench.training.failures import is_out_of_memory

logger = logging.getLogger(__name__)

# The first call makes the optimiser's state and the libraries' workspaces; the second is as all that follow.
_WARM_CALLS = 2


class Graphs:
    """The graphs of one chunk of folds, which never run at the same time and share their memory.

    Args:
        capture: Whether work is captured, as on CUDA; otherwise functions are called plainly.
        on_device: Whether a step reads all that changes from tensors, as a graph needs it.

    Attributes:
        notes: What stood in the way of graphs or of a compiler, once each, for the records of the folds.
    """

    def __init__(self, capture: bool = False, on_device: bool | None = None) -> None:
        self.capture = capture
        self.on_device = capture if on_device is None else on_device
        self.notes: list[str] = []
        self._pool = torch.cuda.graph_pool_handle() if capture else None

    def note(self, note: str) -> None:
        """Keep and log what was done instead, and why."""
        if note not in self.notes:
            self.notes.append(note)
            logger.warning("%s", note)

    def replayed(self, function: Callable[[Tensor], Any], name: str) -> Callable[[Tensor], Any]:
        """Return a function whose calls are replayed from a graph once it is warm.

        Every shape of the argument has a graph of its own. What the function returns lies in the graph's
        memory: it holds until the next call.

        Args:
            function: Takes a tensor and returns a tensor or a tuple of them. It must not depend on Python
                values that change between calls.
            name: What notes call it.
        """
        return _Replayed(function, name, self, self._pool) if self.capture else function


class _Replayed:
    def __init__(self, function: Callable[[Tensor], Any], name: str, graphs: Graphs, pool: Any) -> None:
        self._function = function
        self._name = name
        self._owner = graphs
        self._pool = pool
        self._plainly = False
        self._calls: dict[torch.Size, int] = {}
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Any]] = {}

    def __call__(self, argument: Tensor) -> Any:
        if self._plainly:
            return self._function(argument)
        shape = argument.shape
        if shape not in self._graphs:
            self._calls[shape] = self._calls.get(shape, 0) + 1
            if self._calls[shape] <= _WARM_CALLS or not self._capture(argument):
                return self._function(argument)
        graph, static, output = self._graphs[shape]
        static.copy_(argument)
        graph.replay()
        return output

    def _capture(self, argument: Tensor) -> bool:
        """Capture a call without executing it; return whether that went well."""
        static = argument.clone()
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream(argument.device)
        # What earlier calls freed is cached for calls outside a graph; the graph needs it itself.
        torch.cuda.synchronize(argument.device)
        torch.cuda.empty_cache()
        try:
            with torch.cuda.stream(stream), torch.cuda.graph(graph, pool=self._pool, stream=stream):
                output = self._function(static)
        except Exception as error:  # a plug-in's network may do anything; it runs plainly instead
            if is_out_of_memory(error):
                raise
            self._plainly = True
            first = str(error).strip().partition("\n")[0]
            self._owner.note(
                f"the {self._name} could not be captured as a CUDA graph ({type(error).__name__}: {first}); "
                "it ran kernel by kernel, with the same result but slower"
            )
            return False
        self._graphs[argument.shape] = (graph, static, output)
        return True


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Run on a stream of its own on CUDA, as capture is not allowed on the default one.

    On leaving, what follows waits for the work done within.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.current_stream(device)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(before)
    try:
        with torch.cuda.device(device), torch.cuda.stream(stream):
            yield
    finally:
        before.wait_stream(stream)
