"""What a device can do at most: measured bandwidth and matrix products, for the floors beside the figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ceilings:
    """Measured on random data.

    Attributes:
        bandwidth: Bytes per second of a copy, read and written bytes both counted.
        float32: Floating-point operations per second of a float32 matrix product.
        tf32: Likewise with TF32 factors; that of float32 where the device has no TF32.
        bf16: Likewise of a bfloat16 product.
    """

    bandwidth: float
    float32: float
    tf32: float
    bf16: float


def median_time(call: Callable[[], object], device: torch.device, repeats: int = 7, inner: int = 1) -> float:
    """Seconds of a call: the median over repeats, each of `inner` calls in a row."""
    call()
    taken = []
    for _ in range(repeats):
        wait(device)
        begin = time.perf_counter()
        for _ in range(inner):
            call()
        wait(device)
        taken.append((time.perf_counter() - begin) / inner)
    return statistics.median(taken)


def wait(device: torch.device) -> None:
    """Waits until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def products_in(tf32: bool) -> Iterator[None]:
    """Multiplies float32 matrices on CUDA with TF32 factors, or without."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def measure_ceilings(device: torch.device, quick: bool = False) -> Ceilings:
    """Measures a device; about two seconds on a large GPU."""
    cuda = device.type == "cuda"
    numbers = 1 << (29 if cuda and not quick else 22)
    side = 8192 if cuda and not quick else 512
    copy = _copy_time(numbers, device)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))

    def product() -> torch.Tensor:
        return a @ b

    with products_in(False):
        float32 = 2 * side**3 / median_time(product, device, inner=2)
    tf32 = float32
    if cuda and torch.cuda.get_device_capability(device)[0] >= 8:
        with products_in(True):
            tf32 = 2 * side**3 / median_time(product, device, inner=2)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    bf16 = 2 * side**3 / median_time(lambda: half_a @ half_b, device, inner=2)
    return Ceilings(2 * 4 * numbers / copy, float32, tf32, bf16)


def _copy_time(numbers: int, device: torch.device) -> float:
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    return median_time(lambda: target.copy_(source), device, inner=4)
