"""What is said of a face that leaves, turns or tilts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mer_flow.extraction.footage import FrameFolder
from mer_flow.extraction.watch import Sighting, watch_warnings

FOOTAGE = FrameFolder(Path("clip"), tuple(range(5)), np.arange(5) / 10)


def sighted(*others: Sighting) -> tuple[str, ...]:
    return watch_warnings([Sighting(0, True, 0.02, (0.01, 0.5), 2.0), *others], FOOTAGE)


def test_a_face_that_stays_is_no_warning() -> None:
    assert (
        sighted(Sighting(2, True, 0.08, (0.05, 0.55), 8.0), Sighting(4, True, 0.0, (0.0, 0.48), -4.0)) == ()
    )


@pytest.mark.parametrize(
    ("sighting", "message"),
    [
        (Sighting(3, False), "frame 3 (0.30 s): no face is found there (1 of 2 frames looked at)"),
        (Sighting(3, True, 0.3, (0.0, 0.5), 2.0), "30% of the face lie beyond the picture's edge"),
        (Sighting(3, True, 0.0, (0.2, 0.5), 2.0), "the head turns (the nose moves 0.19 inter-ocular"),
        (Sighting(3, True, 0.0, (0.0, 0.35), 2.0), "the head turns"),
        (Sighting(3, True, 0.0, (0.0, 0.5), -15.0), "the head tilts by 17 degrees, limit 10"),
    ],
)
def test_what_happens_to_it_is_said_with_the_frame(sighting: Sighting, message: str) -> None:
    (warning,) = sighted(sighting)
    assert message in warning and warning.startswith("frame 3 (0.30 s)")
