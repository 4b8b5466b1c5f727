"""From flow to the maps of a view: whole faces, and five regions recombined: where each is cut and placed.

Every region of a sample is cut at the same scale, the same in x and y, so that u, v and strain mean the same
everywhere in the map. The scale follows from the sample's inter-ocular distance (IOD): half the side of the
map shows `CUT_WIDTH_IOD` × IOD of the face. The map keeps the image's orientation: the subject's right eye,
which lies on the image's left, is at the top left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mer_flow.flow.strain import optical_strain
from mer_flow.views.names import ViewName
from mer_flow.views.resample import box_weights, resize_flow
from mer_flow.work.errors import ViewError

#: Width of an eye or lip cut in inter-ocular distances. HTNet's cut is 14 px of a 28 px face whose eyes lie
#: 11.9 px apart: 1.18.
CUT_WIDTH_IOD = 1.2

#: Smallest plausible IOD, as a share of the map's side; a smaller one means wrong region centres.
MIN_IOD = 0.1

# Rows of the region centres as the store has them (the subject's own sides); a face in an image shows them
# mirrored.
LEFT_EYE, RIGHT_EYE, NOSE, LEFT_LIP, RIGHT_LIP = range(5)
#: HTNet's quadrants: image left eye, image right eye, image left lip corner, image right lip corner.
HTNET_ORDER = (RIGHT_EYE, LEFT_EYE, RIGHT_LIP, LEFT_LIP)


def cut_view(
    view: ViewName, flow: np.ndarray, regions: np.ndarray | None, names: list[str]
) -> tuple[np.ndarray, np.ndarray | float]:
    """Cut a view of a batch of flow, reduced by area, strain computed of what comes out.

    Args:
        view: A view of flow: `whole`, `regions` or `htnet`.
        flow: (M, 2, S, S) float32, u and v in px of the aligned face.
        regions: (M, 5, 2) float32, x and y in px; a `whole` view needs none.
        names: M sample ids, for messages.

    Returns:
        (M, 3, N, N) float32, u and v in cells, strain; and the side of a cell in px, scalar or (M,).

    Raises:
        ViewError: A sample's region centres are absent or implausible, or the cells would be smaller than a
            pixel.
    """
    if view.family == "whole":
        return whole_maps(flow, view.size), flow.shape[-1] / view.size
    assert regions is not None, f"{view} is cut around regions"
    if view.family == "htnet":
        return htnet_maps(flow, regions, view.layout, view.size, names), flow.shape[-1] / view.size
    return region_maps(flow, regions, view.layout, view.size, names)


def whole_maps(flow: np.ndarray, size: int) -> np.ndarray:
    """Reduce whole-face flow and compute the strain of the reduced flow; arguments as of `cut_view`.

    Strain of area-reduced flow is nearer the truth than area-reduced strain: the noise is averaged before it
    is differentiated.
    """
    result = np.empty((len(flow), 3, size, size), dtype=np.float32)
    result[:, :2] = resize_flow(flow, size)
    result[:, 2] = optical_strain(result[:, :2])
    return result


def htnet_maps(flow: np.ndarray, regions: np.ndarray, layout: str, size: int, names: list[str]) -> np.ndarray:
    """Recombine four quadrants of the whole-face map as HTNet's code does; arguments as of `cut_view`.

    The map is first reduced to `size`; centres are clamped to [size/4, 3 size/4] and truncated; half-size
    squares around them are placed side by side. `upright` places eyes above lips. `as-published` repeats the
    authors' indexing, which takes x for the row and y for the column: "left eye" is then cut at the mirrored
    place (much the same, as it lies near the diagonal), their second crop is the lip corner on the image's
    left and their fourth the eye on the image's right, so that the map reads [[eye, lip], [eye, lip]].
    """
    side = flow.shape[-1]
    _require_regions(regions, names)
    whole = whole_maps(flow, size)
    quarter, half = size // 4, size // 2
    reduced = (regions.astype(np.float64) + 0.5) * (size / side) - 0.5
    centres = np.clip(reduced, quarter, size - quarter).astype(int)
    result = np.empty_like(whole)
    for quadrant, region in enumerate(HTNET_ORDER):
        top, left = half * (quadrant // 2), half * (quadrant % 2)
        for i, (x, y) in enumerate(centres[:, region]):
            row, column = (x, y) if layout == "as-published" else (y, x)
            cut = whole[i, :, row - quarter : row + quarter, column - quarter : column + quarter]
            result[i, :, top : top + half, left : left + half] = cut
    return result


@dataclass(frozen=True, slots=True)
class Block:
    """Where one region lies in the map, in cells."""

    region: int  # row of the region centre
    top: int
    left: int
    height: int
    width: int
    average: bool = False  # with what lies there already, instead of replacing it
    lift: float = 0.0  # how far above the region's centre the cut's middle lies


def region_blocks(layout: str, size: int) -> tuple[Block, ...]:
    """Return where the regions go in a map of size × size.

    `quincunx`, the default, is the one arrangement that shows all five regions and overwrites none: eyes, a
    strip for the nose and both cheeks, lips; 10 + 8 + 10 rows at 28. Its eye cuts are lower than wide and
    keep the upper edge of the square ones, 0.6 IOD above the eye: brows move upwards and inwards there, and
    what is cut off below lies in the nose's strip. `quadrants` is HTNet's, without the nose: every quadrant
    is 2 × 2 patches of 7 × 7. `mean-centre` is `quadrants` with the nose averaged into the centre.

    >>> [(b.top, b.left, b.height, b.width) for b in region_blocks("quincunx", 28)]
    [(0, 0, 10, 14), (0, 14, 10, 14), (10, 0, 8, 28), (18, 0, 10, 14), (18, 14, 10, 14)]
    """
    half = size // 2
    rows = round(size * 10 / 28) if layout == "quincunx" else half
    lift, low = (half - rows) / 2, size - rows
    eyes = [
        Block(region, 0, left, rows, half, lift=lift) for region, left in ((RIGHT_EYE, 0), (LEFT_EYE, half))
    ]
    lips = [Block(region, low, left, rows, half) for region, left in ((RIGHT_LIP, 0), (LEFT_LIP, half))]
    if layout == "quincunx":
        return (*eyes, Block(NOSE, rows, 0, size - 2 * rows, size), *lips)
    if layout == "mean-centre":
        return (*eyes, *lips, Block(NOSE, size // 4, size // 4, half, half, average=True))
    return (*eyes, *lips)


def region_maps(
    flow: np.ndarray, regions: np.ndarray, layout: str, size: int, names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the regions of a batch, reduce them by area and recombine them; see `cut_view`.

    A cut that would leave the map is moved inside. Strain is computed per region from the reduced u and v,
    with a margin of one cell around it, so that no seam appears between regions.
    """
    side = flow.shape[-1]
    pitch = cell_sizes(regions, side, size, names)
    blocks = region_blocks(layout, size)
    result = np.empty((len(flow), 3, size, size), dtype=np.float32)
    centres = regions.astype(np.float64) + 0.5  # pixel j covers [j, j + 1)
    down = np.concatenate(
        [_cut_weights(centres[:, b.region, 1] - b.lift * pitch, pitch, b.height, side) for b in blocks],
        axis=1,
    )
    rows = np.matmul(down[:, None], flow)
    first = 0
    for block in blocks:
        across = _cut_weights(centres[:, block.region, 0], pitch, block.width, side)
        cells = np.matmul(rows[:, :, first : first + block.height + 2], across.transpose(0, 2, 1)[:, None])
        cells /= pitch[:, None, None, None].astype(np.float32)
        first += block.height + 2
        cut = np.concatenate([cells, optical_strain(cells)[:, None]], axis=1)[:, :, 1:-1, 1:-1]
        target = result[:, :, block.top :, block.left :][:, :, : block.height, : block.width]
        target[...] = 0.5 * (target + cut) if block.average else cut
    return result, pitch.astype(np.float32)


