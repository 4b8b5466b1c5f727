"""The apex of one clip on disk: frames read, aligned and handed to the spotters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mer_flow.databases.clips import ClipFrames
from mer_flow.extraction.apex import spot_apex
from mer_flow.extraction.extractor import Extractor, FoundFace


def spot_methods(
    clip: ClipFrames, methods: Sequence[str], engine: Extractor, face: FoundFace
) -> dict[str, int]:
    """Spots the apex of one clip by several methods, reading it once.

    Args:
        clip: The clip.
        methods: Some of `mer_flow.config.SPOTTERS`.
        engine: The pipeline.
        face: The face of the onset.

    Returns:
        Method -> apex as a number of the sheet.

    Raises:
        FrameError: Fewer than two frames exist, or one is unreadable.
    """
    numbers = clip.numbers()
    frames: list[np.ndarray] = [np.zeros((1, 1), np.uint8)] * len(numbers)
    landmarks = None
    if any(method != "midpoint" for method in methods):  # which needs no pixels
        from mer_flow.faces.align import to_grey, transform
        from mer_flow.faces.landmarks import find_landmarks

        first = clip.read_exact(numbers[0])
        if face.detected:
            landmarks = transform(face.matrix, find_landmarks(first, face.box))
        frames = [
            to_grey(f) for f in engine.align_clip((clip.read_exact(number) for number in numbers), face)
        ]
    return {method: numbers[spot_apex(frames, method, landmarks).index] for method in methods}
