"""LBP-TOP with a linear SVM: the baseline of MEGC2019.

Local binary patterns from three orthogonal planes: G. Zhao, M. Pietikäinen: Dynamic Texture Recognition Using
Local Binary Patterns with an Application to Facial Expressions. IEEE TPAMI 29(6), 2007,
doi:10.1109/TPAMI.2007.1110. Parameters: J. See, M. H. Yap, J. Li, X. Hong, S.-J. Wang: MEGC 2019 - The Second
Facial Micro-Expressions Grand Challenge. IEEE FG 2019, doi:10.1109/FG.2019.8756611.

The neighbours lie on ellipses, whose radii in space and time differ; scikit-image's LBP knows circles in one
image, so one function for any plane does the work, and agrees with scikit-image in the plane that both know.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np
from pydantic import Field

from mer_bench.errors import UsageError
from mer_bench.models.layers.linear_svm import SVM_FILLED_IN, LinearSVM
from mer_bench.models.layers.tim import interpolate
from mer_bench.models.spec import ModelSpec, Options

#: Axes (t, y, x) of every plane: the one along which angles are counted, and the one across.
_PLANES = ((2, 1), (2, 0), (1, 0))  # XY, XT, YT

#: Interpolated values this close below the centre count as equal to it.
_EQUAL = 1e-6


def uniform_patterns(neighbours: int) -> np.ndarray:
    """Number the patterns of at most two changes around the circle; all others share the last number.

    Returns:
        `(2**P,)` int64, values 0 to P (P - 1) + 2, for P neighbours.

    >>> uniform_patterns(4).tolist()
    [0, 1, 2, 3, 4, 14, 5, 6, 7, 8, 14, 9, 10, 11, 12, 13]
    """
    patterns = np.arange(2**neighbours)
    bits = patterns[:, None] >> np.arange(neighbours) & 1
    uniform = (bits != np.roll(bits, 1, axis=1)).sum(1) <= 2
    return np.where(uniform, np.cumsum(uniform) - 1, uniform.sum())


def plane_codes(
    volume: np.ndarray, plane: tuple[int, int], radii: tuple[int, int, int], neighbours: int
) -> np.ndarray:
    """Compute one plane's local binary patterns, at voxels that have all neighbours in all planes.

    Neighbour p lies at angle 2 pi p / P on the plane's ellipse, read by bilinear interpolation; it adds 2**p
    where it is not darker than the centre.

    Args:
        volume: `(T, H, W)` grey values.
        plane: The axes that cosine and sine go along (the second counted backwards).
        radii: Along x, y and t, px and frames.
        neighbours: P.

    Returns:
        `(T - 2 rt, H - 2 ry, W - 2 rx)` int64.
    """
    margins = radii[::-1]  # axes are t, y, x
    inner = tuple(n - 2 * m for n, m in zip(volume.shape, margins, strict=True))
    centre = _window(volume, (0, 0, 0), margins, inner)
    codes = np.zeros(inner, np.int64)
    along, across = plane
    for p in range(neighbours):
        angle = 2 * np.pi * p / neighbours
        offset = [0.0, 0.0, 0.0]
        # Rounded as in scikit-image, so that points on an axis are pixels.
        offset[along] = round(margins[along] * np.cos(angle), 5)
        offset[across] = round(-margins[across] * np.sin(angle), 5)
        codes |= (_shifted(volume, offset, margins, inner) >= centre - _EQUAL).astype(np.int64) << p
    return codes


def _window(
    volume: np.ndarray, shift: tuple[int, ...], margins: tuple[int, ...], inner: tuple[int, ...]
) -> np.ndarray:
    starts = [m + s for m, s in zip(margins, shift, strict=True)]
    return volume[tuple(slice(a, a + n) for a, n in zip(starts, inner, strict=True))]


def _shifted(
    volume: np.ndarray, offset: list[float], margins: tuple[int, ...], inner: tuple[int, ...]
) -> np.ndarray:
    """Read the volume at every centre plus an offset, linear between voxels."""
    low = np.floor(offset).astype(int)
    part = np.asarray(offset) - low
    value = np.zeros(inner)
    for corner in product((0, 1), repeat=3):
        weight = float(np.prod(np.where(corner, part, 1 - part)))
        if weight > 0:
            value += weight * _window(volume, tuple(low + corner), margins, inner)
    return value


def lbp_top(
    volume: np.ndarray,
    blocks: int = 5,
    radii: tuple[int, int, int] = (1, 1, 4),
    neighbours: int = 4,
    uniform: bool = False,
) -> np.ndarray:
    """Compute the descriptor of one clip.

    Args:
        volume: `(T, H, W)` grey values; T at least 2 rt + 1.
        blocks: Blocks along each side of the frame, without overlap; a pattern belongs to its centre's block.
        radii: Along x, y and t, px and frames.
        neighbours: P, in every plane.
        uniform: Let the patterns of more than two changes share a bin.

    Returns:
        `(blocks * blocks * 3 * bins,)` float64: block after block in reading order, in each the planes XY, XT
        and YT, each histogram of sum 1.
    """
    volume = np.asarray(volume, np.float64)
    table = uniform_patterns(neighbours) if uniform else np.arange(2**neighbours)
    bins = int(table.max()) + 1
    _, height, width = volume.shape
    rows = np.arange(radii[1], height - radii[1]) * blocks // height
    columns = np.arange(radii[0], width - radii[0]) * blocks // width
    block = rows[:, None] * blocks + columns
    counts = np.stack(
        [
            np.bincount(
                (block * bins + table[plane_codes(volume, plane, radii, neighbours)]).ravel(),
                minlength=blocks * blocks * bins,
            ).reshape(blocks * blocks, bins)
            for plane in _PLANES
        ],
        axis=1,
    )
    return (counts / counts.sum(2, keepdims=True)).ravel()


class LBPTOPOptions(Options):
    """Options of LBP-TOP.

    Attributes:
        frames: Length of a clip after temporal interpolation.
        blocks: Blocks along each side.
        radii: Along x, y and t.
        neighbours: Neighbours in every plane.
        uniform: Let the patterns of more than two changes share a bin.
        cost: Of the SVM.
    """

    frames: int = Field(default=10, le=1000)
    blocks: int = Field(default=5, ge=1)
    radii: tuple[int, ...] = (1, 1, 4)
    neighbours: int = Field(default=4, ge=2, le=8)
    uniform: bool = False
    cost: float = 1.0


class LBPTOP(LinearSVM):
    """LBP-TOP features of clips of K frames brought to one length, then a linear SVM."""

    config = LBPTOPOptions

    def __init__(
        self, num_classes: int = 3, in_channels: int = 10, map_size: int = 140, **options: Any
    ) -> None:
        given = self.config(**options)
        super().__init__(given.cost)
        self.frames, self.blocks = given.frames, given.blocks
        self.neighbours, self.uniform = given.neighbours, given.uniform
        if len(given.radii) != 3 or min(given.radii) < 1:
            raise UsageError(f"radii must be three numbers from 1 up, along x, y and t; got {given.radii}")
        self.radii = (given.radii[0], given.radii[1], given.radii[2])
        if in_channels < 2:
            raise UsageError(
                f"LBP-TOP reads clips of at least 2 frames; these have {in_channels}. Build the store with "
                "`mer-flow build ... --keep-clips K`, K from 10 up"
            )
        needed = 2 * self.radii[2] + 1
        if self.frames < needed:
            raise UsageError(
                f"a radius of {self.radii[2]} frames needs frames={needed} or more, got {self.frames}"
            )
        smallest = self.blocks * (max(self.radii[:2]) + 1)
        if map_size < smallest:
            raise UsageError(
                f"{self.blocks} x {self.blocks} blocks of patterns with radii {self.radii} need frames of at "
                f"least {smallest} px, got {map_size}"
            )

    def features(self, maps: np.ndarray, view: str = "") -> np.ndarray:
        """Describe clips, each by itself.

        Args:
            maps: `(n, K, H, W)` float32: K frames in time order, grey values 0 to 255.
            view: The input as `view:normalisation`; empty for grey clips.

        Returns:
            `(n, blocks * blocks * 3 * bins)` float32.
        """
        if view and not re.fullmatch(r"clips-\d+:raw", view):
            raise UsageError(
                f"LBP-TOP reads grey clips as they were filmed, as in clips-140:raw; the input is {view}"
            )
        rows = []
        for clip in maps:
            # Whole grey levels, as the interpolated frames are written to images: ties count in a pattern.
            volume = np.clip(np.rint(interpolate(clip, self.frames)), 0, 255)
            rows.append(lbp_top(volume, self.blocks, self.radii, self.neighbours, self.uniform))
        return np.stack(rows).astype(np.float32)


SPECS = (
    ModelSpec(
        name="lbp-top",
        title="LBP-TOP + SVM",
        build=LBPTOP,
        kind="classifier",
        views=("clips-140:raw", "clips-56:raw"),
        variants={"default": {}, "uniform": {"uniform": True}},
        citation=(
            "G. Zhao, M. Pietikäinen: Dynamic Texture Recognition Using Local Binary Patterns with an "
            "Application to Facial Expressions. IEEE TPAMI 29(6), 915-928, 2007. "
            "doi:10.1109/TPAMI.2007.1110. Baseline of J. See, M. H. Yap, J. Li, X. Hong, S.-J. Wang: MEGC "
            "2019 – The Second Facial Micro-Expressions Grand Challenge. IEEE FG 2019. "
            "doi:10.1109/FG.2019.8756611"
        ),
        exactness="reconstructed",
        filled_in=(
            "Published: radii (1, 1, 4), 4 neighbours in every plane, 5 x 5 blocks without overlap, clips "
            "brought to 10 frames. The radii are taken to be those along x, y and t.",
            "Whether patterns are uniform is not stated: all 16 have a bin (1,200 values). Variant uniform "
            "puts the two that are not uniform into one bin (1,125 values).",
            "Histograms have sum 1 per block and plane; a pattern belongs to its centre's block.",
            "The size of the frames is not stated: 140 px, which blocks divide evenly.",
            "The clip is the K frames that --keep-clips spreads from onset to offset, not every frame; "
            "interpolated frames are rounded to whole grey levels, as images are.",
            *SVM_FILLED_IN,
        ),
        selects_on_test=None,
        licence="No code of the baseline was found; written anew here.",
    ),
)
