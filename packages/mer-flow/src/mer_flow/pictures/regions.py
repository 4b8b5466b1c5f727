"""Where a view cuts a face, and the same cut of its picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mer_flow.pictures.page import Outline
from mer_flow.views.layouts import HTNET_ORDER, cell_sizes, cut_view, region_blocks
from mer_flow.views.names import ViewName, parse_view
from mer_flow.work.errors import UsageError

#: One colour per region centre, in the store's order, readable on skin and on white.
COLOURS = ((0, 114, 178), (0, 158, 115), (204, 121, 0), (190, 60, 130), (213, 40, 20))
SHORT = ("left eye", "right eye", "nose", "left lip", "right lip")


def drawable(view: str) -> ViewName:
    """Parse the name of a view that is cut from the flow; another one is a UsageError.

    >>> str(drawable("regions-28"))
    'regions-28'
    """
    parsed = parse_view(view)
    if parsed.is_image:
        raise UsageError(f"'{view}' is no view of the flow; show whole-N, regions-N or htnet-N")
    return parsed


def view_of(
    flow: NDArray[np.float32], regions: NDArray[np.float32], view: ViewName, name: str
) -> NDArray[np.float32]:
    """Cut one sample as `cut_view` does, to (3, N, N) float32, but keep u and v in px of the aligned face."""
    maps, pitch = cut_view(view, flow[None], regions[None], [name])
    cut: NDArray[np.float32] = maps[0]
    cut[:2] *= float(np.ravel(pitch)[0])
    return cut


def picture_of(
    face: NDArray[np.uint8], regions: NDArray[np.float32], view: ViewName, name: str
) -> NDArray[np.uint8]:
    """Cut a face's picture, (S, S) or (S, S, 3), as a view cuts its flow, but at the face's own resolution.

    The cut's side is the largest multiple of the view's size that the face can give.
    """
    colour = face[..., None] if face.ndim == 2 else face
    planes = np.moveaxis(colour, -1, 0).astype(np.float32)
    times = max(1, int(_pitch(planes.shape[-1], regions, view)))
    large = ViewName(view.family, view.size * times, view.layout)
    cut = [view_of(np.stack([plane, plane]), regions, large, name)[0] for plane in planes]
    picture = np.rint(np.clip(np.stack(cut, axis=-1), 0, 255)).astype(np.uint8)
    return picture[..., 0] if face.ndim == 2 else picture


def _pitch(side: int, regions: NDArray[np.float32], view: ViewName) -> float:
    """Return the side of a view's cell in px of the face, of the same type as `cut_view` gives it."""
    if view.family != "regions":
        return side / view.size
    return float(cell_sizes(regions[None], side, view.size, ["sample"]).astype(np.float32)[0])


def face_outlines(regions: NDArray[np.float32], view: ViewName, side: int) -> tuple[Outline, ...]:
    """Return the boxes that a view cuts, to be drawn on a face of `side` px; a whole view has none."""
    if view.family == "whole":
        return ()
    pitch = _pitch(side, regions, view)
    centres = regions.astype(np.float64) + 0.5
    if view.family == "htnet":
        half = view.size // 2
        spans: list[tuple[int, int, int, float]] = [(region, half, half, 0.0) for region in HTNET_ORDER]
        centres = np.clip(centres, half / 2 * pitch, side - half / 2 * pitch)
    else:
        spans = [(b.region, b.height, b.width, b.lift) for b in region_blocks(view.layout, view.size)]
    boxes = []
    for region, height, width, lift in spans:
        tall, wide = height * pitch, width * pitch
        x = min(max(centres[region, 0] - wide / 2, 0.0), max(side - wide, 0.0))
        y = min(max(centres[region, 1] - lift * pitch - tall / 2, 0.0), max(side - tall, 0.0))
        boxes.append(Outline((x / side, y / side, (x + wide) / side, (y + tall) / side), COLOURS[region]))
    return tuple(boxes)


def view_outlines(view: ViewName) -> tuple[Outline, ...]:
    """Return the named parts of a view, to be drawn on the view itself.

    >>> [outline.label for outline in view_outlines(drawable("regions-28"))]
    ['right eye', 'left eye', 'nose', 'right lip', 'left lip']
    """
    size, half = view.size, view.size // 2
    parts: list[tuple[int, int, int, int, int]] = []
    if view.family == "htnet":
        order = HTNET_ORDER if view.layout == "upright" else (1, 4, 0, 3)
        parts = [(region, n % 2 * half, n // 2 * half, half, half) for n, region in enumerate(order)]
    elif view.family == "regions":
        parts = [(b.region, b.left, b.top, b.width, b.height) for b in region_blocks(view.layout, size)]
    return tuple(
        Outline((x / size, y / size, (x + wide) / size, (y + tall) / size), COLOURS[region], SHORT[region])
        for region, x, y, wide, tall in parts
    )
