"""The call that every flow backend answers, and what all of them check."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mer_flow.work.errors import FlowError


class FlowBackend(Protocol):
    """Dense optical flow of image pairs.

    Attributes:
        name: As in `flow.backend`.
        version: What decides the last digits, as in `cv2 4.11.0`.
    """

    name: str
    version: str

    def compute(self, onset: np.ndarray, apex: np.ndarray) -> np.ndarray:
        """Compute the displacement from onset to apex.

        Args:
            onset: uint8 (N, H, W) grey.
            apex: uint8 (N, H, W) grey.

        Returns:
            float32 (N, 2, H, W): u (+x right), v (+y down), px, finite.

        Raises:
            FlowError: The inputs do not fit, the computation fails, or its result is not finite.
        """
        ...


def check_pairs(onset: np.ndarray, apex: np.ndarray) -> None:
    """Raise FlowError unless both are uint8 (N, H, W) of one shape."""
    for label, frames in (("onset", onset), ("apex", apex)):
        if frames.dtype != np.uint8 or frames.ndim != 3:
            raise FlowError(f"flow wants {label} as uint8 (N, H, W) grey, got {frames.dtype} {frames.shape}")
    if onset.shape != apex.shape:
        raise FlowError(f"flow wants frames of one shape, got onset {onset.shape} and apex {apex.shape}")


def check_finite(flow: np.ndarray, name: str) -> None:
    """Raise FlowError naming the first pair whose flow, (N, 2, H, W), is not finite."""
    bad = ~np.isfinite(flow).all(axis=(1, 2, 3))
    if bad.any():
        raise FlowError(
            f"{name} returned a flow that is not finite for pair {int(np.argmax(bad))} of {len(flow)}; "
            "go back to the default flow parameters"
        )
