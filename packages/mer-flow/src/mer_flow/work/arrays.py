"""NumPy's array format as data from a stranger: no objects, and no more memory than the bytes there are."""

from __future__ import annotations

import io
import math

import numpy as np

#: Truth values, integers, floats and text of a fixed width.
_PLAIN = "biufU"


def plain_array(content: bytes) -> np.ndarray:
    """Read one array from the bytes of an `.npy` file.

    Args:
        content: The file.

    Raises:
        ValueError: It is no such file, holds objects, or its header tells of more or fewer bytes than follow.

    >>> buffer = io.BytesIO()
    >>> np.save(buffer, np.arange(3))
    >>> plain_array(buffer.getvalue()).tolist()
    [0, 1, 2]
    """
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"array format {version}, expected (1, 0) or (2, 0)")
    shape, fortran, dtype = read_header[version](stream)
    claimed, there = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if dtype.kind not in _PLAIN or claimed != there:
        raise ValueError(f"header claims {shape} of {dtype}, {claimed:,} bytes, and {there:,} follow")
    return np.ndarray(shape, dtype, content, stream.tell(), order="F" if fortran else "C").copy()
