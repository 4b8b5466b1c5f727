"""Where a view cuts a face, and the same cut of its picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_flow.pictures.page import Outline
from mer_flow.views.layouts import htnet_maps, region_blocks, region_maps, whole_maps
from mer_flow.views.names import ViewName
from mer_flow.work.errors import UsageError

#: One colour per region centre, in the store's order, readable on skin and on white.
COLOURS = ((0, 114, 178), (0, 158, 115), (204, 121, 0), (190, 60, 130), (213, 40, 20))
SHORT = ("left eye", "right eye", "nose", "left lip", "right lip")

# HTNet's four squares: rows of the region centres in the order of its quadrants.
_HTNET_ORDER = (1, 0, 4, 3)


def drawable(view: ViewName) -> ViewName:
    """Returns the view, or refuses one that is not cut from the flow.

    Raises:
        UsageError: The view holds images.

    >>> from mer_flow.views import parse_view
    >>> str(drawable(parse_view("regions-28")))
    'regions-28'
    """
    if view.family not in ("whole", "regions", "htnet"):
        raise UsageError(f"'{view}' is no view of the flow; show whole-N, regions-N or htnet-N")
    return view


def view_of(
    flow: NDArray[np.float32], regions: NDArray[np.float32], view: ViewName, name: str
) -> NDArray[np.float32]:
    """Cuts one sample as a model reads it, but keeps u and v in px of the aligned face.

    Args:
        flow: `(2, S, S)` float32, u and v in px.
        regions: `(5, 2)` float32 x, y in px; ignored by a whole view.
        view: What to cut.
        name: The sample's id, for messages.

    Returns:
        `(3, N, N)` float32: u, v in px of the aligned face, strain.

    Raises:
        ViewError: The region centres are absent or implausible.
    """
    pitch: Any = flow.shape[-1] / view.size
    if view.family == "regions":
        maps, pitch = region_maps(flow[None], regions[None], view.layout, view.size, [name])
    elif view.family == "htnet":
        maps = htnet_maps(flow[None], regions[None], view.layout, view.size, [name])
    else:
        maps = whole_maps(flow[None], view.size)
    cut: NDArray[np.float32] = maps[0].copy()
    cut[:2] *= float(np.ravel(pitch)[0])
    return cut


def picture_of(
    face: NDArray[np.uint8], regions: NDArray[np.float32], view: ViewName, name: str
) -> NDArray[np.uint8]:
    """Cuts a face's picture as a view cuts its flow, but at the face's own resolution.

    Args:
        face: `(S, S)` or `(S, S, 3)` uint8.
        regions: `(5, 2)` float32 x, y in px.
        view: The cut.
        name: The sample's id, for messages.

    Returns:
        `(M, M)` or `(M, M, 3)` uint8, with M the largest multiple of the view's size that the face can give.

    Raises:
        ViewError: The region centres are absent or implausible.
    """
    colour = face[..., None] if face.ndim == 2 else face
    planes = np.moveaxis(colour, -1, 0).astype(np.float32)
    times = max(1, int(_pitch(planes.shape[-1], regions, view)))
    large = ViewName(view.family, view.size * times, view.layout)
    cut = [view_of(np.stack([plane, plane]), regions, large, name)[0] for plane in planes]
    picture = np.rint(np.clip(np.stack(cut, axis=-1), 0, 255)).astype(np.uint8)
    return picture[..., 0] if face.ndim == 2 else picture


def _pitch(side: int, regions: NDArray[np.float32], view: ViewName) -> float:
    """Returns the side of a view's cell in px of the face."""
    if view.family != "regions":
        return side / view.size
    blank = np.zeros((1, 2, side, side), np.float32)
    return float(region_maps(blank, regions[None], view.layout, view.size, ["sample"])[1][0])


def face_outlines(regions: NDArray[np.float32], view: ViewName, side: int) -> tuple[Outline, ...]:
    """Returns the boxes that a view cuts, to be drawn on the aligned face.

    Args:
        regions: `(5, 2)` float32 x, y in px.
        view: The cut; a whole view has no boxes.
        side: Side of the aligned face, px.

    Returns:
        One outline per region that the view uses.

    Raises:
        ViewError: The region centres are absent or implausible.
    """
    if view.family == "whole":
        return ()
    pitch = _pitch(side, regions, view)
    boxes = []
    if view.family == "htnet":
        half = view.size // 2
        spans = [(region, half, half, 0.0) for region in _HTNET_ORDER]
        low, high = half / 2 * pitch, side - half / 2 * pitch
        centres = np.clip(regions.astype(np.float64) + 0.5, low, high)
    else:
        spans = [(b.region, b.height, b.width, b.lift) for b in region_blocks(view.layout, view.size)]
        centres = regions.astype(np.float64) + 0.5
    for region, height, width, lift in spans:
        tall, wide = height * pitch, width * pitch
        x = min(max(centres[region, 0] - wide / 2, 0.0), max(side - wide, 0.0))
        y = min(max(centres[region, 1] - lift * pitch - tall / 2, 0.0), max(side - tall, 0.0))
        box = (x / side, y / side, (x + wide) / side, (y + tall) / side)
        boxes.append(Outline(box, COLOURS[region]))
    return tuple(boxes)


def view_outlines(view: ViewName) -> tuple[Outline, ...]:
    """Returns the named parts of a view, to be drawn on the view itself.

    >>> from mer_flow.views import parse_view
    >>> [outline.label for outline in view_outlines(parse_view("regions-28"))]
    ['right eye', 'left eye', 'nose', 'right lip', 'left lip']
    """
    if view.family == "whole":
        return ()
    if view.family == "htnet":
        order = _HTNET_ORDER if view.layout == "upright" else (1, 4, 0, 3)
        corners = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))
        return tuple(
            Outline((x, y, x + 0.5, y + 0.5), COLOURS[region], SHORT[region])
            for region, (x, y) in zip(order, corners, strict=True)
        )
    size = view.size
    return tuple(
        Outline(
            (b.left / size, b.top / size, (b.left + b.width) / size, (b.top + b.height) / size),
            COLOURS[b.region],
            SHORT[b.region],
        )
        for b in region_blocks(view.layout, size)
    )
