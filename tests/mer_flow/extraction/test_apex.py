"""Apex spotting on clips of a real face whose apex is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.mer_flow.stores import sample_of

from mer_flow.config import SPOTTERS, load_config
from mer_flow.databases.clips import ClipTask
from mer_flow.extraction.apex import (
    difference_curves,
    divide_and_conquer,
    follow,
    region_boxes,
    spot_apex,
    spot_clip,
)
from mer_flow.extraction.extractor import FoundFace, extract_pair, extractor
from mer_flow.extraction.moments import LEAST, follow_stretch
from mer_flow.samples import UNKNOWN_FRAME
from mer_flow.work.errors import FrameError, UsageError

LENGTH, APEX = 24, 7
SMALL = ["align.size=160"]


def strength(i: int) -> float:
    """Raised cosines from the onset up to the apex and down to the offset."""
    phase = i / APEX if i <= APEX else (LENGTH - 1 - i) / (LENGTH - 1 - APEX)
    return float(0.5 - 0.5 * np.cos(np.pi * phase))


def film(frame: np.ndarray, move: Callable, bump: Callable, drift: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    field = bump(frame.shape, (268, 162), (0.0, -1.6), 16) + bump(frame.shape, (367, 165), (0.0, -1.6), 16)
    frames = []
    for i in range(LENGTH):
        head = np.zeros_like(field)
        head[0] += drift * i / (LENGTH - 1)
        shown = move(frame, strength(i) * field + head) + rng.normal(size=frame.shape)
        frames.append(np.clip(np.rint(shown), 0, 255).astype(np.uint8))
    return frames


def aligned(frames: list[np.ndarray]) -> list[np.ndarray]:
    engine = extractor(load_config(sets=SMALL))
    return engine.align_clip(frames, engine.find_face(frames[0]))


@pytest.fixture(scope="module")
def grey(face_frame: np.ndarray) -> np.ndarray:
    return np.rint(face_frame @ [0.299, 0.587, 0.114]).astype(np.uint8)


@pytest.fixture(scope="module")
def raised_brow(grey: np.ndarray, move: Callable, bump: Callable) -> list[np.ndarray]:
    return film(grey, move, bump, drift=0.0)


@pytest.fixture(scope="module")
def still_head(raised_brow: list[np.ndarray]) -> list[np.ndarray]:
    return aligned(raised_brow)


@pytest.fixture(scope="module")
def drifting_head(grey: np.ndarray, move: Callable, bump: Callable) -> list[np.ndarray]:
    return aligned(film(grey, move, bump, drift=1.5))


def test_midpoint_is_the_middle(still_head: list[np.ndarray]) -> None:
    assert spot_apex(still_head, "midpoint") == LENGTH // 2


@pytest.mark.parametrize("method", ["difference", "flow-peak"])
def test_a_raised_brow_is_spotted(method: str, still_head: list[np.ndarray]) -> None:
    assert abs(spot_apex(still_head, method) - APEX) <= 2 < abs(LENGTH // 2 - APEX)


def test_flow_peak_sees_through_a_drifting_head_where_difference_does_not(
    drifting_head: list[np.ndarray],
) -> None:
    assert abs(spot_apex(drifting_head, "flow-peak") - APEX) <= 2
    assert abs(spot_apex(drifting_head, "difference") - APEX) > 5


def test_given_landmarks_place_the_regions(grey: np.ndarray, still_head: list[np.ndarray]) -> None:
    quick = ["align.size=160", "flow.nscales=2", "flow.warps=1", "regions.backend=dlib"]
    landmarks = extract_pair(grey, grey, load_config(sets=quick)).landmarks
    measured, assumed = region_boxes(160, landmarks), region_boxes(160)
    for (rows, columns), (rows_assumed, columns_assumed) in zip(measured, assumed, strict=True):
        assert abs(rows.start - rows_assumed.start) < 0.15 * 160
        assert abs(columns.start - columns_assumed.start) < 0.15 * 160
    assert abs(spot_apex(still_head, "flow-peak", landmarks) - APEX) <= 2


def test_a_flicker_of_the_light_is_no_difference() -> None:
    frame = np.random.default_rng(0).integers(60, 120, (160, 160), dtype=np.uint8)
    brighter = np.rint(frame * 1.1).astype(np.uint8)
    curves = difference_curves([frame, brighter], region_boxes(160))
    assert curves[1].max() < 0.6 < np.abs(brighter.astype(float) - frame).mean()


@pytest.mark.parametrize("method", SPOTTERS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_short_clips_have_an_apex_after_the_onset(
    method: str, count: int, still_head: list[np.ndarray]
) -> None:
    index = spot_apex(still_head[:count], method)
    assert index == 0 if count == 1 else 1 <= index < count


def test_a_still_clip_has_some_apex() -> None:
    frames = [np.full((64, 64), 90, np.uint8)] * 6
    for method in SPOTTERS:
        assert 1 <= spot_apex(frames, method) < 6


@pytest.mark.parametrize("peak", range(1, 30))
def test_divide_and_conquer_finds_every_single_peak(peak: int) -> None:
    curve = np.exp(-0.5 * ((np.arange(30) - peak) / 5.0) ** 2)
    assert divide_and_conquer(curve) == peak


def test_the_three_regions_that_move_most_are_followed_smoothly() -> None:
    steady = np.tile([1.0, 5.0, 2.0, 4.0, 3.0], (40, 1))
    np.testing.assert_allclose(follow(steady), 4.0)
    blow = np.zeros((40, 5))
    blow[20, 2] = 3.0
    window = np.hanning(11)[1:-1]  # a tenth of the clip on each side
    np.testing.assert_allclose(follow(blow)[16:25], window / window.sum(), atol=1e-12)
    assert not follow(blow)[:16].any() and not follow(blow)[25:].any()


def test_divide_and_conquer_prefers_the_half_with_more_movement() -> None:
    curve = np.zeros(32)
    curve[4] = 1.0
    curve[20:28] = 0.9
    assert 20 <= divide_and_conquer(curve) < 28, "a lone spike is no expression"


def test_a_spotted_apex_is_a_number_of_the_sheet(tmp_path: Path) -> None:
    for number in range(101, 112):
        Image.new("L", (4, 4)).save(tmp_path / f"img{number}.png")
    sample = replace(sample_of("casme2", "s1", "c1", "disgust"), onset=103, apex=UNKNOWN_FRAME, offset=109)
    clip = ClipTask(sample, tmp_path, False).open(0)
    engine = extractor(load_config())
    face = FoundFace(np.eye(2, 3), (0, 0, 3, 3), False, {})
    assert spot_clip(clip, ("midpoint",), engine, face) == {"midpoint": 106}


@pytest.mark.parametrize("first", [0, 40])
def test_a_stretch_counts_from_the_beginning_of_its_clip(first: int, raised_brow: list[np.ndarray]) -> None:
    looks = {0, 5, LENGTH - 1}
    stretch = follow_stretch(raised_brow, first, extractor(load_config(sets=SMALL)), looks)
    assert stretch.first == first
    assert abs(stretch.apex - first - APEX) <= 2 and abs(stretch.top - first - APEX) <= 2
    assert [sighting.position - first for sighting in stretch.sightings] == sorted(looks)
    assert stretch.strength == stretch.curve.max() > LEAST


def test_frames_that_the_clip_lacks_do_not_move_a_spotted_apex(
    raised_brow: list[np.ndarray], tmp_path: Path
) -> None:
    for i, frame in enumerate(raised_brow):
        Image.fromarray(frame).save(tmp_path / f"{300 + 5 * i}.png")  # every fifth frame is there
    sample = replace(sample_of("casme2", "s1", "c1", "disgust"), onset=305, apex=UNKNOWN_FRAME, offset=415)
    clip = ClipTask(sample, tmp_path, False).open(0)
    engine = extractor(load_config(sets=SMALL))
    face = engine.find_face(clip.read_onset())
    found = spot_clip(clip, ("midpoint", "flow-peak"), engine, face)
    assert found["midpoint"] == 360
    assert abs(found["flow-peak"] - (300 + 5 * APEX)) <= 10 and found["flow-peak"] % 5 == 0


def test_wrong_requests() -> None:
    frames = [np.zeros((64, 64), np.uint8)] * 3
    with pytest.raises(UsageError, match="did you mean 'flow-peak'"):
        spot_apex(frames, "flowpeak")
    with pytest.raises(FrameError, match="one shape"):
        spot_apex([*frames, np.zeros((65, 64), np.uint8)])
    with pytest.raises(FrameError, match="got 0"):
        spot_apex([])
