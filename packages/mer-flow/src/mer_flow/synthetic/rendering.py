"""Frames of a clip: a face at rest, moved by known facial and head motion, with flicker and noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mer_flow.synthetic.casting import Clip
from mer_flow.synthetic.movements import profile
from mer_flow.synthetic.portrait import MARGIN, OVERSAMPLING, Portrait

#: Standard deviation of the sensor noise, grey levels, and of a frame's gain. A camera's gain under steady
#: light hardly varies; at 0.4 % TV-L1, which takes brightness as constant, would err twice as much.
NOISE = 1.0
FLICKER = 0.001

#: Half axes of the ellipse that moves rigidly with the head, and the width of the seam around it, in
#: inter-ocular distances; beyond the seam the background stands still.
HEAD = (1.75, 2.10)
SEAM = 0.8

#: Rounds of the fixed point that inverts the forward flow; each shrinks the error at least fourfold.
ROUNDS = 6


@dataclass(frozen=True, slots=True)
class HeadMotion:
    """Macro motion of the head: a drift, a sway and a small turn, zero at the onset.

    Attributes:
        drift: `(2,)`, translation from onset to offset, px.
        sway: `(2,)`, amplitude of one slow swing, px.
        phase: Phase of the swing, in turns.
        turn: Rotation from onset to offset, radians.
        centre: `(2,)`, the fixed point of the rotation, px.
    """

    drift: np.ndarray
    sway: np.ndarray
    phase: float
    turn: float
    centre: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, centre: np.ndarray) -> HeadMotion:
        """Draw a motion of up to a few pixels and half a degree about the face's centre."""
        drift = rng.uniform(-2.0, 2.0, 2)
        sway = rng.uniform(-0.3, 0.3, 2)
        turn = np.deg2rad(rng.uniform(-0.5, 0.5))
        return cls(drift, sway, rng.random(), turn, centre)

    def matrix(self, progress: float) -> np.ndarray:
        """Return the motion since the onset: `(2, 3)` float64, onset px to px of that moment.

        Args:
            progress: 0 at the onset, 1 at the offset.
        """
        swing = np.sin(2 * np.pi * (progress * 0.5 + self.phase)) - np.sin(2 * np.pi * self.phase)
        angle = self.turn * progress
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = self.drift * progress + self.sway * swing
        return np.column_stack([turn, self.centre + shift - turn @ self.centre])


def invert_affine(matrix: np.ndarray) -> np.ndarray:
    """Invert a `(2, 3)` affine matrix."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


class ClipRenderer:
    """Renders the frames of one clip.

    Frame `t` shows at `H_t(x + a_t w(x))` what the onset shows at `x`: `w` is the facial movement, `a_t` its
    strength and `H_t` the head's motion, which is rigid on the head and fades out around it.

    Args:
        portrait: The subject.
        movement: `(2, H, W)` float32, displacement from onset to apex in px.
        head: The head's motion.
        rng: Source of flicker and noise.
    """

    def __init__(self, portrait: Portrait, movement: np.ndarray, head: HeadMotion, rng: np.random.Generator):
        self._portrait = portrait
        self._movement = np.ascontiguousarray(movement.transpose(1, 2, 0))
        self._head = head
        self._rng = rng
        width, height = portrait.size
        self._x = np.arange(width, dtype=np.float32)[None, :]
        self._y = np.arange(height, dtype=np.float32)[:, None]
        self._rigid = self._rigid_weight()
        moved = np.abs(movement).max(0) > 0
        rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
        # Wide enough that head and face together never carry the movement out of the box.
        pad = 12
        self._box = (
            slice(max(rows[0] - pad, 0), rows[-1] + pad + 1),
            slice(max(columns[0] - pad, 0), columns[-1] + pad + 1),
        )

    def _rigid_weight(self) -> np.ndarray:
        """Return `(H, W)` float32: 1 on the head, 0 on the background, smooth between."""
        cx, cy = self._portrait.centre
        iod = self._portrait.iod
        dx, dy = (self._x - cx) / (HEAD[0] * iod), (self._y - cy) / (HEAD[1] * iod)
        beyond = (np.sqrt(dx**2 + dy**2) - 1.0) * (min(HEAD) / SEAM)
        return (0.5 + 0.5 * np.cos(np.pi * np.clip(beyond, 0.0, 1.0))).astype(np.float32)

    def source(self, strength: float, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find where on the onset each pixel of a frame comes from.

        Args:
            strength: Strength of the facial movement, 1 at the apex.
            head: `(2, 3)`, motion of the head since the onset.

        Returns:
            x and y, `(H, W)` float32 each, px of the onset.
        """
        import cv2

        back = invert_affine(head).astype(np.float32)
        x = self._x + self._rigid * ((back[0, 0] - 1) * self._x + back[0, 1] * self._y + back[0, 2])
        y = self._y + self._rigid * (back[1, 0] * self._x + (back[1, 1] - 1) * self._y + back[1, 2])
        if strength > 0:
            zx, zy = np.ascontiguousarray(x[self._box]), np.ascontiguousarray(y[self._box])
            fx, fy = zx, zy
            for _ in range(ROUNDS):
                step = cv2.remap(self._movement, fx, fy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
                fx = zx - np.float32(strength) * step[..., 0]
                fy = zy - np.float32(strength) * step[..., 1]
            x[self._box], y[self._box] = fx, fy
        return x, y

    def frame(self, strength: float, head: np.ndarray) -> np.ndarray:
        """Render one frame, `(H, W)` or `(H, W, 3)` RGB uint8; arguments as for `source`."""
        import cv2

        x, y = self.source(strength, head)
        canvas = self._portrait.canvas
        image: np.ndarray = cv2.remap(
            canvas,
            np.float32(OVERSAMPLING) * (x + np.float32(MARGIN)),
            np.float32(OVERSAMPLING) * (y + np.float32(MARGIN)),
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        image *= np.float32(1.0 + FLICKER * self._rng.standard_normal())
        noise = self._rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(NOISE)
        image += noise if image.ndim == 2 else noise[..., None]
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)

    def frames(self, clip: Clip) -> Iterator[tuple[int, np.ndarray]]:
        """Render every frame of a clip, padding included; yield its number and its pixels."""
        span = max(clip.offset - clip.onset, 1)
        for number in range(clip.onset - clip.padding, clip.offset + clip.padding + 1):
            strength = profile(number, clip.onset, clip.apex, clip.offset)
            yield number, self.frame(strength, self._head.matrix((number - clip.onset) / span))
