"""Colour-coded flow as plain pictures, one per sample, with one legend: for papers and slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mer_flow.pictures.colours import flow_to_colour
from mer_flow.pictures.page import Legend, Page, draw_page
from mer_flow.pictures.sheet import common_scale
from mer_flow.store.reader import FlowStore
from mer_flow.work.errors import ViewError
from mer_flow.work.files import new_file


def flow_maps(
    store: FlowStore, sample_ids: Sequence[str], folder: Path, *, maximum: float | None = None
) -> list[Path]:
    """Writes each sample's flow in colours at the store's resolution, and `legend.png` with the scale.

    Args:
        store: A store of flow in pixels.
        sample_ids: Which samples.
        folder: Where to write `<sample id with - for />.png`; present pictures are replaced.
        maximum: Magnitude in px that is fully saturated; fitted to the samples unless given.

    Returns:
        The pictures in the order of the samples, then the legend.

    Raises:
        UsageError: A sample is not in the store.
        ViewError: The store's maps have lost their zero, so that a direction cannot be told.
    """
    if store.values != "px":
        raise ViewError(
            f"{store.path} holds maps that came min-max scaled per image, without their zero: directions are "
            "lost, so there is no flow to colour. A contact sheet shows u, v and strain as they are."
        )
    top = maximum or common_scale(store, sample_ids, f"whole-{store.map_size}").flow
    at = {s.sample_id: (db, i) for db in store.databases for i, s in enumerate(store.samples(db))}
    paths = []
    for sample_id in sample_ids:
        database, index = at[sample_id]
        picture = flow_to_colour(store.read_flow(database, index, channels=2), top)
        paths.append(_save(Image.fromarray(picture), folder / f"{sample_id.replace('/', '-')}.png"))
    marks = (
        f"rim: {top:g} px, darker: more",
        "white: still",
        "right: red, down: yellow",
        "left: cyan, up: blue",
    )
    legend = Page("Optical flow, onset to apex", (), (Legend("wheel", "flow", marks),), ())
    paths.append(_save(draw_page(legend), folder / "legend.png"))
    return paths


def _save(image: Image.Image, path: Path) -> Path:
    with new_file(path, overwrite=True) as part:
        image.save(part, format="PNG")
    return path
