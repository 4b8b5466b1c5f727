"""What the pipeline finds: a face, a pair that lacks its flow, and everything of one pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class FoundFace:
    """The face of an onset frame and the alignment that follows from it.

    Attributes:
        matrix: float64 (2, 3), frame px to aligned px; holds for every frame of the clip.
        box: Left, top, right, bottom, px of the frame: where landmarks are looked for.
        detected: Whether a detector found it; otherwise the crop as a whole stands in.
        notes: What is recorded about it.
    """

    matrix: np.ndarray
    box: tuple[int, int, int, int]
    detected: bool
    notes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PreparedPair:
    """A pair that lacks its flow only; S is `align.size`.

    Attributes:
        grey: uint8 (2, S + 2 margin, S + 2 margin): onset and apex, between which the flow is.
        landmarks: As in `Extracted`, and so on.
        regions: Likewise.
        alignment: Likewise.
        onset_face: Likewise.
        apex_face: Likewise.
        notes: Likewise, head motion not yet among them.
        seconds: Time per stage so far.
    """

    grey: np.ndarray
    landmarks: np.ndarray
    regions: np.ndarray
    alignment: np.ndarray
    onset_face: np.ndarray
    apex_face: np.ndarray
    notes: dict[str, Any]
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Extracted:
    """What one onset and apex pair gives; S is `align.size`.

    Attributes:
        flow: float32 (3, S, S): u (+x right), v (+y down) in px of the aligned face, strain dimensionless.
        landmarks: float32 (68, 2) px, on the aligned apex.
        regions: float32 (5, 2) px, on the aligned apex: left eye, right eye, nose, left lip corner, right
            lip corner, the subject's own sides.
        alignment: float64 (2, 3), onset px to aligned px.
        onset_face: uint8 (S, S) or (S, S, 3).
        apex_face: Likewise.
        notes: What happened, plain values; `fallbacks` lists every deviation from the first choice.
        seconds: Time per stage: detect, landmarks, align, mesh, flow, stabilise, strain.
    """

    flow: np.ndarray
    landmarks: np.ndarray
    regions: np.ndarray
    alignment: np.ndarray
    onset_face: np.ndarray
    apex_face: np.ndarray
    notes: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
