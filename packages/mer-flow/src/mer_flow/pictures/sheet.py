"""Contact sheets: one row per sample, from onset and apex to what a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_flow.pictures.colours import flow_to_colour, nice_ceiling, signed_to_colour, unsigned_to_colour
from mer_flow.pictures.page import Legend, Outline, Page, Row, Tile, draw_page
from mer_flow.pictures.regions import (
    COLOURS,
    drawable,
    face_outlines,
    picture_of,
    view_of,
    view_outlines,
)
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.store.reader import FlowStore
from mer_flow.store.schema import REGIONS
from mer_flow.views import ViewName, parse_view
from mer_flow.work.errors import UsageError, ViewError
from mer_flow.work.files import new_file
from mer_flow.work.suggest import unknown

#: Percentile of a map's pixels at which its colours end: the rest is speckle.
SHOWN_PERCENT = 99.8
#: Where a row's own scale ends at the least, px and strain: below it there is noise, which stays pale.
FLOW_FLOOR, STRAIN_FLOOR = 0.2, 0.01


@dataclass(frozen=True, slots=True)
class Scale:
    """Ends of the colour scales.

    Attributes:
        flow: Largest magnitude of u, v and of the flow, px of the aligned face.
        strain: Largest strain of the full map.
        view_strain: Largest strain of the view, whose averaging lowers it.
    """

    flow: float
    strain: float
    view_strain: float


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sample lies in the store."""

    sample: Sample
    database: str
    index: int


def _places(store: FlowStore, sample_ids: Sequence[str]) -> list[_Place]:
    """Finds samples in a store.

    Raises:
        UsageError: None was asked for, or one is not there.
    """
    if not sample_ids:
        raise UsageError("no sample to draw: name at least one sample id")
    found = {
        sample.sample_id: _Place(sample, database, index)
        for database in store.databases
        for index, sample in enumerate(store.samples(database))
    }
    for sample_id in sample_ids:
        if sample_id not in found:
            known = [name for name in found if name.split("/")[0] == sample_id.split("/")[0]] or list(found)
            raise unknown(f"sample in {store.path}", sample_id, known[:20])
    return [found[sample_id] for sample_id in sample_ids]


def common_scale(store: FlowStore, sample_ids: Sequence[str], view: str = "regions-28") -> Scale:
    """Finds scales that fit all these samples, so that their colours can be compared.

    Args:
        store: A store of flow in pixels.
        sample_ids: Which samples.
        view: The view that is drawn with them.

    Returns:
        The ends of the scales, rounded up.

    Raises:
        UsageError: A sample is not in the store.
    """
    cut = drawable(parse_view(view))
    scales = [_scale_of(*_maps_and_cut(store, place, cut)[:2]) for place in _places(store, sample_ids)]
    return Scale(
        max(scale.flow for scale in scales),
        max(scale.strain for scale in scales),
        max(scale.view_strain for scale in scales),
    )


def _scale_of(maps: NDArray[np.float32], cut: NDArray[np.float32] | None) -> Scale:
    """Fits scales to one sample."""
    flow = np.percentile(np.hypot(maps[0], maps[1]), SHOWN_PERCENT)
    strain = np.percentile(maps[2], SHOWN_PERCENT)
    view_strain = strain if cut is None else np.percentile(cut[2], SHOWN_PERCENT)
    return Scale(
        nice_ceiling(max(float(flow), FLOW_FLOOR)),
        nice_ceiling(max(float(strain), STRAIN_FLOOR)),
        nice_ceiling(max(float(view_strain), STRAIN_FLOOR)),
    )


def _maps_and_cut(
    store: FlowStore, place: _Place, view: ViewName
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None, str]:
    """Reads a sample's maps and cuts its view: maps, view, region centres, and why there is no view."""
    maps = store.read_flow(place.database, place.index)
    regions = np.full((5, 2), np.nan, np.float32)
    if store.has(place.database, "regions"):
        regions = store.regions(place.database)[place.index]
    try:
        return maps, view_of(maps[:2], regions, view, place.sample.sample_id), regions, ""
    except ViewError as error:
        return maps, None, None, str(error)


