"""Thumbnails of many samples in few pictures: a strip of maps per sample, 32 strips per picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mer_flow.pictures.colours import (
    flow_to_colour,
    flow_wheel,
    nice_ceiling,
    signed_to_colour,
    unsigned_to_colour,
)
from mer_flow.pictures.sheet import FLOW_FLOOR, SHOWN_PERCENT, STRAIN_FLOOR, find_samples
from mer_flow.pictures.web.pages import Pages
from mer_flow.samples import Sample
from mer_flow.store.reader import FlowStore
from mer_flow.views.resample import area_resize
from mer_flow.work.errors import UsageError

#: Side of a map in a strip at the most, px.
TILE = 112
_STRIPS = 32
#: Share of the samples whose colours end within a scale that was fitted to all of them.
_FITTED = 0.95


@dataclass(frozen=True)
class Ends:
    """Where the colours of thumbnails end: `flow` in px of the aligned face, `strain` without a unit."""

    flow: float
    strain: float

    @classmethod
    def parse(cls, text: str) -> Ends:
        """Read `FLOW,STRAIN`.

        Raises:
            UsageError: It is not two positive numbers.

        >>> Ends.parse("2,0.1")
        Ends(flow=2.0, strain=0.1)
        """
        try:
            flow, strain = map(float, text.split(","))
        except ValueError:
            flow = strain = float("nan")
        if not (0 < flow < float("inf") and 0 < strain < float("inf")):
            raise UsageError(f"a scale is 'FLOW,STRAIN', two positive numbers as in '2,0.1', got '{text}'")
        return cls(flow, strain)


@dataclass(frozen=True)
class Strip:
    """Where the thumbnails of a sample are.

    Attributes:
        sheet: The picture's path in the folder of pages.
        at: Which strip of it, from the top.
        of: How many strips it has.
        reach: Magnitude in px that the movement reaches, without speckle; None for maps without a unit.
        ends: Its own colour scale; None where all share one, or each map has its own.
    """

    sheet: str
    at: int
    of: int
    reach: float | None
    ends: Ends | None


@dataclass(frozen=True)
class Sprites:
    """Thumbnails of the samples of a store.

    Attributes:
        columns: What a strip shows, from the left.
        crisp: Whether pixels of the maps are shown as squares.
        ends: The colour scale of all strips; None where each has its own.
        in_px: Whether flow is in px; if not, each map is on its own scale.
        strips: Sample id to its strip.
    """

    columns: tuple[str, ...]
    crisp: bool
    ends: Ends | None
    in_px: bool
    strips: dict[str, Strip]


def write_sprites(
    pages: Pages,
    store: FlowStore,
    sample_ids: Sequence[str],
    scale: Ends | str = "shared",
    faces: bool = False,
) -> Sprites:
    """Draw thumbnails into `sprites/` of a folder of pages, and the legends of their colours.

    Args:
        pages: Where they go.
        store: Where the maps are.
        sample_ids: Which samples, in the order of the pages.
        scale: `shared` fits one scale to all, `sample` one to each; or the ends themselves. Without effect
            where maps have no unit.
        faces: Draw the aligned onset and apex too, where the store keeps them.

    Raises:
        UsageError: A sample is not in the store, or there is none.
    """
    found = find_samples(store, sample_ids)
    in_px = store.values == "px"
    faces = faces and any(store.has(database, "faces") for database in store.databases)
    columns = ("onset", "apex") * faces + ("flow",) * in_px + ("u", "v", "strain")
    reaches = [_reach(store, *place) for place in found] if in_px else []
    shared = scale if isinstance(scale, Ends) else _fitted(reaches) if scale == "shared" and in_px else None
    own = [shared or _fitted([reach]) for reach in reaches]
    tile, strips = min(TILE, store.map_size), {}
    for number, first in enumerate(range(0, len(found), _STRIPS)):
        part = found[first : first + _STRIPS]
        sheet = f"sprites/{number:03d}.webp"
        rows = [
            _strip(store, *place, own[first + at] if in_px else None, tile, faces)
            for at, place in enumerate(part)
        ]
        pages.write_bytes(sheet, _webp(np.concatenate(rows), lossless=tile < TILE))
        for at, (sample, _) in enumerate(part):
            reach = reaches[first + at].flow if in_px else None
            ends = None if shared or not in_px else own[first + at]
            strips[sample.sample_id] = Strip(sheet, at, len(part), reach, ends)
    _write_legends(pages)
    return Sprites(columns, tile < TILE, shared, in_px, strips)


def _reach(store: FlowStore, sample: Sample, index: int) -> Ends:
    """Return how far flow and strain of a sample go, without speckle."""
    u, v, strain = store.read_flow(sample.database, index)
    both = (np.percentile(values, SHOWN_PERCENT) for values in (np.hypot(u, v), strain))
    return Ends(*map(float, both))


def _fitted(reaches: Sequence[Ends]) -> Ends:
    """Return the scale that nearly all samples fit into; a few strong ones must not make the others pale."""
    flow = np.quantile([reach.flow for reach in reaches], _FITTED)
    strain = np.quantile([reach.strain for reach in reaches], _FITTED)
    return Ends(nice_ceiling(max(float(flow), FLOW_FLOOR)), nice_ceiling(max(float(strain), STRAIN_FLOOR)))


def _strip(
    store: FlowStore, sample: Sample, index: int, ends: Ends | None, tile: int, faces: bool
) -> NDArray[np.uint8]:
    """Return `(tile, columns * tile, 3)`."""
    maps = area_resize(store.read_flow(sample.database, index), tile)
    if ends is None:
        tiles = [unsigned_to_colour(channel, 255.0) for channel in maps]
    else:
        tiles = [
            flow_to_colour(maps[:2], ends.flow),
            *(signed_to_colour(channel, ends.flow) for channel in maps[:2]),
            unsigned_to_colour(maps[2], ends.strain),
        ]
    if faces:
        kept = store.has(sample.database, "faces")
        pictures = store.faces(sample.database, index) if kept else np.full((2, tile, tile), 238, np.uint8)
        tiles = [_small(picture, tile) for picture in pictures] + tiles
    return np.concatenate(tiles, axis=1)


def _small(picture: NDArray[np.uint8], tile: int) -> NDArray[np.uint8]:
    image = Image.fromarray(picture).convert("RGB").resize((tile, tile), Image.Resampling.BOX)
    return np.asarray(image)


def _write_legends(pages: Pages) -> None:
    ramp = np.tile(np.linspace(-1.0, 1.0, 192), (12, 1))
    for name, picture in (
        ("wheel", flow_wheel(97)),
        ("signed", signed_to_colour(ramp, 1.0)),
        ("unsigned", unsigned_to_colour((ramp + 1) / 2, 1.0)),
    ):
        pages.write_bytes(f"sprites/{name}.webp", _webp(picture, lossless=True))


def _webp(picture: NDArray[np.uint8], lossless: bool) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", lossless=lossless, quality=80, method=2)
    return buffer.getvalue()
