"""What a device can do at most: measured bandwidth and matrix products, for the floors beside the figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Ceilings:
    """Measured on random data; on a CPU by processor time, the faster of MKL and oneDNN.

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


def least_processor_time(call: Callable[[], object], repeats: int = 9) -> float:
    """Seconds of processor time of a call: the least over repeats, as neighbours only add."""
    call()
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    return min(taken)


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
    if device.type == "cpu":
        return _cpu_ceilings(512, 1 << 22) if quick else _cpu_ceilings(1024, 1 << 26)
    side, numbers = (512, 1 << 22) if quick else (8192, 1 << 29)
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    copy = median_time(partial(target.copy_, source), device, inner=4)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    with products_in(False):
        float32 = 2 * side**3 / median_time(partial(torch.mm, a, b), device, inner=2)
    tf32 = float32
    if torch.cuda.get_device_capability(device)[0] >= 8:
        with products_in(True):
            tf32 = 2 * side**3 / median_time(partial(torch.mm, a, b), device, inner=2)
    bf16 = 2 * side**3 / median_time(partial(torch.mm, a.bfloat16(), b.bfloat16()), device, inner=2)
    return Ceilings(2 * 4 * numbers / copy, float32, tf32, bf16)


def _cpu_ceilings(side: int, numbers: int) -> Ceilings:
    source = torch.randn(numbers)
    target = torch.empty_like(source)
    copy = least_processor_time(partial(target.copy_, source))
    a, b = (torch.randn(side, side) for _ in range(2))
    # A convolution of one pixel is a matrix product, and goes to oneDNN.
    image = a.view(1, side, 1, side).permute(0, 3, 1, 2)
    kernel = b.view(side, side, 1, 1)
    products = (partial(torch.mm, a, b), partial(F.conv2d, image, kernel))
    float32 = 2 * side**3 / min(map(least_processor_time, products))
    bf16 = 2 * side**3 / least_processor_time(partial(torch.mm, a.bfloat16(), b.bfloat16()))
    return Ceilings(2 * 4 * source.numel() / copy, float32, float32, bf16)