def contact_sheet(
    store: FlowStore,
    sample_ids: Sequence[str],
    path: Path,
    *,
    view: str = "regions-28",
    scale: Scale | None = None,
    tile: int = 168,
    title: str = "",
) -> Path:
    """Draws one sheet.

    A row shows a sample's aligned onset and apex with the boxes of the regions, the flow in colours, u, v,
    strain, and the view as a model reads it, enlarged. Onset and apex are drawn where the store kept faces;
    maps that were imported already scaled are drawn as they are, without a unit.

    Args:
        store: The store.
        sample_ids: Which samples, in this order.
        path: The PNG file to write; a present one is replaced.
        view: The view in the last columns: `regions-N`, `htnet-N` or `whole-N`.
        scale: Ends of the colour scales, the same for all rows, as `common_scale` finds them; unless given,
            each row has its own, stated beside it.
        tile: Side of a tile, px.
        title: First line; names the store unless given.

    Returns:
        `path`.

    Raises:
        UsageError: A sample is not in the store, or the view is unknown.
        ViewError: The view is larger than the store's maps.
        StoreError: The store is damaged.
    """
    places = _places(store, sample_ids)
    title = title or f"Onset-to-apex optical flow of {store.path.name}"
    cut = drawable(parse_view(view))
    if store.values == "minmax-255":
        page = _imported_page(store, places, title)
    else:
        if cut.size > store.map_size:
            raise ViewError(
                f"{cut} is larger than the {store.map_size} px maps of {store.path}; show a smaller view"
            )
        page = _computed_page(store, places, cut, scale, title)
    page.tile = tile
    with new_file(path, overwrite=True) as part:
        draw_page(page).save(part, format="PNG")
    return path


def _caption(place: _Place, lines: Sequence[str]) -> tuple[str, ...]:
    """Returns what stands beside a row."""
    sample = place.sample
    shown = [sample.sample_id, f"emotion: {sample.emotion or 'not given'}"]
    if sample.onset != UNKNOWN_FRAME or sample.apex != UNKNOWN_FRAME:
        frames = (sample.onset, sample.apex, sample.offset)
        onset, apex, offset = ("?" if frame == UNKNOWN_FRAME else str(frame) for frame in frames)
        shown.append(f"onset {onset}, apex {apex}, offset {offset}")
        shown.append(f"apex source: {sample.apex_source}")
    else:
        shown.append("frame numbers: not known")
    if sample.action_units:
        shown.append(f"action units: {sample.action_units}")
    return (*shown, *lines)


def _computed_page(
    store: FlowStore, places: Sequence[_Place], view: ViewName, scale: Scale | None, title: str
) -> Page:
    """Lays out a page of flow in pixels."""
    with_faces = any(store.has(place.database, "faces") for place in places)
    boxed = view.family != "whole"
    with_view = not boxed or any(store.has(place.database, "regions") for place in places)
    heads = [
        ("flow", "where skin moves: hue is direction, strength is distance"),
        ("u", "horizontal motion: red to the right, blue to the left"),
        ("v", "vertical motion: red down, blue up"),
        ("strain", "how much skin deforms"),
    ]
    if with_faces:
        apex = "peak of the movement, with the regions that are cut" if boxed else "peak of the movement"
        heads = [("onset", "aligned face before the movement"), ("apex", apex), *heads]
    if with_view and with_faces:
        heads.append((f"{view}: face", "the same cut of the apex face"))
    if with_view:
        heads.append((f"{view}: flow", "what a model reads, in the flow's colours"))
        heads.append((f"{view}: strain", "what a model reads, third channel"))
    side = store.map_size
    span = "one scale for all rows" if scale else "each row has its own colour scale, given beside it"
    notes = [f"One row per sample. Distances are in px of the aligned {side} x {side} px face; {span}."]
    notes.append(
        f"Amounts and scales leave out the highest {100 - SHOWN_PERCENT:.1f} % of a map's pixels: speckle."
    )
    if not with_faces:
        notes.append("Onset and apex faces are not in this store; to see them, build with --keep-faces.")
    if not with_view:
        notes.append(f"{view} cannot be drawn: this store has no region centres.")
    rows = [_computed_row(store, place, view, scale, with_faces, with_view) for place in places]
    return Page(title, notes, _legends(scale, view_outlines(view) if with_view else ()), heads, rows)


