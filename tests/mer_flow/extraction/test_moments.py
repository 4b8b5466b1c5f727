"""Candidate moments chosen among windows, by curves whose peaks are known."""

from __future__ import annotations

import numpy as np
import pytest

from mer_flow.extraction.extractor import FoundFace
from mer_flow.extraction.moments import LEAST, Stretch, windows_of

FACE = FoundFace(np.eye(2, 3), (0, 0, 9, 9), True, {})
LENGTH = 10


def slid(movement: np.ndarray, step: int = 3) -> list[Stretch]:
    """Windows over a face whose skin lies `movement` px from rest: what each sees from its first frame."""
    found = []
    for first in range(0, len(movement) - LENGTH + 1, step):
        seen = np.abs(movement[first : first + LENGTH] - movement[first]) + 0.04
        found.append(Stretch(first, FACE, seen, first + int(seen.argmax()), ()))
    return found


def bumps(*apexes: int, height: float = 1.0, count: int = 120) -> np.ndarray:
    frames = np.arange(count)
    return height * sum(np.exp(-(((frames - apex) / 2.5) ** 2)) for apex in apexes)


@pytest.mark.parametrize("apexes", [(30,), (30, 80), (25, 60, 95)])
def test_each_movement_is_one_moment_seen_from_its_onset(apexes: tuple[int, ...]) -> None:
    chosen = windows_of(slid(bumps(*apexes))).candidates(9)
    assert len(chosen) == len(apexes)
    for stretch, apex in zip(chosen, apexes, strict=True):
        assert stretch.first < apex - 3, "the way there, not the way back"
        assert abs(stretch.top - apex) <= 1


def test_of_many_moments_the_strongest_are_kept_in_order() -> None:
    movement = bumps(20) + bumps(60, height=0.5) + bumps(100, height=2)
    chosen = windows_of(slid(movement)).candidates(2)
    assert [round(stretch.top, -1) for stretch in chosen] == [20, 100]


def test_a_still_face_and_a_face_that_never_rests_have_no_moment() -> None:
    assert windows_of(slid(np.zeros(60))).candidates(9) == ()
    assert windows_of(slid(np.zeros(60))).threshold == LEAST
    restless = windows_of(slid(np.sin(np.arange(120) / 3)))
    assert restless.threshold > 3 and restless.candidates(9) == ()


def test_windows_without_a_face_are_left_out() -> None:
    windows = windows_of([0, *slid(bumps(30)), 117])
    assert windows.faceless == (0, 117) and len(windows.candidates(9)) == 1
    assert windows_of([0, 3]).candidates(9) == ()
