"""Facial movements as sums of Gaussians at face landmarks, one small recipe per FACS action unit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from mer_flow.work.suggest import unknown

#: Landmark i of dlib's 68 points seen in a mirror is landmark MIRROR[i].
MIRROR: tuple[int, ...] = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)

#: Beyond this many sigmas a Gaussian is exactly zero, so that a movement has a bounded support.
REACH = 4.0

#: True displacements are multiples of this many pixels: far below what flow resolves, and they compress well.
QUANTUM = 2.0**-13


@dataclass(frozen=True, slots=True)
class Bump:
    """One Gaussian of movement on the image-left side of the face; lengths in inter-ocular distances.

    Attributes:
        landmarks: dlib indices whose mean is the anchor.
        direction: Displacement at the centre, relative to the movement's other bumps; +x right, +y down.
        sigma: Standard deviations along x and y.
        shift: From the anchor to the centre.
    """

    landmarks: tuple[int, ...]
    direction: tuple[float, float]
    sigma: tuple[float, float]
    shift: tuple[float, float] = (0.0, 0.0)


#: Action unit -> its bumps on the image-left half (the subject's right); the other half mirrors them.
ACTION_UNITS: dict[int, tuple[Bump, ...]] = {
    1: (Bump((20, 21), (0.0, -1.0), (0.19, 0.20), (0.0, -0.08)),),
    2: (Bump((17, 18, 19), (0.0, -1.0), (0.22, 0.20), (0.05, -0.06)),),
    4: (Bump((19, 20, 21), (0.55, 0.85), (0.25, 0.20)),),
    5: (Bump((37, 38), (0.0, -0.6), (0.15, 0.09)),),
    6: (Bump((40, 41), (0.0, -0.4), (0.18, 0.13), (-0.05, 0.28)),),
    7: (Bump((40, 41), (0.0, -0.5), (0.15, 0.09)), Bump((37, 38), (0.0, 0.3), (0.15, 0.08))),
    9: (
        Bump((31,), (0.10, -1.0), (0.15, 0.18), (-0.08, -0.10)),
        Bump((21,), (0.25, 0.5), (0.18, 0.15)),
        Bump((50,), (0.0, -0.5), (0.15, 0.10)),
    ),
    10: (Bump((50,), (0.0, -1.0), (0.18, 0.12)), Bump((31, 48), (0.0, -0.6), (0.16, 0.16))),
    12: (Bump((48,), (-0.70, -0.70), (0.22, 0.18)), Bump((41, 48), (-0.10, -0.40), (0.18, 0.14))),
    14: (Bump((48,), (0.95, -0.10), (0.17, 0.16)),),
    15: (Bump((48,), (-0.10, 1.0), (0.19, 0.18), (0.0, 0.06)),),
    17: (Bump((8, 57), (0.0, -1.0), (0.26, 0.15)), Bump((57,), (0.0, -0.6), (0.22, 0.10))),
    20: (Bump((48,), (-1.0, 0.12), (0.20, 0.17)),),
    25: (Bump((57,), (0.0, 0.7), (0.24, 0.10)),),
    26: (Bump((8, 57), (0.0, 0.8), (0.28, 0.18)),),
}

#: How far one person's movements differ from another's, standard deviations: place, in inter-ocular
#: distances, and direction, in radians.
HABIT = (0.06, 0.4)


#: Action unit -> shift of its bumps, x and y in inter-ocular distances, and turn of their direction, radians.
Habits = Mapping[int, tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Manner:
    """How one person makes a movement once.

    Attributes:
        habits: On the image-left half; the other half mirrors them.
        halves: Strength of the image-left and the image-right half.
        aside: A movement that goes along, as a name; empty for none.
        share: Its strength, as part of the main movement's.
    """

    habits: Habits = field(default_factory=dict)
    halves: tuple[float, float] = (1.0, 1.0)
    aside: str = ""
    share: float = 0.0


def draw_habits(rng: np.random.Generator) -> Habits:
    """Draw the `habits` of one person."""
    place, turn = HABIT
    return {unit: tuple(rng.normal(0.0, (place, place, turn)).tolist()) for unit in ACTION_UNITS}


#: Units on the midline, which have no sides.
MIDLINE = frozenset({17, 25, 26})

#: Objective classes of Davison et al. 2018 (doi:10.3390/jimaging4100119); every other movement is class 7.
_OBJECTIVE = {
    1: ({6}, {12}, {6, 12}, {6, 7, 12}, {7, 12}),
    2: ({1, 2}, {5}, {25}, {1, 2, 25}, {25, 26}, {5, 24}),
    3: ({23}, {4}, {4, 7}, {4, 5}, {4, 5, 7}, {17, 24}, {4, 6, 7}, {4, 38}),
    4: ({10}, {9}, {4, 9}, {4, 40}, {4, 5, 40}, {4, 7, 9}, {4, 9, 17}, {4, 7, 10}, {4, 5, 7, 9}, {7, 10}),
    5: ({1}, {15}, {1, 4}, {6, 15}, {15, 17}),
    6: ({1, 2, 4}, {20}),
}


def parse_action_units(text: str) -> tuple[tuple[str, int], ...]:
    """Split a movement's name, as `R1+R2` or `4+7`, into (side, action unit).

    The side is the subject's own, `L`, `R` or empty for both.

    Raises:
        UsageError: A unit is not one that this module can move.

    >>> parse_action_units("L12+6")
    (('L', 12), ('', 6))
    """
    units = []
    for part in text.split("+"):
        match = re.fullmatch(r"([LR]?)(\d+)", part.strip())
        if match is None or int(match.group(2)) not in ACTION_UNITS:
            raise unknown("action unit", part, map(str, ACTION_UNITS))
        units.append((match.group(1), int(match.group(2))))
    return tuple(units)


def objective_class(text: str) -> int:
    """Return the objective class, 1 to 7, of a movement (Davison et al. 2018, doi:10.3390/jimaging4100119).

    >>> objective_class("4+7"), objective_class("R12"), objective_class("14")
    (3, 1, 7)
    """
    units = {unit for _, unit in parse_action_units(text)}
    return next((number for number, sets in _OBJECTIVE.items() if units in sets), 7)


def displacement(
    text: str,
    landmarks: np.ndarray,
    shape: tuple[int, int],
    amplitude: float = 1.0,
    manner: Manner | None = None,
) -> np.ndarray:
    """Build a movement's displacement field at full strength.

    Args:
        text: As in `1+2` or `L12`.
        landmarks: `(68, 2)` float, dlib's points in px.
        shape: Image height and width in px.
        amplitude: Length of the longest displacement vector in px.
        manner: How it is made; evenly and by itself unless given.

    Returns:
        `(2, H, W)` float32, u and v in px (+x right, +y down), exactly zero away from the moved region.

    Raises:
        UsageError: An action unit is unknown.
    """
    manner = manner or Manner()
    face = _Face.of(landmarks)
    moved = _at_peak(text, manner, shape, face)
    if manner.aside:
        moved += manner.share * _at_peak(manner.aside, manner, shape, face)
    peak = np.sqrt((moved**2).sum(0).max())
    return (np.round(moved * (amplitude / peak) / QUANTUM) * QUANTUM).astype(np.float32)


class _Face(NamedTuple):
    """Landmarks `(68, 2)`, the face's own right and down as rows, and its inter-ocular distance, px."""

    points: np.ndarray
    axes: np.ndarray
    iod: float

    @classmethod
    def of(cls, landmarks: np.ndarray) -> _Face:
        points = np.asarray(landmarks, dtype=np.float64)
        span = points[42:48].mean(0) - points[36:42].mean(0)
        iod = float(np.hypot(*span))
        along = span / iod
        return cls(points, np.stack([along, [-along[1], along[0]]]), iod)


