"""From the cells of a view to the regions of a face, and back onto the face."""

from __future__ import annotations

import numpy as np
from PIL import Image

#: Region centres on an aligned face where a sample has none of its own, in parts of its side: left eye, right
#: eye, nose, left and right lip corner; the subject's own sides, which a picture shows mirrored.
USUAL_CENTRES = np.array([(0.7, 0.32), (0.3, 0.32), (0.5, 0.56), (0.7, 0.68), (0.3, 0.68)], np.float32)


def region_names() -> tuple[str, ...]:
    """Name the regions, in the order of their numbers."""
    from mer_flow.pictures.regions import SHORT

    return SHORT


def region_of_cells(view: str, centres: np.ndarray, side: int) -> np.ndarray:
    """Say which region each cell of a view shows.

    Args:
        view: As in `regions-28`.
        centres: `(5, 2)` px of the aligned face.
        side: Side of that face, px.

    Returns:
        `(N, N)` int64, 0 to 4: the part of the view that the cell lies in; of a `whole` view the region whose
        centre is nearest.
    """
    from mer_flow.pictures.regions import COLOURS, drawable, view_outlines

    parsed = drawable(view)
    size = parsed.size
    cells = (np.mgrid[0:size, 0:size][::-1] + 0.5) / size  # x, y in parts of the map
    if parsed.family == "whole":
        apart = [np.hypot(*(cells - (centre / side)[:, None, None])) for centre in centres]
        return np.argmin(apart, axis=0)
    found = np.zeros((size, size), np.int64)
    for part in view_outlines(parsed):
        left, top, right, bottom = (round(edge * size) for edge in part.box)
        found[top:bottom, left:right] = COLOURS.index(part.colour)
    return found


def on_face(cells: np.ndarray, view: str, centres: np.ndarray, side: int) -> np.ndarray:
    """Lay a map of cells onto the aligned face, each cell where it was cut; where cuts overlap they add.

    Args:
        cells: `(N, N)` float.
        view: As in `regions-28`.
        centres: `(5, 2)` px of the aligned face.
        side: Side of that face, px.

    Returns:
        `(side, side)` float32, zero where the view does not look.
    """
    from mer_flow.pictures.regions import drawable, face_outlines, view_outlines

    parsed = drawable(view)
    if parsed.family == "whole":
        return _resized(cells, side, side)
    face = np.zeros((side, side), np.float32)
    size = parsed.size
    boxes = zip(view_outlines(parsed), face_outlines(centres, parsed, side), strict=True)
    for part, place in boxes:
        left, top, right, bottom = (round(edge * size) for edge in part.box)
        x0, y0, x1, y1 = (round(edge * side) for edge in place.box)
        face[y0:y1, x0:x1] += _resized(cells[top:bottom, left:right], x1 - x0, y1 - y0)
    return face


def _resized(cells: np.ndarray, width: int, height: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(cells, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
