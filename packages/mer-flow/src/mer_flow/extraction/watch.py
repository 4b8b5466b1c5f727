"""Is the face still there, and does it still look the same way? Asked of a few frames along a clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mer_flow.faces.landmarks import NOSE_TIP, eye_centres

if TYPE_CHECKING:
    from mer_flow.extraction.extractor import Extractor
    from mer_flow.extraction.footage import Footage

#: Share of the aligned face beyond the picture that is worth a word.
OUTSIDE_LIMIT = 0.10
#: Way of the nose's tip between the eyes, in inter-ocular distances, that is a turned head. The tip stands
#: out by nearly half of one, so this is about 13 degrees; dlib's points err by 0.02.
TURN_LIMIT = 0.10
#: Degrees in the picture's plane; alignment and stabilisation mend less.
TILT_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """The face in one frame.

    Attributes:
        position: Of the frame.
        found: Whether there is a face.
        outside: Share of the aligned face, 0 to 1, that lies beyond the picture.
        nose: Nose tip from the middle of the eyes, in inter-ocular distances, along and across their line.
        tilt: Of the line of the eyes, degrees clockwise.
    """

    position: int
    found: bool
    outside: float = 0.0
    nose: tuple[float, float] = (0.0, 0.0)
    tilt: float = 0.0


def sight(position: int, frame: np.ndarray, engine: Extractor) -> Sighting:
    """Look for the face in a frame, uint8 (H, W) or (H, W, 3) RGB."""
    from mer_flow.faces.align import eye_matrix, outside_share
    from mer_flow.faces.detect import detect_face
    from mer_flow.faces.landmarks import find_landmarks

    found = detect_face(frame, engine.config.faces)
    if found is None:
        return Sighting(position, False)
    points = find_landmarks(frame, found.box)
    right, left = (complex(*eye) for eye in eye_centres(points))
    nose = (complex(*points[NOSE_TIP]) - (right + left) / 2) / (left - right)
    matrix = eye_matrix(*eye_centres(points), engine.config.align)
    outside = outside_share(frame.shape, matrix, engine.config.align)
    tilt = math.degrees(math.atan2((left - right).imag, (left - right).real))
    return Sighting(position, True, outside, (nose.real, nose.imag), tilt)


def watch_warnings(sightings: Sequence[Sighting], footage: Footage) -> tuple[str, ...]:
    """Say when the face leaves the picture or the head turns, compared with the first sighting; a line each.

    Args:
        sightings: In the order of the frames; the first one has a face.
        footage: What they were seen in.
    """
    said = []
    first = sightings[0]
    gone = [s for s in sightings if not s.found]
    if gone:
        said.append(
            f"{footage.named(gone[0].position)}: no face is found there ({len(gone)} of {len(sightings)} "
            "frames looked at): it leaves the picture, is covered, or turns away"
        )
    cut = max((s for s in sightings if s.found), key=lambda s: s.outside)
    if cut.outside > OUTSIDE_LIMIT:
        said.append(
            f"{footage.named(cut.position)}: {cut.outside:.0%} of the face lie beyond the picture's edge, "
            "where flow is made up"
        )
    seen = [s for s in sightings if s.found]
    turned = max(seen, key=lambda s: math.dist(s.nose, first.nose))
    way = math.dist(turned.nose, first.nose)
    if way > TURN_LIMIT:
        said.append(
            f"{footage.named(turned.position)}: the head turns (the nose moves {way:.2f} inter-ocular "
            f"distances between the eyes, limit {TURN_LIMIT}): flow there is the head's, not the skin's"
        )
    tilted = max(seen, key=lambda s: abs(s.tilt - first.tilt))
    if abs(tilted.tilt - first.tilt) > TILT_LIMIT:
        angle = abs(tilted.tilt - first.tilt)
        said.append(
            f"{footage.named(tilted.position)}: the head tilts by {angle:.0f} degrees, limit {TILT_LIMIT:.0f}"
        )
    return tuple(said)
