"""Bi-WOOF with a linear SVM: orientations of flow, weighted by magnitude in a block, by strain among blocks.

S.-T. Liong, J. See, K. Wong, R. C.-W. Phan: Less is more: Micro-expression recognition from video using apex
frame. Signal Processing: Image Communication 62, 2018, doi:10.1016/j.image.2017.11.006. Blocks and weights
are those of the authors' script `biwoof.m` (github.com/christy1206/biwoof).
"""

from __future__ import annotations

import numpy as np

from mer_bench.errors import UsageError
from mer_bench.models.layers.linear_svm import SVM_FILLED_IN, LinearSVM
from mer_bench.models.spec import ModelSpec


def block_bounds(size: int, blocks: int) -> list[tuple[int, int]]:
    """Cut one side of a map as the authors' script does: every block reaches one px beyond its inner edges.

    Returns:
        First pixel and the one after the last, of every block; the last takes what does not divide.

    >>> block_bounds(28, 5)
    [(0, 6), (4, 11), (9, 16), (14, 21), (19, 28)]
    """
    step = size // blocks
    bounds = [(max(k * step - 1, 0), min((k + 1) * step + 1, size)) for k in range(blocks)]
    return [*bounds[:-1], (bounds[-1][0], size)]


def bi_woof(u: np.ndarray, v: np.ndarray, strain: np.ndarray, blocks: int = 5, bins: int = 8) -> np.ndarray:
    """Compute the descriptor of one flow map. It does not change with the scale of flow or strain.

    Args:
        u: `(H, W)` horizontal flow.
        v: `(H, W)` vertical flow, in the unit of u.
        strain: `(H, W)` optical strain, not negative.
        blocks: Blocks along each side.
        bins: Orientation bins over -180 to 180 degrees.

    Returns:
        `(blocks * blocks * bins,)` float64 of length 1, block after block in reading order; zeros where
        nothing moves.
    """
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    magnitude = np.hypot(u, v)
    # -180 and 180 are one direction: both count in the first bin.
    bin_of = np.floor((np.arctan2(v, u) / np.pi + 1) * (bins / 2)).astype(np.intp) % bins
    parts = []
    for top, bottom in block_bounds(u.shape[0], blocks):
        for left, right in block_bounds(u.shape[1], blocks):
            cut = np.s_[top:bottom, left:right]
            histogram = np.bincount(bin_of[cut].ravel(), magnitude[cut].ravel(), bins)
            total = histogram.sum()
            weight = np.asarray(strain[cut], np.float64).sum()
            parts.append(histogram * (weight / total) if total > 0 else np.zeros(bins))
    descriptor = np.concatenate(parts)
    norm = np.linalg.norm(descriptor)
    return descriptor / norm if norm > 0 else descriptor


class BiWOOF(LinearSVM):
    """Bi-WOOF features of onset-to-apex flow, then a linear SVM; it takes the classes that it is fitted to.

    Maps of u, v and strain are cut into `blocks` along each side, with `bins` of orientation.
    """

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 140,
        blocks: int = 5, bins: int = 8, cost: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(cost)
        if in_channels != 3:
            raise UsageError(f"Bi-WOOF reads u, v and strain, 3 channels; these maps have {in_channels}")
        if blocks < 1 or not 2 <= bins <= 360:
            raise UsageError(f"Bi-WOOF needs blocks >= 1 and 2 to 360 bins, got {blocks} and {bins}")
        if map_size < 2 * blocks:
            raise UsageError(
                f"Bi-WOOF cuts maps into {blocks} x {blocks} blocks of at least 2 px: it takes maps from "
                f"{2 * blocks} px, got {map_size}"
            )
        self.blocks, self.bins = blocks, bins

    def features(self, maps: np.ndarray, view: str = "") -> np.ndarray:
        """Describe flow maps, each by itself.

        Min-max scaled maps have lost the zero of u and v. It is taken to be each map's median there: most of
        a face does not move. Their different scales stay unknown and are taken to be equal.

        Args:
            maps: `(n, 3, H, W)` float32: u, v, strain.
            view: The input as `view:normalisation`; empty for flow whose zero is zero.

        Returns:
            `(n, blocks * blocks * bins)` float32.
        """
        name, _, normalisation = view.partition(":")
        if name.startswith(("faces", "clips")):
            raise UsageError(f"Bi-WOOF reads flow, as in whole-140:raw; the input is {view}")
        flow = np.asarray(maps[:, :2], np.float64)
        if normalisation.startswith("minmax"):
            flow = flow - np.median(flow, axis=(2, 3), keepdims=True)
        rows = [
            bi_woof(u, v, strain, self.blocks, self.bins)
            for (u, v), strain in zip(flow, maps[:, 2], strict=True)
        ]
        return np.stack(rows).astype(np.float32)


SPECS = (
    ModelSpec(
        name="bi-woof",
        title="Bi-WOOF + SVM",
        build=BiWOOF,
        kind="classifier",
        views=("whole-140:raw", "whole-28:raw", "whole-28:minmax-255", "whole-28:minmax"),
        citation=(
            "S.-T. Liong, J. See, K. Wong, R. C.-W. Phan: Less is more: Micro-expression recognition from "
            "video using apex frame. Signal Processing: Image Communication 62, 82-92, 2018. "
            "doi:10.1016/j.image.2017.11.006"
        ),
        exactness="reconstructed",
        filled_in=(
            "The features (5 x 5 blocks that overlap by 2 px, 8 bins, 200 values) are those of the authors' "
            "biwoof.m. It counts with weightedhistc, which it does not bring; the public function of that "
            "name leaves directions from 135 to 180 degrees uncounted; here the eighth bin holds them.",
            "The script does not state the size of the face: flow of 140 px, which blocks divide evenly. The "
            "descriptor does not depend on the unit of flow.",
            "Where nothing moves in a block its histogram is zero (0/0 in the script).",
            "The script ends with the features; the SVM is not in it.",
            *SVM_FILLED_IN,
            "Fallback whole-28:minmax-255 (published maps): the zero of u and v is lost and taken to be each "
            "map's median; their scales are lost too and taken to be equal, so orientations are distorted. "
            "Strain is nearly unharmed: its minimum is near zero, and its scale cancels.",
        ),
        selects_on_test=None,
        licence="Authors' MATLAB script public without a licence; written anew here.",
    ),
)
