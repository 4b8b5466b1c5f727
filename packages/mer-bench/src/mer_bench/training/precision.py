"""How precisely a GPU multiplies float32 matrices.

TF32 rounds the factors of a product to 10 bits of mantissa and adds in float32; it is several times as fast
as float32 on GPUs from Ampere on, and what PyTorch uses for convolutions unless told otherwise, so published
scripts trained with it. Sums, normalisation, losses and optimisers stay in float32 whatever is chosen here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mer_bench.errors import UsageError

PRECISIONS = ("auto", "float32", "tf32")

_AMPERE = 8


def resolve_precision(precision: str, device: str) -> str:
    """Turn `auto` into what the device is going to use.

    Args:
        precision: `auto`, `float32` or `tf32`.
        device: `cpu`, `cuda` or `cuda:k`; it must be there.

    Returns:
        `tf32` or `float32`; `auto` gives `tf32` on a GPU that knows it, else `float32`.

    Raises:
        UsageError: If the name is unknown, or the device does not know TF32.

    >>> resolve_precision("auto", "cpu")
    'float32'
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision '{precision}' is not one of {', '.join(PRECISIONS)}")
    knows = device != "cpu" and torch.cuda.get_device_capability(device)[0] >= _AMPERE
    if precision == "tf32" and not knows:
        raise UsageError(f"precision 'tf32' needs a GPU from Ampere on, not {device}; use 'float32'")
    return "tf32" if knows and precision != "float32" else "float32"


@contextmanager
def matrix_precision(precision: str, device: str) -> Iterator[None]:
    """Multiply float32 matrices, and convolve, in a given precision.

    Args:
        precision: `float32` or `tf32`, as resolved.
        device: Nothing is changed unless it is CUDA.

    Yields:
        Nothing; afterwards torch is as it was.
    """
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
