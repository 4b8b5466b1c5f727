"""Colours, boxes and contact sheets, checked on a known movement of a real face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mer_flow.flow.strain import optical_strain
from mer_flow.pictures import common_scale, contact_sheet, flow_maps, flow_to_colour, flow_wheel
from mer_flow.pictures.colours import nice_ceiling, signed_to_colour, unsigned_to_colour
from mer_flow.pictures.page import CAPTION_WIDTH, GAP, MARGIN
from mer_flow.pictures.regions import face_outlines, picture_of, view_of, view_outlines
from mer_flow.samples import Sample, SampleTable
from mer_flow.store.reader import FlowStore
from mer_flow.store.encode import SampleRecord, encode_sample
from mer_flow.store.writer import StoreWriter
from mer_flow.views import parse_view
from mer_flow.work.errors import UsageError, ViewError

SIDE = TILE = 224
#: Eyes, nose and lip corners of a face of 224 px: subject's left eye first, on the image's right.
REGIONS = np.array([[152, 90], [72, 90], [112, 124], [136, 160], [88, 160]], np.float32)
#: Where the movement is: at the subject's right eyebrow, and how far it goes, up.
CENTRE, REACH = (72.0, 68.0), 1.6


def movement() -> np.ndarray:
    """A brow raise: (3, S, S) u, v, strain."""
    y, x = np.mgrid[:SIDE, :SIDE]
    flow = np.zeros((2, SIDE, SIDE), np.float32)
    flow[1] = -REACH * np.exp(-((x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2) / (2 * 14.0**2))
    return np.concatenate([flow, optical_strain(flow)[None]])


def sample(name: str) -> Sample:
    return Sample(
        f"samm/006/{name}", "samm", "samm/006", name, 10, 20, 31, "sheet", "surprise", "R1+R2", 2, 200.0
    )


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    crop = Image.fromarray(data.astronaut()[20:220, 120:320])
    return np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, face: np.ndarray) -> dict[str, Path]:
    """One store with everything, one without faces, one without region centres."""
    folder = tmp_path_factory.mktemp("stores")
    pipeline = {"map_kind": {"kind": "computed", "map_size": SIDE, "values": "px"}}
    kinds = {
        "full": {"regions": REGIONS, "faces": np.stack([face, face])},
        "faceless": {"regions": REGIONS},
        "bare": {},
    }
    for kind, parts in kinds.items():
        with StoreWriter(folder / f"{kind}.h5", pipeline) as writer:
            rows = [sample("006_1_1"), sample("006_1_2")]
            writer.begin("samm", SampleTable(rows))
            for n, row in enumerate(rows):
                notes = {"fallbacks": ["regions-dlib"] if n else []}
                record = SampleRecord(row, movement() / (1 + 3 * n), notes=notes, **parts)
                writer.commit(row.sample_id, encode_sample(record))
            writer.finish()
    return {kind: folder / f"{kind}.h5" for kind in kinds}


def test_directions_have_their_colours() -> None:
    flow = np.array([[[1, 0, -1, 0, 0]], [[0, 1, 0, -1, 0]]], float)
    right, down, left, up, still = flow_to_colour(flow, 1.0)[0].astype(int)
    assert right.tolist() == [255, 0, 0] and still.tolist() == [255, 255, 255]
    assert down[0] > 200 and down[1] > 200 and down[2] == 0  # yellow
    assert left[0] == 0 and left[1] > 100 and left[2] > 200  # cyan to blue
    assert up[2] > 200 and up[1] < 50  # blue to violet


def test_strength_is_saturation_and_too_much_is_darker() -> None:
    flow = np.zeros((2, 1, 4))
    flow[0, 0] = [0.5, 1.0, 1.0001, 9.0]
    half, full, over, far = flow_to_colour(flow, 1.0)[0].astype(int)
    assert half.tolist() == [255, 128, 128] and full.tolist() == [255, 0, 0]
    assert over.tolist() == far.tolist() == [191, 0, 0]


def test_wheel_has_no_seam() -> None:
    angle = np.linspace(0, 2 * np.pi, 3601)
    colours = flow_to_colour(np.stack([np.cos(angle), np.sin(angle)])[:, None], 1.0)[0].astype(int)
    assert np.abs(np.diff(colours, axis=0)).max() <= 8
    assert np.abs(colours[0] - colours[-1]).max() <= 1
    wheel = flow_wheel(41)
    assert wheel[20, 20].tolist() == [255, 255, 255] and wheel[0, 0].tolist() == [255, 255, 255]


def test_symmetric_scale_and_unknown_values() -> None:
    ends = signed_to_colour(np.array([[-2.0, 0.0, 2.0, np.nan]]), 2.0)[0].astype(int)
    assert ends[0][2] > ends[0][0] and ends[2][0] > ends[2][2] and np.ptp(ends[1]) == 0
    assert ends[3].tolist() == [128, 128, 128]
    assert flow_to_colour(np.full((2, 1, 1), np.nan), 1.0).tolist() == [[[0, 0, 0]]]
    brightness = unsigned_to_colour(np.linspace(0, 1, 50)[None], 1.0)[0] @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(brightness) > 0).all()


@pytest.mark.parametrize("maximum", [0.0, -1.0, np.nan])
def test_a_scale_without_end_is_refused(maximum: float) -> None:
    with pytest.raises(UsageError, match="positive number"):
        flow_to_colour(np.zeros((2, 2, 2)), maximum)
    with pytest.raises(UsageError, match=r"\(2, H, W\)"):
        flow_to_colour(np.zeros((3, 2, 2)), 1.0)


def test_nice_ceiling_never_cuts() -> None:
    values = np.random.default_rng(0).uniform(0.001, 50, 200)
    assert all(value <= nice_ceiling(value) <= 1.7 * value for value in values)


@pytest.mark.parametrize("name", ["regions-28", "regions-28@quadrants", "htnet-28"])
def test_boxes_on_the_face_are_what_the_view_shows(face: np.ndarray, name: str) -> None:
    view = parse_view(name)
    picture = picture_of(face, REGIONS, view, "samm/006/x").astype(float)
    pairs = list(zip(face_outlines(REGIONS, view, SIDE), view_outlines(view), strict=True))
    assert len(pairs) == (5 if name == "regions-28" else 4)
    for on_face, on_view in pairs:
        assert on_face.colour == on_view.colour
        x0, y0, x1, y1 = (value * SIDE for value in on_face.box)
        left, top, right, bottom = (round(value * len(picture)) for value in on_view.box)
        part = picture[top:bottom, left:right]
        expected = Image.fromarray(face).resize(
            (right - left, bottom - top), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1)
        )
        inner = (slice(1, -1), slice(1, -1))
        correlation = np.corrcoef(part[inner].ravel(), np.asarray(expected, float)[inner].ravel())[0, 1]
        assert correlation > 0.97, on_view.label


@pytest.mark.parametrize("name", ["regions-28", "htnet-28", "whole-28"])
def test_views_keep_px_of_the_face(name: str) -> None:
    flow = np.empty((2, SIDE, SIDE), np.float32)
    flow[0], flow[1] = 2.0, -0.5
    cut = view_of(flow, REGIONS, parse_view(name), "samm/006/x")
    assert np.allclose(cut[0], 2.0, atol=1e-5) and np.allclose(cut[1], -0.5, atol=1e-5)
    assert np.allclose(cut[2], 0.0, atol=1e-6)


def tile(path: Path, row: int, column: int) -> np.ndarray:
    """Cuts a tile out of a sheet; rows lie at the bottom of the page, one below the other."""
    page = np.asarray(Image.open(path).convert("RGB")).astype(int)
    rows = 2
    heights = (len(page) - MARGIN, TILE + GAP)
    top = heights[0] - (rows - row) * heights[1]
    left = MARGIN + CAPTION_WIDTH + column * (TILE + GAP)
    return page[top : top + TILE, left : left + TILE]


def test_the_moved_region_lights_up(stores: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    with FlowStore(stores["full"]) as store:
        contact_sheet(store, store.table().sample_ids, path, tile=TILE)
    for row in (0, 1):  # the weak one too, on its own scale
        for column in (2, 4, 5):  # flow, v, strain
            picture = tile(path, row, column)
            ground = np.median(picture.reshape(-1, 3), axis=0)
            light = np.abs(picture - ground).sum(axis=-1)
            y, x = (light[..., None] * np.indices(light.shape).transpose(1, 2, 0)).sum(
                axis=(0, 1)
            ) / light.sum()
            assert np.hypot(x - CENTRE[0], y - CENTRE[1]) < 6, (row, column)
            assert light.max() > 150
        still = tile(path, row, 3)  # u
        assert np.ptp(still) <= 1
        strongest = tile(path, row, 2)[int(CENTRE[1]), int(CENTRE[0])]
        assert strongest[2] > strongest[0] > strongest[1]  # up: blue to violet


def test_a_shared_scale_keeps_the_weak_one_pale(stores: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    with FlowStore(stores["full"]) as store:
        ids = store.table().sample_ids
        scale = common_scale(store, ids)
        contact_sheet(store, ids, path, scale=scale, tile=TILE)
    assert 0.9 * REACH <= scale.flow <= 1.3 * REACH
    strong, weak = (255 - tile(path, row, 2).min() for row in (0, 1))
    assert weak < 0.4 * strong


def test_view_column_shows_the_five_parts_of_the_face(
    stores: dict[str, Path], face: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "sheet.png"
    with FlowStore(stores["full"]) as store:
        contact_sheet(store, store.table().sample_ids, path, tile=TILE)
    assert np.abs(tile(path, 0, 0) - face).max() == 0
    drawn = tile(path, 0, 6)
    expected = picture_of(face, REGIONS, parse_view("regions-28"), "samm/006/x")
    resized = np.asarray(Image.fromarray(expected).resize((TILE, TILE), Image.Resampling.BICUBIC))
    rows = slice(round(TILE * 24 / 28), TILE - 4)  # below the labels
    assert np.abs(drawn[rows, 4:50] - resized[rows, 4:50]).max() <= 1


def columns_of(path: Path) -> int:
    return (Image.open(path).width - 2 * MARGIN - CAPTION_WIDTH) // (TILE + GAP)


@pytest.mark.parametrize(("kind", "columns"), [("full", 9), ("faceless", 6), ("bare", 4)])
def test_what_is_missing_has_no_column(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, columns: int
) -> None:
    from mer_flow.pictures import sheet

    pages = []
    monkeypatch.setattr(sheet, "draw_page", lambda page: pages.append(page) or Image.new("RGB", (4, 4)))
    with FlowStore(stores[kind]) as store:
        contact_sheet(store, store.table().sample_ids, tmp_path / "sheet.png", tile=TILE)
    (page,) = pages
    assert len(page.heads) == columns and all(len(row.tiles) == columns for row in page.rows)
    notes = " ".join(page.notes)
    assert ("--keep-faces" in notes) == (kind != "full")
    assert ("no region centres" in notes) == (kind == "bare")
    caption = " ".join(page.rows[1].caption)
    for words in (
        "samm/006/006_1_2",
        "surprise",
        "onset 10, apex 20, offset 31",
        "sheet",
        "up to 0.37 px",
        "regions-dlib",
    ):
        assert words in caption


def test_plain_maps_have_a_legend(stores: dict[str, Path], tmp_path: Path) -> None:
    with FlowStore(stores["bare"]) as store:
        first, _, legend = flow_maps(store, store.table().sample_ids, tmp_path, maximum=2.0)
    assert first.name == "samm-006-006_1_1.png" and legend.name == "legend.png"
    expected = flow_to_colour(movement()[:2].astype(np.float16), 2.0).astype(int)
    assert np.abs(np.asarray(Image.open(first)).astype(int) - expected).max() <= 1


def test_unknown_samples_and_views(stores: dict[str, Path], tmp_path: Path) -> None:
    with FlowStore(stores["full"]) as store:
        with pytest.raises(UsageError, match="did you mean 'samm/006/006_1_"):
            contact_sheet(store, ["samm/006/006_1_"], tmp_path / "x.png")
        with pytest.raises(UsageError, match="at least one"):
            contact_sheet(store, [], tmp_path / "x.png")
        with pytest.raises(UsageError, match="no view of the flow"):
            contact_sheet(store, store.table().sample_ids, tmp_path / "x.png", view="faces-28")
        with pytest.raises(ViewError, match="smaller view"):
            contact_sheet(store, store.table().sample_ids, tmp_path / "x.png", view="whole-448")
    assert not list(tmp_path.iterdir())
