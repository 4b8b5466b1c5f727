"""The facial movements and the renderer: exact peaks, sides, and frames that show what the truth says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mer_flow.synthetic.movements import (
    ACTION_UNITS,
    MIRROR,
    Manner,
    displacement,
    draw_habits,
    objective_class,
    profile,
)
from mer_flow.synthetic.photographs import PHOTOGRAPHS
from mer_flow.synthetic.portrait import make_portrait
from mer_flow.synthetic.rendering import ClipRenderer, HeadMotion
from mer_flow.work.errors import UsageError

SHAPE = (480, 640)


@pytest.fixture(scope="module")
def portrait():
    return make_portrait(np.random.default_rng(5), (640, 480), colour=False)


def at(field: np.ndarray, point: np.ndarray) -> np.ndarray:
    x, y = np.rint(point).astype(int)
    return field[:, y, x]


@pytest.mark.parametrize("amplitude", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("unit", sorted(ACTION_UNITS))
def test_peak_is_exact(portrait, unit, amplitude):
    field = displacement(str(unit), portrait.landmarks, SHAPE, amplitude)
    assert field.shape == (2, *SHAPE) and field.dtype == np.float32
    assert np.hypot(*field).max() == pytest.approx(amplitude, abs=2e-4)


def test_movement_is_zero_away_from_the_face(portrait):
    field = displacement("1+2+26", portrait.landmarks, SHAPE, 3.0)
    assert (field[:, :, :100] == 0).all() and (field[:, :, -100:] == 0).all()
    assert 0.05 < (np.hypot(*field) > 0).mean() < 0.4


def test_directions_are_those_of_the_units(portrait):
    points = portrait.landmarks
    smile = displacement("12", points, SHAPE)
    right, left = at(smile, points[48]), at(smile, points[54])
    assert right[0] < -0.3 and left[0] > 0.3  # corners outwards
    assert right[1] < -0.3 and left[1] < -0.3  # and up
    assert at(displacement("1+2", points, SHAPE), points[19])[1] < -0.5
    assert at(displacement("4", points, SHAPE), points[20])[1] > 0.5
    assert at(displacement("15", points, SHAPE), points[48])[1] > 0.5


def test_sides_are_the_subjects_own(portrait):
    points = portrait.landmarks
    left = displacement("L12", points, SHAPE)
    assert np.hypot(*at(left, points[54])) > 0.8 and np.hypot(*at(left, points[48])) < 0.01
    right = displacement("R12", points, SHAPE)
    both = displacement("12", points, SHAPE)
    # Both sides together are the sum of the two, up to the common scale.
    mixed = both / np.abs(both).max() - (left + right) / np.abs(left + right).max()
    assert np.abs(mixed).max() < 0.05


def test_one_half_may_be_weaker(portrait):
    points = portrait.landmarks
    smile = displacement("12", points, SHAPE, 1.0, Manner(halves=(1.0, 0.25)))
    right, left = (np.hypot(*at(smile, points[i])) for i in (48, 54))
    assert left < 0.35 * right
    # A movement of one side alone has no other half.
    alone = displacement("L12", points, SHAPE, 1.0, Manner(halves=(1.0, 0.25)))
    np.testing.assert_array_equal(alone, displacement("L12", points, SHAPE))


def test_something_else_goes_along_with_its_share(portrait):
    points = portrait.landmarks
    both = displacement("12", points, SHAPE, 2.0, Manner(aside="1+2", share=0.5))
    assert np.hypot(*both).max() == pytest.approx(2.0, abs=2e-4)
    brow, lip = at(both, points[19]), at(both, points[48])
    assert brow[1] < -0.3 and np.hypot(*brow) < 0.7 * np.hypot(*lip)
    assert np.abs(at(displacement("12", points, SHAPE, 2.0), points[19])).max() < 0.01


def test_people_differ_in_where_and_whither_they_move(portrait):
    points = portrait.landmarks
    fields = [
        displacement("12", points, SHAPE, 1.0, Manner(draw_habits(np.random.default_rng(seed))))
        for seed in (0, 1)
    ]
    plain = displacement("12", points, SHAPE)
    for field in fields:
        assert 0.05 < np.hypot(*(field - plain)).max() < 1.2
        assert (field * plain).sum() > 0.4 * (plain**2).sum()  # a smile still
    assert np.hypot(*(fields[0] - fields[1])).max() > 0.05


def test_subjects_have_different_faces():
    faces = [
        make_portrait(np.random.default_rng(3), (640, 480), colour=False, person=n)
        for n in range(len(PHOTOGRAPHS) + 1)
    ]
    one, other, again = (face.canvas for face in faces)
    np.testing.assert_array_equal(one, again)  # they take turns
    head = np.s_[300:800, 400:900]
    assert np.corrcoef(one[head].ravel(), other[head].ravel())[0, 1] < 0.8
    assert all(90 < face.iod < 110 for face in faces)


def test_unknown_unit_is_named(portrait):
    with pytest.raises(UsageError, match="unknown action unit '99'"):
        displacement("4+99", portrait.landmarks, SHAPE)


def test_objective_classes():
    known = {"12": 1, "6+12": 1, "R12": 1, "1+2": 2, "R1+R2": 2, "4": 3, "4+7": 3, "9": 4, "10": 4}
    known |= {"15": 5, "1+4": 5, "15+17": 5, "20": 6, "14": 7, "1+2+26": 7}
    assert {text: objective_class(text) for text in known} == known


def test_profile_rises_to_the_apex_and_falls_to_the_offset():
    values = [profile(n, 100, 104, 110) for n in range(98, 113)]
    assert values[:3] == [0, 0, 0] and values[6] == 1 and values[12:] == [0, 0, 0]
    assert np.all(np.diff(values[2:7]) > 0) and np.all(np.diff(values[6:13]) < 0)
    assert profile(104, 100, 104, 104) == 1.0


def test_mirror_is_an_involution_that_keeps_sides(portrait):
    assert [MIRROR[MIRROR[i]] for i in range(68)] == list(range(68))
    for seed in range(6):  # mirrored and unmirrored subjects alike
        points = make_portrait(np.random.default_rng(seed), (640, 480), colour=False).landmarks
        assert (
            points[36, 0] < points[45, 0] and points[48, 0] < points[54, 0] and points[0, 0] < points[16, 0]
        )
        assert points[27, 1] < points[30, 1] < points[8, 1]


@pytest.mark.parametrize("text, amplitude", [("12", 3.0), ("1+2+5", 0.5), ("4+7", 2.0)])
def test_backward_map_inverts_the_forward_flow(portrait, text, amplitude):
    field = displacement(text, portrait.landmarks, SHAPE, amplitude)
    rng = np.random.default_rng(1)
    motion = HeadMotion.draw(rng, portrait.centre).matrix(0.5)
    renderer = ClipRenderer(portrait, field, HeadMotion.draw(rng, portrait.centre), rng)
    x, y = renderer.source(1.0, motion)
    # Points of the face, pushed forward, must come back to themselves.
    low, high = portrait.landmarks.min(0), portrait.landmarks.max(0)
    points = rng.uniform(low, high, (500, 2)).astype(np.float32)
    w = cv2.remap(field.transpose(1, 2, 0).copy(), points[:, :1], points[:, 1:], cv2.INTER_LINEAR)[:, 0]
    forward = ((points + w) @ motion[:, :2].T + motion[:, 2]).astype(np.float32)
    back = [cv2.remap(m, forward[:, :1], forward[:, 1:], cv2.INTER_LINEAR)[:, 0] for m in (x, y)]
    error = np.hypot(back[0] - points[:, 0], back[1] - points[:, 1])
    # cv2 4 rounds sampling positions to 1/32 px, here twice on top of the renderer's own.
    assert error.mean() < 0.02 and error.max() < 0.06


def test_head_motion_starts_at_rest_and_is_rigid(portrait):
    head = HeadMotion.draw(np.random.default_rng(2), portrait.centre)
    assert np.allclose(head.matrix(0.0), np.eye(2, 3))
    matrix = head.matrix(0.6)
    assert np.allclose(matrix[:, :2] @ matrix[:, :2].T, np.eye(2))
    assert 0 < np.hypot(*(matrix @ [*portrait.centre, 1.0] - portrait.centre)) < 4
