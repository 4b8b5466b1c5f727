"""Where folds are trained, and what torch is held to there: threads, determinism, precision.

TF32 rounds the factors of a product to 10 bits of mantissa and adds in float32; it is several times as fast
as float32 on GPUs from Ampere on, and what PyTorch uses for convolutions unless told otherwise, so published
scripts trained with it. Sums, normalisation, losses and optimisers stay in float32 whatever is chosen here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mer_bench.errors import UsageError
from mer_bench.training.job import Job

_AMPERE = 8


def resolve_device(device: str) -> str:
    """Turn `auto` into a device that is there.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:k`.

    Returns:
        `cpu`, `cuda` or `cuda:k`; `auto` gives `cuda` where there is one.

    Raises:
        UsageError: The device is unknown or absent.

    >>> resolve_device("cpu")
    'cpu'
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise UsageError(f"device '{device}' is not one of auto, cpu, cuda, cuda:<number>")
    if kind == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= there:
            raise UsageError(
                f"device '{device}' is not there: torch sees {there} CUDA devices; use --device cpu"
            )
    return device


def engine_of(job: Job) -> str:
    """Return `local` or `stacked`: by the device alone, unless the settings name one."""
    if job.spec.kind == "classifier":
        return "local"
    if job.training.engine != "auto":
        return job.training.engine
    return "local" if resolve_device(job.training.device) == "cpu" else "stacked"


def resolve_precision(precision: str, device: str) -> str:
    """Turn `auto` into the precision that the device is going to multiply in.

    Args:
        precision: `auto`, `float32` or `tf32`.
        device: `cpu`, `cuda` or `cuda:k`; it must be there.

    Returns:
        `tf32` or `float32`; `auto` gives `tf32` on a GPU that knows it, else `float32`.

    Raises:
        UsageError: The device does not know TF32.

    >>> resolve_precision("auto", "cpu")
    'float32'
    """
    knows = device != "cpu" and torch.cuda.get_device_capability(device)[0] >= _AMPERE
    if precision == "tf32" and not knows:
        raise UsageError(f"precision 'tf32' needs a GPU from Ampere on, not {device}; use 'float32'")
    return "tf32" if knows and precision != "float32" else "float32"


def device_of(job: Job) -> torch.device:
    """Return the device that a job's networks are trained on."""
    return torch.device(resolve_device(job.training.device))


def device_name(job: Job) -> str:
    """Return what a record names as its device; on a GPU with the precision of its matrix products."""
    device = resolve_device(job.training.device)
    precision = resolve_precision(job.training.precision, device)
    return device if precision == "float32" else f"{device} ({precision})"


@contextmanager
def torch_held(job: Job) -> Iterator[None]:
    """Hold torch to what a job asks for, and let go afterwards."""
    device = resolve_device(job.training.device)
    with (
        one_thread(device),
        determinism(job.training.deterministic),
        matrix_precision(resolve_precision(job.training.precision, device), device),
    ):
        yield


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Let torch use one thread on a CPU, so that a fold's sums are added in the same order everywhere."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Hold torch to deterministic algorithms, where wanted."""
    if not wanted:
        yield
        return
    # cuBLAS repeats itself only with a workspace of fixed size, and reads this once.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@contextmanager
def matrix_precision(precision: str, device: str) -> Iterator[None]:
    """Multiply float32 matrices, and convolve, in `float32` or `tf32` on a GPU; a CPU is left alone."""
    if device == "cpu":
        yield
        return
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    wanted = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
