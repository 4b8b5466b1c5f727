"""Colour-coded flow as plain pictures, one per sample, with one legend: for papers and slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mer_flow.pictures.colours import flow_to_colour
from mer_flow.pictures.page import Page, draw_page, flow_legend, save
from mer_flow.pictures.sheet import common_scale, find_samples
from mer_flow.store.reader import FlowStore
from mer_flow.work.errors import ViewError


def flow_maps(
    store: FlowStore, sample_ids: Sequence[str], folder: Path, *, maximum: float | None = None
) -> list[Path]:
    """Write each sample's flow in colours at the store's resolution, and `legend.png` with the scale.

    Pictures are named `<sample id with - for />.png`, and replace present ones. `maximum` is the magnitude in
    px that is fully saturated; it is fitted to the samples unless given.

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
    paths = []
    for sample, index in find_samples(store, sample_ids):
        picture = flow_to_colour(store.read_flow(sample.database, index, channels=2), top)
        path = folder / f"{sample.sample_id.replace('/', '-')}.png"
        paths.append(save(Image.fromarray(picture), path))
    legend = Page("Optical flow, onset to apex", (), (flow_legend(f"{top:g} px"),), ())
    return [*paths, save(draw_page(legend), folder / "legend.png")]
