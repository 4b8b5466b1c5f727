"""Finding the face of a frame with dlib's HOG detector."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mer_flow.config import FacesConfig
from mer_flow.work.errors import FaceError
from mer_flow.work.libraries import load_dlib

#: Box of a face, px of the frame: left, top, right, bottom.
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Detection:
    """The face chosen in a frame, and what was not chosen."""

    box: Box
    scores: tuple[float, ...]  # of all detections, highest first: the chosen one's
    upsampled: int = 0  # doublings that were needed
    padded: bool = False  # found only after a border had been added

    @property
    def score(self) -> float:
        """The detector's score of the face."""
        return self.scores[0]


@functools.cache
def load_detector() -> Any:
    """Return this process's detector."""
    return load_dlib().get_frontal_face_detector()


def _run(image: np.ndarray, upsample: int, min_score: float) -> list[tuple[float, Box]]:
    rectangles, scores, _ = load_detector().run(np.ascontiguousarray(image), upsample, min_score)
    found = [
        (float(score), (box.left(), box.top(), box.right(), box.bottom()))
        for score, box in zip(scores, rectangles, strict=True)
    ]
    # The detector's order is no ranking: false detections of score 0.1 may come first.
    return sorted(found, key=lambda item: (-item[0], item[1]))


def detect_face(image: np.ndarray, config: FacesConfig, cropped: bool = False) -> Detection | None:
    """Find the face with the highest score.

    Args:
        image: uint8 (H, W) or (H, W, 3) RGB.
        config: Score threshold and retries.
        cropped: The frame comes from a cropped release; each try is repeated with a border around it,
            because a tight crop leaves the detector no context.

    Returns:
        The detection, or None where no try found a face.
    """
    border = round(config.crop_padding * max(image.shape[:2])) if cropped else 0
    widths = [(border, border), (border, border)] + [(0, 0)] * (image.ndim - 2)
    for upsample in range(config.upsample + 1):
        for edge in (0, border) if border else (0,):
            found = _run(np.pad(image, widths, mode="edge") if edge else image, upsample, config.min_score)
            if found:
                left, top, right, bottom = (side - edge for side in found[0][1])
                scores = tuple(score for score, _ in found)
                return Detection((left, top, right, bottom), scores, upsample, padded=edge > 0)
    return None


def refuse_outlier(
    found: Detection, others: Iterable[np.ndarray], config: FacesConfig, cropped: bool = False
) -> None:
    """Refuse a face that scores far below those of its clip: it is hardly the face, or hidden.

    Args:
        found: What was detected in the onset.
        others: Further frames of the clip, read only where the score is doubtful.
        config: From which score on it is not, and how far it may lie below the others' median.
        cropped: As for `detect_face`.

    Raises:
        FaceError: It lies further below.
    """
    if found.score >= config.doubtful_score:
        return
    scores = [other.score for frame in others if (other := detect_face(frame, config, cropped))]
    if scores and (usual := float(np.median(scores))) - found.score > config.max_drop:
        raise FaceError(
            f"the face in the onset frame scores {found.score:.2f}, those in {len(scores)} other frame(s) of "
            f"the clip {usual:.2f} (median), more than {config.max_drop} above: hidden, blurred or no face; "
            "look at the frame and correct the onset, or keep it with --set faces.max_drop=10"
        )


def no_face(image: np.ndarray, config: FacesConfig) -> FaceError:
    """Build the error for a frame without a face."""
    height, width = image.shape[:2]
    return FaceError(
        f"no face found in the {width}x{height} px onset frame "
        f"(dlib HOG, up to {config.upsample} doublings, score >= {config.min_score}); look at the frame; "
        f"for a small face: --set faces.upsample={config.upsample + 1}; for frames cropped to the face: "
        "--release cropped, or --cropped in a prediction"
    )