def _cut_weights(centre: np.ndarray, pitch: np.ndarray, cells: int, side: int) -> np.ndarray:
    """Return (M, cells + 2, side) weights of a cut around each centre, moved inside the map where needed."""
    start = np.clip(centre - 0.5 * cells * pitch, 0.0, np.maximum(side - cells * pitch, 0.0))
    return box_weights(start, pitch, cells, side, halo=True)


def cell_sizes(regions: np.ndarray, side: int, size: int, names: list[str]) -> np.ndarray:
    """Return (M,) float64, the side of a regions view's cell in px of a face of `side` px; see `cut_view`."""
    _require_regions(regions, names)
    distance = np.linalg.norm(regions[:, LEFT_EYE].astype(np.float64) - regions[:, RIGHT_EYE], axis=-1)
    for i in np.flatnonzero(distance < MIN_IOD * side)[:1]:
        raise ViewError(
            f"{names[i]}: its eye centres lie {distance[i]:.1f} px apart, "
            f"expected at least {MIN_IOD * side:.0f} px of a {side} px face. "
            "Look at it with `mer-flow show`, and build the sample again with another region backend."
        )
    pitch = np.minimum(CUT_WIDTH_IOD * distance / (size // 2), side / size)  # no wider than the map
    for i in np.flatnonzero(pitch < 1)[:1]:
        raise ViewError(
            f"{names[i]}: a {size} px map of regions would need cells of {pitch[i]:.2f} px, less than one "
            f"pixel of the {side} px maps. Ask for a smaller view, or build with a larger aligned face."
        )
    return pitch


def _require_regions(regions: np.ndarray, names: list[str]) -> None:
    absent = np.flatnonzero(~np.isfinite(regions).all(axis=(1, 2)))
    if len(absent):
        raise ViewError(
            f"{len(absent)} sample(s) have no region centres, {names[absent[0]]} among them; a whole-face "
            "view works for them"
        )
