"""Numbers to colours: the flow wheel, the diverging map of u and v, the sequential map of strain.

Every map comes out as (H, W, 3) uint8 RGB; a scale that does not end at a positive number is a UsageError.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_flow.work.errors import UsageError

Colour = tuple[int, int, int]

#: Colours of the flow wheel in order of angle: right is red, down yellow, left cyan, up blue to magenta.
_WHEEL_COLOURS: tuple[Colour, ...] = (
    (255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0)
)  # fmt: skip
#: Arc lengths between them, by perceived difference: 15 steps from red to yellow, 6 to green, and so on.
_WHEEL_ARCS = (15, 6, 4, 11, 13, 6)

_DIVERGING = ((5, 48, 97), (67, 147, 195), (247, 247, 247), (214, 96, 77), (103, 0, 31))
_SEQUENTIAL = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


def flow_to_colour(flow: NDArray[Any], maximum: float) -> NDArray[np.uint8]:
    """Colour a flow field by direction (hue) and magnitude (saturation).

    White is no motion; a colour is fully saturated at `maximum` and darker beyond it. Right is red, down
    yellow, left cyan, up blue. The wheel is the one of Baker et al., "A Database and Evaluation Methodology
    for Optical Flow", IJCV 2011, https://doi.org/10.1007/s11263-010-0390-2.

    Args:
        flow: (2, H, W) float, u and v in px, +x right, +y down; a pixel that is not finite is drawn black.
        maximum: The magnitude in px that is fully saturated.

    Raises:
        UsageError: `flow` has another shape, or `maximum` is not positive.

    >>> flow_to_colour(np.array([[[0.0, 2.0]], [[0.0, 0.0]]]), 2.0).tolist()
    [[[255, 255, 255], [255, 0, 0]]]
    """
    field = np.asarray(flow, dtype=np.float64)
    if field.ndim != 3 or field.shape[0] != 2:
        raise UsageError(f"a flow field is (2, H, W), got {field.shape}; pass u and v without the strain")
    top = _positive(maximum)
    known = np.isfinite(field).all(axis=0)
    u, v = np.where(known, field, 0.0)
    turn = np.mod(np.arctan2(v, u), 2 * np.pi) / (2 * np.pi) * sum(_WHEEL_ARCS)
    hue = _interpolated(turn, np.cumsum([0, *_WHEEL_ARCS]), np.array(_WHEEL_COLOURS) / 255.0)
    strength = (np.hypot(u, v) / top)[..., None]
    colour = np.where(strength <= 1.0, 1.0 - strength * (1.0 - hue), 0.75 * hue)
    colour[~known] = 0.0
    return np.rint(colour * 255.0).astype(np.uint8)


def signed_to_colour(values: NDArray[Any], maximum: float) -> NDArray[np.uint8]:
    """Colour a signed map on a symmetric scale: blue at `-maximum`, white at zero, red at `+maximum`.

    A value that is not finite is mid-grey.

    >>> signed_to_colour(np.array([[0.0]]), 1.0).tolist()
    [[[247, 247, 247]]]
    """
    return _ramp(np.asarray(values, dtype=np.float64) / (2 * _positive(maximum)) + 0.5, _DIVERGING)


def unsigned_to_colour(values: NDArray[Any], maximum: float) -> NDArray[np.uint8]:
    """Colour a map that starts at zero: black at zero, over purple and orange, pale yellow at `maximum`.

    A value that is not finite is mid-grey.

    >>> unsigned_to_colour(np.array([[0.0, 1.0]]), 1.0).tolist()
    [[[0, 0, 4], [252, 255, 164]]]
    """
    return _ramp(np.asarray(values, dtype=np.float64) / _positive(maximum), _SEQUENTIAL)


def flow_wheel(size: int) -> NDArray[np.uint8]:
    """Draw the legend of `flow_to_colour`: every direction, still in the centre, `maximum` at the rim.

    >>> flow_wheel(33)[16, 32].tolist()
    [255, 0, 0]
    """
    axis = np.linspace(-1.0, 1.0, size)
    field = np.stack(np.broadcast_arrays(axis[None, :], axis[:, None]))
    outside = np.hypot(*field) > 1.0 + 1e-9
    picture = flow_to_colour(np.where(outside, 0.0, field), 1.0)
    picture[outside] = 255
    return picture


def nice_ceiling(value: float) -> float:
    """Round up to 1, 1.5, 2, 3, 4, 5 or 7 times a power of ten, for the end of a scale.

    >>> nice_ceiling(1.7), nice_ceiling(0.034), nice_ceiling(0.0)
    (2.0, 0.04, 1.0)
    """
    if not (np.isfinite(value) and value > 0):
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    step = next(s for s in (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0) if value <= s * power * (1 + 1e-9))
    return float(f"{step * power:.6g}")


def _ramp(values: NDArray[Any], anchors: tuple[Colour, ...]) -> NDArray[np.uint8]:
    """Interpolate evenly spaced colours at `values` in [0, 1]; what is not finite becomes mid-grey."""
    known = np.isfinite(values)
    at = np.where(known, np.clip(values, 0.0, 1.0), 0.0) * (len(anchors) - 1)
    colour = _interpolated(at, np.arange(len(anchors)), np.array(anchors, dtype=np.float64))
    colour[~known] = 128.0
    return np.rint(colour).astype(np.uint8)


def _interpolated(at: NDArray[Any], knots: NDArray[Any], table: NDArray[Any]) -> NDArray[np.float64]:
    return np.stack([np.interp(at, knots, channel) for channel in table.T], axis=-1)


def _positive(maximum: float) -> float:
    if not (np.isfinite(maximum) and maximum > 0):
        raise UsageError(
            f"the colour scale must end at a positive number, got {maximum}; give the largest value to show"
        )
    return float(maximum)
