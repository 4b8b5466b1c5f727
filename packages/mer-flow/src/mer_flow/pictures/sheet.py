"""Contact sheets: one row per sample, from onset and apex to what a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_flow.pictures.colours import flow_to_colour, nice_ceiling, signed_to_colour, unsigned_to_colour
from mer_flow.pictures.page import Legend, Outline, Page, Row, Tile, draw_page, flow_legend, save
from mer_flow.pictures.regions import COLOURS, drawable, face_outlines, picture_of, view_of, view_outlines
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.store.reader import FlowStore
from mer_flow.store.schema import REGIONS
from mer_flow.views import ViewName
from mer_flow.work.errors import UsageError, ViewError
from mer_flow.work.suggest import unknown

#: Percentile of a map's pixels at which its colours end: the rest is speckle.
SHOWN_PERCENT = 99.8
#: Where a row's own scale ends at the least, px and strain: below it there is noise, which stays pale.
FLOW_FLOOR, STRAIN_FLOOR = 0.2, 0.01


@dataclass(frozen=True, slots=True)
class Scale:
    """Ends of the colour scales."""

    flow: float  # magnitude of u, v and of the flow, px of the aligned face
    strain: float  # of the full map
    view_strain: float  # of the view, whose averaging lowers it


@dataclass(frozen=True, slots=True)
class _Item:
    """What a sheet shows of one sample; no view and no regions where `fault` says why."""

    sample: Sample
    index: int
    maps: NDArray[np.float32]
    cut: NDArray[np.float32] | None
    regions: NDArray[np.float32] | None
    fault: str

    def scale(self) -> Scale:
        strain = np.percentile(self.maps[2], SHOWN_PERCENT)
        view_strain = strain if self.cut is None else np.percentile(self.cut[2], SHOWN_PERCENT)
        return Scale(
            nice_ceiling(max(self.magnitude(), FLOW_FLOOR)),
            nice_ceiling(max(float(strain), STRAIN_FLOOR)),
            nice_ceiling(max(float(view_strain), STRAIN_FLOOR)),
        )

    def magnitude(self) -> float:
        return float(np.percentile(np.hypot(self.maps[0], self.maps[1]), SHOWN_PERCENT))


def find_samples(store: FlowStore, sample_ids: Sequence[str]) -> list[tuple[Sample, int]]:
    """Find samples and their rows in a store; UsageError where none was asked for, or one is not there."""
    if not sample_ids:
        raise UsageError("no sample to draw: name at least one sample id")
    found = {
        sample.sample_id: (sample, index)
        for database in store.databases
        for index, sample in enumerate(store.samples(database))
    }
    for sample_id in sample_ids:
        if sample_id not in found:
            known = [name for name in found if name.split("/")[0] == sample_id.split("/")[0]] or list(found)
            raise unknown(f"sample in {store.path}", sample_id, known[:20])
    return [found[sample_id] for sample_id in sample_ids]


def _item(store: FlowStore, sample: Sample, index: int, view: ViewName) -> _Item:
    maps = store.read_flow(sample.database, index)
    regions = np.full((5, 2), np.nan, np.float32)
    if store.has(sample.database, "regions"):
        regions = store.regions(sample.database)[index]
    try:
        cut = view_of(maps[:2], regions, view, sample.sample_id)
    except ViewError as error:
        return _Item(sample, index, maps, None, None, str(error))
    return _Item(sample, index, maps, cut, regions, "")


def common_scale(store: FlowStore, sample_ids: Sequence[str], view: str = "regions-28") -> Scale:
    """Find scales that fit all these samples of flow in pixels, so that their colours can be compared.

    Raises:
        UsageError: A sample is not in the store, or the view is none of flow.
    """
    cut = drawable(view)
    scales = [astuple(_item(store, *place, cut).scale()) for place in find_samples(store, sample_ids)]
    return Scale(*map(max, zip(*scales, strict=True)))


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
    """Draw one sheet.

    A row shows a sample's aligned onset and apex with the boxes of the regions, the flow in colours, u, v,
    strain, and the view as a model reads it, enlarged. Onset and apex are drawn where the store kept faces;
    maps that were imported already scaled are drawn as they are, without a unit.

    Args:
        store: Where they lie.
        sample_ids: Which samples, in this order.
        path: The PNG file to write; a present one is replaced.
        view: The view in the last columns: `regions-N`, `htnet-N` or `whole-N`.
        scale: Ends of the colour scales, the same for all rows, as `common_scale` finds them; unless given,
            each row has its own, stated beside it.
        tile: Side of a tile, px.
        title: First line; names the store unless given.

    Raises:
        UsageError: A sample is not in the store, or the view is none of flow.
        ViewError: The view is larger than the store's maps.
    """
    found = find_samples(store, sample_ids)
    cut = drawable(view)
    if store.values == "minmax-255":
        page = _imported_page(store, found)
    elif cut.size > store.map_size:
        raise ViewError(
            f"{cut} is larger than the {store.map_size} px maps of {store.path}; show a smaller view"
        )
    else:
        page = _computed_page(store, [_item(store, *place, cut) for place in found], cut, scale)
    title = title or f"Onset-to-apex optical flow of {store.path.name}"
    return save(draw_page(replace(page, tile=tile, title=title)), path)


def _caption(sample: Sample, *lines: str) -> tuple[str, ...]:
    """Return what stands beside a row."""
    frames: tuple[str, ...] = ("frame numbers: not known",)
    if sample.onset != UNKNOWN_FRAME or sample.apex != UNKNOWN_FRAME:
        numbers = ((name, getattr(sample, name)) for name in ("onset", "apex", "offset"))
        told = ", ".join(f"{name} {'?' if number == UNKNOWN_FRAME else number}" for name, number in numbers)
        frames = (told, f"apex source: {sample.apex_source}")
    units = (f"action units: {sample.action_units}",) if sample.action_units else ()
    return (sample.sample_id, f"emotion: {sample.emotion or 'not given'}", *frames, *units, *lines)


def _computed_page(store: FlowStore, items: Sequence[_Item], view: ViewName, scale: Scale | None) -> Page:
    """Lay out a page of flow in pixels."""
    with_faces = any(store.has(item.sample.database, "faces") for item in items)
    boxed = view.family != "whole"
    with_view = not boxed or any(store.has(item.sample.database, "regions") for item in items)
    apex = "peak of the movement" + (", with the regions that are cut" if boxed else "")
    faces = [("onset", "aligned face before the movement"), ("apex", apex)]
    flow = [
        ("flow", "where skin moves: hue is direction, strength is distance"),
        ("u", "horizontal motion: red to the right, blue to the left"),
        ("v", "vertical motion: red down, blue up"),
        ("strain", "how much skin deforms"),
    ]
    cuts = [
        (f"{view}: face", "the same cut of the apex face"),
        (f"{view}: flow", "what a model reads, in the flow's colours"),
        (f"{view}: strain", "what a model reads, third channel"),
    ]
    heads = faces * with_faces + flow + cuts[not with_faces :] * with_view
    side = store.map_size
    span = "one scale for all rows" if scale else "each row has its own colour scale, given beside it"
    notes = [
        f"One row per sample. Distances are in px of the aligned {side} x {side} px face; {span}.",
        f"Amounts and scales leave out the highest {100 - SHOWN_PERCENT:.1f} % of a map's pixels: speckle.",
    ]
    if not with_faces:
        notes.append("Onset and apex faces are not in this store; to see them, build with --keep-faces.")
    if not with_view:
        notes.append(f"{view} cannot be drawn: this store has no region centres.")
    rows = [_computed_row(store, item, view, scale, with_faces, with_view) for item in items]
    return Page("", notes, _legends(scale, view_outlines(view) if with_view else ()), heads, rows)


def _legends(scale: Scale | None, parts: Sequence[Outline]) -> list[Legend]:
    """Explain the colours of a page of flow in pixels."""
    flow, end, strain = "the row's limit", "limit", "the row's limit"
    if scale:
        flow = end = f"{scale.flow:g} px"
        strain = f"{scale.strain:g} (view {scale.view_strain:g})"
    legends = [
        flow_legend(flow),
        Legend("signed", "u (+ right), v (+ down)", (f"-{end}", "0", f"+{end}")),
        Legend("unsigned", "strain", ("0", strain)),
    ]
    if parts:
        used = sorted({COLOURS.index(part.colour) for part in parts})
        names, colours = tuple(REGIONS[n] for n in used), tuple(COLOURS[n] for n in used)
        legends.append(Legend("swatches", "regions (the subject's own left and right)", names, colours))
    return legends


def _computed_row(
    store: FlowStore, item: _Item, view: ViewName, shared: Scale | None, with_faces: bool, with_view: bool
) -> Row:
    """Draw one sample of flow in pixels."""
    sample, maps, cut, regions = item.sample, item.maps, item.cut, item.regions
    scale = shared or item.scale()
    boxes = () if regions is None else face_outlines(regions, view, maps.shape[-1])
    parts = view_outlines(view)
    bare = tuple(replace(part, label="") for part in parts)
    tiles = [
        Tile(flow_to_colour(maps[:2], scale.flow), outlines=() if with_faces else boxes),
        Tile(signed_to_colour(maps[0], scale.flow)),
        Tile(signed_to_colour(maps[1], scale.flow)),
        Tile(unsigned_to_colour(maps[2], scale.strain)),
    ]
    if with_faces:
        missing = "not kept: build with --keep-faces"
        onset = apex = face_cut = None
        if store.has(sample.database, "faces"):
            onset, apex = store.faces(sample.database, item.index)
            face_cut = None if regions is None else picture_of(apex, regions, view, sample.sample_id)
        tiles = [Tile(onset, missing), Tile(apex, missing, boxes), *tiles]
        if with_view:
            tiles.append(Tile(face_cut, item.fault or missing, parts))
    if with_view:
        flow_cut = None if cut is None else flow_to_colour(cut[:2], scale.flow)
        strain_cut = None if cut is None else unsigned_to_colour(cut[2], scale.view_strain)
        tiles.append(Tile(flow_cut, item.fault, bare if with_faces else parts, enlarge=True))
        tiles.append(Tile(strain_cut, item.fault, bare, enlarge=True))
    lines = [f"moves up to {item.magnitude():.2f} px"]
    if shared is None:
        view_end = f", in {view} {scale.view_strain:g}" if with_view else ""
        lines.append(f"colours end at {scale.flow:g} px, strain {scale.strain:g}{view_end}")
    fallbacks = store.notes(sample.database)[item.index].get("fallbacks") or []
    if fallbacks:
        lines.append(f"fallbacks: {', '.join(map(str, fallbacks))}")
    return Row(_caption(sample, *lines), tuple(tiles))


def _imported_page(store: FlowStore, found: Sequence[tuple[Sample, int]]) -> Page:
    """Lay out a page of maps that came scaled per image."""
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
    for sample, index in found:
        maps = store.read_flow(sample.database, index)
        together = np.rint(np.clip(maps, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
        pictures = [*(unsigned_to_colour(channel, 255.0) for channel in maps), together]
        rows.append(Row(_caption(sample), tuple(Tile(picture, enlarge=True) for picture in pictures)))
    return Page("", notes, legends, heads, rows)
