"""Subjects: real faces, varied by mirror, shape, tone, light and skin texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mer_flow.synthetic.movements import MIRROR
from mer_flow.synthetic.photographs import PHOTOGRAPHS, enlarged

#: Inter-ocular distance in the frames, px.
FRAME_IOD = 100.0

#: The canvas has this many px per frame px: sampling it is then free of aliasing, and OpenCV's steps of
#: 1/32 px become 1/64 of a frame's.
OVERSAMPLING = 2

#: Frame px kept around the frame on the canvas, for head motion.
MARGIN = 16

#: Standard deviation of the fixed skin texture, grey levels.
TEXTURE = 2.0


@dataclass(frozen=True, slots=True)
class Portrait:
    """A subject's face at rest.

    Attributes:
        canvas: `(OVERSAMPLING * (H + 2 * MARGIN), ..., 3)` float32 RGB grey levels, or without the last axis.
        landmarks: `(68, 2)` float64, dlib's points in frame px.
        size: Width and height of the frames in px.
    """

    canvas: np.ndarray
    landmarks: np.ndarray
    size: tuple[int, int]

    @property
    def iod(self) -> float:
        """The inter-ocular distance in frame px."""
        return float(np.hypot(*(self.landmarks[42:48].mean(0) - self.landmarks[36:42].mean(0))))

    @property
    def centre(self) -> np.ndarray:
        """`(2,)` float64, the middle of the face (between eyes and mouth) in frame px."""
        return self.landmarks[17:68].mean(0)


def make_portrait(rng: np.random.Generator, size: tuple[int, int], colour: bool, person: int = 0) -> Portrait:
    """Draw one subject.

    Args:
        rng: Source of every choice.
        size: Width and height of the frames in px, at least 560×420 for the head to fit.
        colour: RGB, or grayscale.
        person: Whose face it is: the photographs take turns.

    Returns:
        The subject's face, about `FRAME_IOD` px between the eyes, in the middle of the frame.
    """
    import cv2

    width, height = size
    person %= len(PHOTOGRAPHS)
    photograph = PHOTOGRAPHS[person]
    mirrored = bool(rng.random() < 0.5)
    angle = np.deg2rad(rng.uniform(-4.0, 4.0))
    scale = FRAME_IOD / photograph.iod * rng.uniform(0.94, 1.04) * np.array([1.0, rng.uniform(0.95, 1.06)])
    centre = np.array([width / 2, 0.535 * height]) + rng.uniform(-8.0, 8.0, 2)
    waves = _draw_waves(rng)

    # Canvas grid in frame px, and where on the photograph each of its px comes from.
    shape = (OVERSAMPLING * (height + 2 * MARGIN), OVERSAMPLING * (width + 2 * MARGIN))
    x = np.arange(shape[1], dtype=np.float32) / OVERSAMPLING - MARGIN
    y = np.arange(shape[0], dtype=np.float32) / OVERSAMPLING - MARGIN
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    anchor = photograph.middle
    flip = np.array([-1.0 if mirrored else 1.0, 1.0])

    dx, dy = _warp(x[None, :], y[:, None], centre, waves)
    dx += x[None, :] - np.float32(centre[0])
    dy += y[:, None] - np.float32(centre[1])
    sources = []
    for axis in range(2):
        row = (turn[axis] * flip[axis] / scale[axis]).astype(np.float32)
        # cv2.resize keeps px centres: px i of the original lies at k i + (k - 1) / 2 of the enlarged.
        k = np.float32(photograph.times)
        sources.append(k * (row[0] * dx + row[1] * dy + np.float32(anchor[axis])) + (k - 1) / 2)
    canvas: np.ndarray = cv2.remap(
        enlarged(person), sources[0], sources[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    canvas = _tone(canvas, rng, x - np.float32(centre[0]), y - np.float32(centre[1]))
    if not colour:
        canvas = canvas @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    texture: np.ndarray = cv2.GaussianBlur(
        rng.standard_normal(shape, dtype=np.float32), (0, 0), 0.7 * OVERSAMPLING
    )
    texture *= TEXTURE / texture.std()
    canvas += texture if not colour else texture[..., None]

    wanted = ((photograph.landmarks - anchor) / flip * scale) @ turn + centre
    landmarks = wanted
    for _ in range(20):  # inverts the warp, a contraction
        landmarks = wanted - np.stack(_warp(landmarks[:, 0], landmarks[:, 1], centre, waves), -1)
    if mirrored:
        landmarks = landmarks[list(MIRROR)]
    return Portrait(np.ascontiguousarray(canvas), landmarks, size)


def _draw_waves(rng: np.random.Generator) -> np.ndarray:
    """Draw a smooth identity warp: `(K, 5)`, centre, sigma and displacement in inter-ocular distances."""
    count = 9
    centres = rng.uniform((-0.9, -1.0), (0.9, 1.1), (count, 2))
    sigmas = rng.uniform(0.40, 0.70, (count, 1))
    moves = rng.normal(0.0, 0.035, (count, 2))
    return np.concatenate([centres, sigmas, moves], 1)


def _warp(
    x: np.ndarray, y: np.ndarray, centre: np.ndarray, waves: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate an identity warp at x and y (broadcast); all in frame px."""
    across, down = (x - centre[0]) / FRAME_IOD, (y - centre[1]) / FRAME_IOD
    shape = np.broadcast_shapes(x.shape, y.shape)
    dx, dy = (np.zeros(shape, dtype=x.dtype) for _ in range(2))
    for cx, cy, sigma, move_x, move_y in waves:
        # A Gaussian is a product of two, so that a grid costs one exponential per row and column.
        weight = np.exp(-0.5 * ((across - cx) / sigma) ** 2) * np.exp(-0.5 * ((down - cy) / sigma) ** 2)
        weight = (FRAME_IOD * weight).astype(x.dtype)
        dx += x.dtype.type(move_x) * weight
        dy += x.dtype.type(move_y) * weight
    return dx, dy


def _tone(canvas: np.ndarray, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vary gamma, colour, brightness and the direction of light, in grey levels of 8 bits."""
    gamma = rng.uniform(0.80, 1.30)
    gains = rng.uniform(0.80, 0.96) * rng.uniform(0.97, 1.03, 3)
    slope = rng.uniform(-0.22, 0.22, 2) / (6 * FRAME_IOD)
    light = (1.0 + slope[0] * x[None, :] + slope[1] * y[:, None]).astype(np.float32)
    toned = np.clip(canvas / np.float32(255.0), 0.0, 1.0) ** np.float32(gamma)
    toned *= gains.astype(np.float32)
    toned *= light[..., None]
    # Kept off black and white, where clipping would hide noise and movement.
    return 8.0 + 236.0 * np.clip(toned, 0.0, 1.0)