def _at_peak(text: str, manner: Manner, shape: tuple[int, int], face: _Face) -> np.ndarray:
    """Return a movement as `(2, H, W)` float64, its longest vector 1."""
    moved = np.zeros((2, *shape))
    for side, unit in parse_action_units(text):
        right, down, turn = manner.habits.get(unit, (0.0, 0.0, 0.0))
        for bump in ACTION_UNITS[unit]:
            (x, y), (shift_x, shift_y) = bump.direction, bump.shift
            turned = (x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn))
            own = replace(bump, direction=turned, shift=(shift_x + right, shift_y + down))
            halves = (False,) if unit in MIDLINE else {"R": (False,), "L": (True,), "": (False, True)}[side]
            for mirrored in halves:
                _add(moved, own, face, mirrored, manner.halves[mirrored] if len(halves) == 2 else 1.0)
    moved /= np.sqrt((moved**2).sum(0).max())
    return moved


def _add(field: np.ndarray, bump: Bump, face: _Face, mirrored: bool, strength: float) -> None:
    """Add one bump to a `(2, H, W)` field, in place, within its reach only."""
    points, axes, iod = face
    sign = np.array([-1.0 if mirrored else 1.0, 1.0])
    indices = [MIRROR[i] if mirrored else i for i in bump.landmarks]
    centre = points[indices].mean(0) + iod * (np.asarray(bump.shift) * sign) @ axes
    direction = strength * (np.asarray(bump.direction) * sign) @ axes
    reach = REACH * iod * max(bump.sigma)
    height, width = field.shape[1:]
    x0, y0 = np.maximum(np.floor(centre - reach).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(centre + reach).astype(int) + 1, [width, height])
    if x1 <= x0 or y1 <= y0:
        return
    dx = np.arange(x0, x1)[None, :] - centre[0]
    dy = np.arange(y0, y1)[:, None] - centre[1]
    across = (dx * axes[0, 0] + dy * axes[0, 1]) / (iod * bump.sigma[0])
    down = (dx * axes[1, 0] + dy * axes[1, 1]) / (iod * bump.sigma[1])
    floor = np.exp(-0.5 * REACH**2)
    weight = np.maximum(np.exp(-0.5 * (across**2 + down**2)) - floor, 0.0) / (1.0 - floor)
    field[:, y0:y1, x0:x1] += direction[:, None, None] * weight


def profile(number: int, onset: int, apex: int, offset: int) -> float:
    """Return a movement's strength in one frame: raised cosines from onset up to apex and down to offset.

    >>> [profile(n, 10, 12, 14) for n in (9, 10, 12, 14, 15)]
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    if number <= apex:
        phase = (number - onset) / (apex - onset)
    else:
        # A clip cut at its apex has no way down.
        phase = (offset - number) / (offset - apex) if offset > apex else 1.0
    return float(0.5 - 0.5 * np.cos(np.pi * np.clip(phase, 0.0, 1.0)))