def _legends(scale: Scale | None, parts: Sequence[Outline]) -> list[Legend]:
    """Explains the colours of a page of flow in pixels."""
    flow = f"{scale.flow:g} px" if scale else "the row's limit"
    end = f"{scale.flow:g} px" if scale else "limit"
    strain = f"{scale.strain:g} (view {scale.view_strain:g})" if scale else "the row's limit"
    marks = (f"rim: {flow}, darker: more", "white: still", "right: red, down: yellow", "left: cyan, up: blue")
    legends = [
        Legend("wheel", "flow", marks),
        Legend("signed", "u (+ right), v (+ down)", (f"-{end}", "0", f"+{end}")),
        Legend("unsigned", "strain", ("0", strain)),
    ]
    if parts:
        sides = "regions (the subject's own left and right)"
        used = sorted({COLOURS.index(part.colour) for part in parts})
        names, colours = tuple(REGIONS[n] for n in used), tuple(COLOURS[n] for n in used)
        legends.append(Legend("swatches", sides, names, colours))
    return legends


def _computed_row(
    store: FlowStore, place: _Place, view: ViewName, shared: Scale | None, with_faces: bool, with_view: bool
) -> Row:
    """Draws one sample of flow in pixels."""
    maps, cut, regions, fault = _maps_and_cut(store, place, view)
    scale = shared or _scale_of(maps, cut)
    name = place.sample.sample_id
    boxes = () if regions is None else face_outlines(regions, view, maps.shape[-1])
    parts = view_outlines(view)
    tiles = [
        Tile(flow_to_colour(maps[:2], scale.flow), outlines=() if with_faces else boxes),
        Tile(signed_to_colour(maps[0], scale.flow)),
        Tile(signed_to_colour(maps[1], scale.flow)),
        Tile(unsigned_to_colour(maps[2], scale.strain)),
    ]
    if with_faces:
        missing = "not kept: build with --keep-faces"
        onset = apex = face_cut = None
        if store.has(place.database, "faces"):
            onset, apex = store.faces(place.database, place.index)
            face_cut = None if regions is None else picture_of(apex, regions, view, name)
        tiles = [Tile(onset, missing), Tile(apex, missing, boxes), *tiles]
        if with_view:
            tiles.append(Tile(face_cut, fault or missing, parts))
    if with_view:
        flow_cut = None if cut is None else flow_to_colour(cut[:2], scale.flow)
        strain_cut = None if cut is None else unsigned_to_colour(cut[2], scale.view_strain)
        named = tuple(replace(part, label="") for part in parts) if with_faces else parts
        tiles.append(Tile(flow_cut, fault, named, enlarge=True))
        tiles.append(Tile(strain_cut, fault, tuple(replace(p, label="") for p in parts), enlarge=True))
    magnitude = float(np.percentile(np.hypot(maps[0], maps[1]), SHOWN_PERCENT))
    lines = [f"moves up to {magnitude:.2f} px"]
    if shared is None:
        view_end = f", in {view} {scale.view_strain:g}" if with_view else ""
        lines.append(f"colours end at {scale.flow:g} px, strain {scale.strain:g}{view_end}")
    fallbacks = store.notes(place.database)[place.index].get("fallbacks") or []
    if fallbacks:
        lines.append(f"fallbacks: {', '.join(map(str, fallbacks))}")
    return Row(_caption(place, lines), tuple(tiles))


def _imported_page(store: FlowStore, places: Sequence[_Place], title: str) -> Page:
    """Lays out a page of maps that came scaled per image."""
    layout = store.pipeline.get("import", {}).get("layout", "another program")
    heads = [("u", "horizontal motion"), ("v", "vertical motion"), ("strain", "how much skin deforms"),
             ("all three", "red u, green v, blue strain, as published")]  # fmt: skip
    legends = [Legend("unsigned", "u, v, strain: each map on its own scale", ("its minimum", "its maximum"))]
    side = store.map_size
    notes = [
        f"One row per sample. {side} x {side} px maps imported from {layout}, each min-max scaled per image: "
        "the value of no motion and the unit are lost.",
        "Rows cannot be compared in strength.",
    ]
    rows = []
    for place in places:
        maps = store.read_flow(place.database, place.index)
        channels = tuple(Tile(unsigned_to_colour(channel, 255.0), enlarge=True) for channel in maps)
        together = np.rint(np.clip(maps, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
        rows.append(Row(_caption(place, ()), (*channels, Tile(together, enlarge=True))))
    return Page(title, notes, legends, heads, rows)
