"""Flow along a whole clip: which frames it lies between, and what a store keeps of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mer_flow.views.resample import resize_flow

if TYPE_CHECKING:
    from mer_flow.extraction.extractor import Extractor


def sequence_pairs(frames: np.ndarray, mode: str) -> np.ndarray:
    """Pair the frames of a clip.

    Args:
        frames: (K, H, W), onset first.
        mode: `consecutive`: each and the next; `onset`: the onset and each later one.

    Returns:
        (K - 1, 2, H, W): from, to.

    >>> sequence_pairs(np.array([5, 6, 7])[:, None, None], "onset")[..., 0, 0].tolist()
    [[5, 6], [5, 7]]
    """
    first = frames[:-1] if mode == "consecutive" else np.broadcast_to(frames[:1], frames[1:].shape)
    return np.stack([first, frames[1:]], axis=1)


def reduced_sequence(flows: np.ndarray, landmarks: np.ndarray, engine: Extractor, size: int) -> np.ndarray:
    """Remove the head's motion and the margin, and reduce by area.

    Args:
        flows: float32 (K - 1, 2, S + 2 margin, S + 2 margin) px of the aligned face.
        landmarks: (68, 2) px on the aligned apex, which bound the face.
        engine: The pipeline.
        size: Side of the reduced maps, px, at most S.

    Returns:
        float32 (K - 1, 2, size, size): u, v in px of the reduced map.

    Raises:
        FlowError: The head's motion cannot be fitted.
    """
    align = engine.config.align
    inner = slice(align.margin_px, align.margin_px + align.size)
    still = [engine.without_head(flow, landmarks)[0][:, inner, inner] for flow in flows]
    return resize_flow(np.stack(still), size)
