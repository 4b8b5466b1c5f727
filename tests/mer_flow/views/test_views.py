"""Views against closed forms, OpenCV's area reduction and the placement they document."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.mer_flow.stores import sample_of, write_store

from mer_flow.store.reader import FlowStore
from mer_flow.store.schema import REGIONS
from mer_flow.views import NORMALISATIONS, ViewReader, missing_ingredient, parse_view, read_view
from mer_flow.views.layouts import CUT_WIDTH_IOD, region_blocks
from mer_flow.views.names import REGION_LAYOUTS
from mer_flow.views.normalise import FLOW_LIMIT, STRAIN_LIMIT
from mer_flow.views.read import BATCH
from mer_flow.work.errors import UsageError, ViewError

SIDE = 112
#: Left eye, right eye, nose, left and right lip corner; the subject's left is on the image's right. IOD 44.8
#: px.
CENTRES = np.array([[78.0, 40.0], [33.2, 40.0], [55.5, 62.0], [72.0, 84.0], [39.0, 84.0]], dtype=np.float32)
EMOTIONS = ("disgust", "happiness", "surprise", "others")
Y, X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


def with_strain(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u_y, u_x = np.gradient(u)
    v_y, v_x = np.gradient(v)
    return np.stack([u, v, np.sqrt(u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2)])


def write(
    path: Path, database: str, flows: list[np.ndarray], *, values: str = "px", **extra: Any
) -> FlowStore:
    rows = [(sample_of(database, f"s{i}", "c", EMOTIONS[i % 4]), flow) for i, flow in enumerate(flows)]
    parts = {"regions": CENTRES if values == "px" else None} | extra
    return write_store(path, rows, values=values, **parts)


def at(flow: np.ndarray, tmp_path: Path, view: str, normalisation: str = "raw", **extra: Any) -> np.ndarray:
    """Writes one sample and reads it through a view."""
    with write(tmp_path / f"{time.monotonic_ns()}.h5", "casme2", [flow], **extra) as store:
        return read_view(store, view, normalisation).maps[0]


def bump(x: float, y: float, sigma: float = 3.0) -> np.ndarray:
    return np.exp(-((X - x) ** 2 + (Y - y) ** 2) / (2 * sigma**2))


#: u_x 0.02, v_y 0.005, v_x 0.01, whatever the size of the map, and its strain.
LINEAR = with_strain(0.02 * X - 1, 0.01 * X + 0.005 * Y)
LINEAR_STRAIN = np.sqrt(0.02**2 + 0.005**2 + 0.5 * 0.01**2)


@pytest.mark.parametrize("view", ["whole-28", "whole-30", "htnet-28"])
def test_flow_keeps_its_unit_and_strain_stays_dimensionless(view: str, tmp_path: Path) -> None:
    maps = at(LINEAR, tmp_path, view)
    size = maps.shape[-1]
    quadrants = (
        [slice(0, size)] if view.startswith("whole") else [slice(0, size // 2), slice(size // 2, size)]
    )
    for rows in quadrants:
        for columns in quadrants:
            assert np.allclose(np.diff(maps[0, rows, columns], axis=1), 0.02, atol=2e-3)
    assert np.allclose(maps[2], LINEAR_STRAIN, rtol=0.05)
    if view == "whole-28":
        cell = (np.arange(28) + 0.5) * 4 - 0.5
        assert np.allclose(maps[0], (0.02 * cell - 1) / 4, atol=2e-4)


@pytest.mark.parametrize("layout", REGION_LAYOUTS)
@pytest.mark.parametrize("size", [28, 36])
def test_regions_of_a_linear_field_have_no_seams_in_strain(layout: str, size: int, tmp_path: Path) -> None:
    maps = at(LINEAR, tmp_path, f"regions-{size}@{layout}")
    assert np.allclose(maps[2], LINEAR_STRAIN, rtol=0.05), "a seam between regions would show as strain"
    pitch = CUT_WIDTH_IOD * 44.8 / (size // 2)
    block = region_blocks(layout, size)[0]
    assert np.allclose(np.diff(maps[0, : size // 4, : size // 4], axis=1), 0.02, atol=1e-3)
    centre_x = (33.2 + 0.5 + (np.arange(block.width) + 0.5 - block.width / 2) * pitch) - 0.5
    assert np.allclose(maps[0, 0, : size // 4], (0.02 * centre_x[: size // 4] - 1) / pitch, atol=1e-3)


def test_a_field_without_strain_has_none_in_any_view(tmp_path: Path) -> None:
    turn = 0.01
    flow = with_strain(2 - turn * (Y - 50), turn * (X - 50))
    for view in ("whole-28", "regions-28", "regions-28@quadrants", "regions-28@mean-centre", "htnet-28"):
        assert np.abs(at(flow, tmp_path, view)[2]).max() < 2e-3


@pytest.mark.parametrize("region", range(5))
def test_quincunx_shows_each_region_at_its_place(region: int, tmp_path: Path) -> None:
    movement = bump(*CENTRES[region])
    maps = at(with_strain(movement, -movement), tmp_path, "regions-28")
    row, column = np.unravel_index(maps[0].argmax(), (28, 28))
    # the subject's left eye and lip corner lie on the image's right, and so in the map; the brows' side of
    # the eye cuts is kept, so the eye lies below the block's middle
    expected = {
        "left eye": (6.5, 20.5),
        "right eye": (6.5, 6.5),
        "nose": (13.5, 13.5),
        "left lip corner": (22.5, 20.5),
        "right lip corner": (22.5, 6.5),
    }[REGIONS[region]]
    assert abs(row - expected[0]) <= 0.5
    assert abs(column - expected[1]) <= 0.5
    assert maps[0].max() > 0
    assert maps[1].min() < 0
    strongest = np.abs(maps[0])
    block = next(b for b in region_blocks("quincunx", 28) if b.region == region)
    inside = strongest[block.top : block.top + block.height, block.left : block.left + block.width]
    assert inside.sum() > 0.5 * strongest.sum(), "neighbouring cuts overlap a little, no more"


def test_no_region_is_overwritten_in_quincunx() -> None:
    for size in (14, 28, 36, 56):
        cover = np.zeros((size, size), int)
        for block in region_blocks("quincunx", size):
            cover[block.top : block.top + block.height, block.left : block.left + block.width] += 1
        assert (cover == 1).all()


def test_mean_centre_averages_the_nose_in(tmp_path: Path) -> None:
    flow = with_strain(
        np.full((SIDE, SIDE), 1.0) + bump(CENTRES[2, 0], CENTRES[2, 1], 12), np.zeros((SIDE, SIDE))
    )
    plain, mean = (at(flow, tmp_path, f"regions-28@{layout}") for layout in ("quadrants", "mean-centre"))
    centre = (slice(None), slice(7, 21), slice(7, 21))
    outside = np.ones((28, 28), bool)
    outside[7:21, 7:21] = False
    assert np.allclose(plain[:, outside], mean[:, outside], atol=1e-6)
    nose_cell = mean[0, 14, 14] * 2 - plain[0, 14, 14]
    assert nose_cell == pytest.approx(2.0 / (CUT_WIDTH_IOD * 44.8 / 14), rel=0.02)
    assert not np.allclose(plain[centre], mean[centre])


def test_cuts_at_the_border_are_moved_inside(tmp_path: Path) -> None:
    flow = with_strain(0.02 * X, 0 * Y)
    low = CENTRES + np.array([-25, 25], np.float32)
    maps = at(flow, tmp_path, "regions-28", regions=low)
    assert np.isfinite(maps).all()
    assert np.allclose(maps[2], 0.02, rtol=0.05)
    assert maps[0].min() > 0


def test_a_large_face_is_cut_no_wider_than_the_map(tmp_path: Path) -> None:
    wide = (CENTRES - 55.5) * 1.3 + 55.5
    maps = at(with_strain(0.02 * X, 0.02 * Y), tmp_path, "regions-28", regions=wide)
    assert np.allclose(np.diff(maps[0, 11, :], axis=0), 0.02, atol=1e-3)  # the nose strip spans the whole map


def test_htnet_upright_and_as_published(tmp_path: Path) -> None:
    """Repeats the authors' indexing on the reduced map, literally, for centres of a 28 px face."""
    rng = np.random.default_rng(0)
    flow = with_strain(rng.normal(size=(SIDE, SIDE)), rng.normal(size=(SIDE, SIDE)))
    whole = at(flow, tmp_path, "whole-28").transpose(1, 2, 0)
    points = np.clip((CENTRES[[1, 0, 2, 4, 3]] + 0.5) / 4 - 0.5, 7, 21).astype(
        int
    )  # MTCNN's order: image left first
    crops = [whole[a - 7 : a + 7, b - 7 : b + 7] for a, b in points]
    published = np.vstack([np.hstack([crops[0], crops[1]]), np.hstack([crops[3], crops[4]])])
    assert np.array_equal(at(flow, tmp_path, "htnet-28@as-published").transpose(1, 2, 0), published)
    crops = [whole[b - 7 : b + 7, a - 7 : a + 7] for a, b in points]
    upright = np.vstack([np.hstack([crops[0], crops[1]]), np.hstack([crops[3], crops[4]])])
    assert np.array_equal(at(flow, tmp_path, "htnet-28").transpose(1, 2, 0), upright)


def test_as_published_puts_the_left_lip_second(tmp_path: Path) -> None:
    for region, (row, column) in {4: (0, 1), 0: (1, 0)}.items():  # image-left lip corner, image-right eye
        maps = at(with_strain(bump(*CENTRES[region]), 0 * X), tmp_path, "htnet-28@as-published")
        sums = maps[0].reshape(2, 14, 2, 14).sum(axis=(1, 3))
        assert np.unravel_index(sums.argmax(), (2, 2)) == (row, column)


def test_the_whole_map_at_its_own_size_is_the_stored_one(tmp_path: Path) -> None:
    flow = with_strain(0.02 * X, 0.01 * Y)
    assert np.array_equal(at(flow, tmp_path, f"whole-{SIDE}"), flow.astype(np.float16).astype(np.float32))


def test_scaled_means_the_same_movement_in_every_view(tmp_path: Path) -> None:
    flow = with_strain(np.full((SIDE, SIDE), 0.75), np.full((SIDE, SIDE), -9.0))
    for view in ("whole-28", "whole-56", f"whole-{SIDE}", "regions-28", "regions-36@quadrants", "htnet-28"):
        maps = at(flow, tmp_path, view, "scaled")
        assert np.allclose(maps[0], 0.75 * 224 / SIDE / FLOW_LIMIT, rtol=1e-3)
        assert np.allclose(maps[1], -1)  # clipped
        assert np.allclose(maps[2], 0, atol=1e-3)
    maps = at(with_strain(0.02 * (X - 55.5), 0 * X), tmp_path, "whole-28", "scaled")
    assert np.allclose(maps[2], 0.02 / STRAIN_LIMIT, rtol=0.02)
    assert abs(maps[0].mean()) < 1e-3, "zero stays zero"


def test_minmax(tmp_path: Path) -> None:
    flow = with_strain(0.02 * X, np.full((SIDE, SIDE), 3.0))
    maps = at(flow, tmp_path, "whole-28", "minmax")
    assert (maps[0].min(), maps[0].max()) == (0, pytest.approx(1))
    assert not maps[1].any(), "a constant channel becomes 0"
    assert np.allclose(at(flow, tmp_path, "whole-28", "minmax-255"), 255 * maps, atol=1e-3)


def centred(maps: np.ndarray) -> np.ndarray:
    return maps - np.stack([np.median(maps[0]), np.median(maps[1]), maps[2].min()])[:, None, None]


@pytest.mark.parametrize("view", ["whole-28", "regions-28"])
def test_centred_moves_the_median_of_flow_and_the_least_strain_to_zero(view: str, tmp_path: Path) -> None:
    flow = with_strain(3 + bump(30, 40, 9), np.full((SIDE, SIDE), -2.0))
    flow[2] += 0.25
    raw, maps = (at(flow, tmp_path, view, name) for name in ("raw", "centred"))
    assert np.allclose(maps, centred(raw), atol=1e-5)
    assert np.allclose(maps[1], 0, atol=1e-5), "a constant channel becomes 0"


def test_centred_rms_gives_each_channel_one_strength_and_clips_it(tmp_path: Path) -> None:
    flow = with_strain(2 + 3 * bump(30, 40, 5) - 3 * bump(80, 70, 5), 0.1 * bump(60, 40, 20))
    maps, plain = (at(flow, tmp_path, "whole-28", name) for name in ("centred-rms", "centred"))
    rms = np.sqrt(np.square(plain).mean((1, 2), keepdims=True))
    top = np.array([3.0, 3.0, 4.0])[:, None, None]
    assert (plain / rms).max() > 4 and (plain / rms).min() < -4, "nothing to clip"
    assert np.allclose(maps, np.clip(plain / rms, -top, top), atol=1e-5)
    assert np.allclose(maps, at(7 * flow, tmp_path, "whole-28", "centred-rms"), atol=0.02)
    still = at(with_strain(0 * X + 5, 0 * X), tmp_path, "whole-28", "centred-rms")
    assert not still.any(), "zeros stay zeros"


@pytest.fixture
def two_databases(tmp_path: Path) -> FlowStore:
    path = tmp_path / "two.h5"
    write(path, "casme2", [with_strain(0.1 * i + 0.01 * X, 0 * Y) for i in range(8)])
    write(path, "casme3", [with_strain(0.1 * i + 0.01 * X, 0 * Y) for i in range(4)])
    return FlowStore(path)


def test_view_data(two_databases: FlowStore) -> None:
    data = read_view(two_databases, "regions-28@quincunx", "scaled")
    assert (data.view, data.normalisation, data.scheme) == ("regions-28", "scaled", "megc3")
    assert data.classes == ("negative", "positive", "surprise")
    assert data.maps.shape == (6, 3, 28, 28)
    assert data.maps.dtype == np.float32
    assert len(data) == 6
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert set(data.databases) == {"casme2"}, "casme3 has no megc3 labels"
    assert data.sample_ids.tolist() == [f"casme2/s{i}/c" for i in (0, 1, 2, 4, 5, 6)]
    assert data.subjects.tolist() == [f"casme2/s{i}" for i in (0, 1, 2, 4, 5, 6)]
    assert list(data.dropped.values()) == [2]
    assert data.source_digest == two_databases.digest(["casme2"])
    whole = read_view(two_databases, "whole-28", "raw", databases=["casme2"])
    assert np.allclose(np.diff(whole.maps[:3, 0, 0, 0]), 0.025, atol=1e-3), "each label goes with its own map"
    both = read_view(two_databases, databases=["casme3", "casme2"])
    assert sum(both.dropped.values()) == 6
    assert read_view(str(two_databases.path), scheme="casme3-4").databases.tolist() == ["casme3"] * 4


@pytest.mark.parametrize("view", ["whole-16", "whole-8", "regions-8"])
def test_a_store_of_many_batches_is_read_sample_by_sample(view: str, tmp_path: Path) -> None:
    side, count = 16, 2 * BATCH + 5
    small = CENTRES * np.float32(side / SIDE)
    for database, offset in (("casme2", 1), ("samm", 100)):
        flows = [np.full((3, side, side), offset + i, np.float32) for i in range(count)]
        rows = [(sample_of(database, f"s{i}", "c", EMOTIONS[i % 3]), flow) for i, flow in enumerate(flows)]
        store = write_store(tmp_path / "store.h5", rows, regions=small)
    reader = ViewReader(store, view, "raw")
    expected = [
        (1 if database == "casme2" else 100) + int(sample.split("/")[1][1:])
        for database, sample in zip(reader.databases, reader.sample_ids, strict=True)
    ]
    maps = reader.read()
    assert len(maps) == 2 * count
    ratio = maps[:, 0].mean((1, 2)) / np.array(expected)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3, err_msg="each sample has its own map")
    order = np.random.default_rng(0).permutation(len(reader))
    np.testing.assert_array_equal(reader.read(order), maps[order])
    for i in (0, BATCH - 1, BATCH, count - 1, count, 2 * count - 1):
        np.testing.assert_array_equal(reader.read([i])[0], maps[i])


def test_each_map_goes_with_its_label_where_ids_sort_otherwise_as_text(tmp_path: Path) -> None:
    numbers = (10, 2, 11, 1, 20, 3)
    rows = [
        (sample_of("casme2", "s1", f"c{i}", EMOTIONS[i % 4]), np.full((3, 16, 16), float(i))) for i in numbers
    ]
    store = write_store(tmp_path / "store.h5", rows)
    reader = ViewReader(store, "whole-16", "raw")
    kept = [1, 2, 10, 20]  # in the store's order; i % 4 = 3 has no class in megc3
    assert reader.sample_ids.tolist() == [f"casme2/s1/c{i}" for i in kept]
    assert reader.labels.tolist() == [i % 4 for i in kept]
    assert reader.read()[:, 0, 0, 0].tolist() == kept
    assert reader.read([3, 0])[:, 0, 0, 0].tolist() == [20, 1]
    assert reader.read([]).shape == (0, 3, 16, 16)


def test_errors_of_requests(two_databases: FlowStore, tmp_path: Path) -> None:
    for view, message in {
        "regoins-28": r"unknown view 'regoins-28'; did you mean 'regions-28'",
        "regions-28@quinconx": "did you mean 'quincunx'",
        "whole-28@quincunx": "whole has no layouts",
        "whole-4": "at least 8",
        "regions-27": "multiple of 2",
        "htnet-30": "multiple of 4",
    }.items():
        with pytest.raises(UsageError, match=message):
            read_view(two_databases, view)
    with pytest.raises(UsageError, match="did you mean 'scaled'"):
        read_view(two_databases, "whole-28", "scale")
    with pytest.raises(UsageError, match="did you mean 'megc3'"):
        read_view(two_databases, scheme="megc")
    with pytest.raises(UsageError, match="unknown database"):
        read_view(two_databases, databases=["samm"])
    with pytest.raises(UsageError, match="must be a list"):
        read_view(two_databases, databases="casme2")
    with pytest.raises(ViewError, match=r"no sample .* has a class in 'samm-5'.*casme2 \(8 samples\)"):
        read_view(two_databases, scheme="samm-5")
    with pytest.raises(ViewError, match=r"112 px and views only reduce"):
        read_view(two_databases, "whole-128")
    with pytest.raises(ViewError, match=r"less than one pixel"):
        read_view(two_databases, "regions-112")
    with pytest.raises(ViewError, match=r"casme2/s0/c: its eye centres lie 0\.0 px apart"):
        at(np.zeros((3, SIDE, SIDE)), tmp_path, "regions-28", regions=np.full((5, 2), 50.0))


def test_missing_ingredients_name_the_flag(tmp_path: Path) -> None:
    flow = np.zeros((3, SIDE, SIDE))
    store = write(tmp_path / "a.h5", "casme2", [flow], regions=None)
    assert missing_ingredient(store, "whole-28", "raw") is None
    assert "casme2 hold(s) no regions. Build with `mer-flow build`" in str(
        missing_ingredient(store, "regions-28", "raw")
    )
    assert "--keep-faces" in str(missing_ingredient(store, "faces-56", "raw"))
    assert "--keep-clips K" in str(missing_ingredient(store, "clips-56", "raw"))
    with pytest.raises(ViewError, match="--keep-clips K"):
        read_view(store, "clips-56")


def test_imported_maps_give_only_what_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flow = rng.integers(0, 256, (3, 28, 28)).astype(np.float64)
    store = write(tmp_path / "a.h5", "casme2", [flow], values="minmax-255")
    assert np.array_equal(read_view(store, "whole-28", "minmax-255").maps[0], flow)
    assert np.allclose(read_view(store, "whole-28", "minmax").maps[0], flow / 255)
    of_scaled = at(flow, tmp_path, "whole-28", "centred", values="minmax-255")
    assert np.allclose(of_scaled, centred(flow / 255), atol=1e-6)
    for view, normalisation, why in (
        ("whole-28", "scaled", "without their zero and their unit"),
        ("whole-28", "raw", "without their zero and their unit"),
        ("whole-14", "minmax", "resized they would no longer be"),
        ("regions-28", "minmax", "imported without region centres"),
        ("htnet-28", "minmax", "imported without region centres"),
        ("faces-28", "raw", "no faces"),
    ):
        with pytest.raises(ViewError, match=why) as caught:
            read_view(store, view, normalisation)
        assert str(caught.value) == missing_ingredient(store, view, normalisation)


def test_faces_and_clips(tmp_path: Path) -> None:
    flow = np.zeros((3, SIDE, SIDE))
    faces = np.stack([np.full((SIDE, SIDE), 40, np.uint8), np.full((SIDE, SIDE), 200, np.uint8)])
    clips = np.zeros((5, SIDE, SIDE, 3), np.uint8)
    clips[..., 1] = np.arange(5)[:, None, None] * 50
    path = tmp_path / "a.h5"
    write(path, "casme2", [flow], faces=faces, clips=clips)
    images = read_view(str(path), "faces-56", "raw").maps
    assert images.shape == (1, 2, 56, 56)
    assert np.allclose(images[0, 1], 200)
    frames = read_view(str(path), "clips-28", "scaled").maps
    assert frames.shape == (1, 5, 28, 28)
    assert np.allclose(frames[0, :, 3, 3], 0.587 * np.arange(5) * 50 / 255, atol=1e-5)
    write(path, "smic", [flow], faces=faces, clips=clips[:3])
    with pytest.raises(ViewError, match="clips differ in length"):
        read_view(str(path), "clips-28", databases=["casme2", "smic"])


def coloured(store_path: Path, frames: int = 5, **extra: Any) -> FlowStore:
    """Every channel has its own value: 40 + frame, + 10 for green and 20 for blue, + 100 for faces."""
    shades = np.array([0, 10, 20], np.uint8)
    levels = (40 + np.arange(frames, dtype=np.uint8))[:, None, None, None] + shades
    clips = np.broadcast_to(levels, (frames, SIDE, SIDE, 3)).copy()
    flow = with_strain(np.full((SIDE, SIDE), 0.75), np.full((SIDE, SIDE), -9.0))
    return write(store_path, "casme2", [flow, flow], **({"faces": clips[:2] + 100, "clips": clips} | extra))


def test_colour_is_red_green_blue_of_one_frame_after_another(tmp_path: Path) -> None:
    with coloured(tmp_path / "a.h5") as store:
        faces = read_view(store, "faces-56@rgb", "raw").maps
        assert faces.shape == (2, 6, 56, 56)
        assert faces[0, :, 5, 5].tolist() == [140, 150, 160, 141, 151, 161]
        clips = read_view(store, "clips-28@rgb", "scaled").maps
        expected = (40 + np.arange(5)[:, None] + [0, 10, 20]).ravel() / 255
        assert np.allclose(clips[1, :, 9, 9], expected, atol=1e-6)
        assert read_view(store, "clips-28@grey").view == "clips-28"


def test_a_grey_database_read_in_colour_repeats_its_frames(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint8), (4, SIDE, SIDE)).copy()
    with write(tmp_path / "a.h5", "samm", [np.zeros((3, SIDE, SIDE))], faces=ramp[:2], clips=ramp) as store:
        grey, colour = (read_view(store, f"clips-28{layout}", "raw").maps for layout in ("", "@rgb"))
        assert np.array_equal(colour, np.repeat(grey, 3, axis=1))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_combined_view_is_its_parts_each_by_its_own_rule(normalisation: str, tmp_path: Path) -> None:
    names = ["clips-28@rgb", "regions-28@quadrants", "faces-28", "whole-28"]
    with coloured(tmp_path / "a.h5") as store:
        parts = [read_view(store, name, normalisation).maps for name in names]
        together = read_view(store, "+".join(names), normalisation)
        assert together.view == "+".join(names)
        assert np.array_equal(together.maps, np.concatenate(parts, axis=1))
        reader = ViewReader(store, "+".join(names), normalisation)
        assert reader.shape == (15 + 3 + 2 + 3, 28, 28) == together.maps.shape[1:]
        assert np.array_equal(reader.read([1])[0], together.maps[1])
        if normalisation == "scaled":  # flow by the flow's scale, pictures by theirs
            assert np.allclose(together.maps[0, -2], -1)
            grey = 140 * 0.299 + 150 * 0.587 + 160 * 0.114
            assert together.maps[0, 18, 0, 0] == pytest.approx(grey / 255)


def test_every_lacking_ingredient_of_a_combined_view_is_named(tmp_path: Path) -> None:
    flow = np.zeros((3, SIDE, SIDE))
    path = tmp_path / "a.h5"
    with write(path, "casme2", [flow]) as bare:
        message = missing_ingredient(bare, "clips-56@rgb+faces-56@rgb+whole-56", "scaled")
        assert message == (
            f"{path} cannot give clips-56@rgb+faces-56@rgb+whole-56:scaled: casme2 hold(s) no clips; "
            "casme2 hold(s) no faces. Build with `mer-flow build ... --keep-clips K --keep-faces`."
        )
        with pytest.raises(ViewError, match="--keep-clips K --keep-faces"):
            read_view(bare, "clips-56+faces-56")
    with coloured(tmp_path / "b.h5", faces=None) as store:
        message = str(missing_ingredient(store, "clips-56+faces-56", "scaled"))
        assert "no faces" in message
        assert "no clips" not in message
        assert "--keep-clips" not in message
        assert missing_ingredient(store, "clips-56+whole-56", "raw") is None
    with write(tmp_path / "c.h5", "casme2", [flow[:, :28, :28]], values="minmax-255") as imported:
        message = str(missing_ingredient(imported, "regions-28+faces-28", "scaled"))
        assert "imported without region centres" in message
        assert "--keep-faces" in message


def test_combinations_that_cannot_be(two_databases: FlowStore) -> None:
    for view, why in {
        "whole-28+regions-36": "whole-28 has 28 px, regions-36 has 36 px",
        "whole-28+whole-28": "occurs twice",
        "whole-28+": "unknown view ''",
        "faces-28@rbg": "did you mean 'rgb'",
        "clips-28+facse-28": "did you mean 'faces",
    }.items():
        with pytest.raises(UsageError, match=why):
            read_view(two_databases, view)
    with pytest.raises(UsageError, match="here one view is needed, as 'whole-28'"):
        parse_view("whole-28+faces-28")


def test_names_and_normalisations() -> None:
    assert str(parse_view("regions-28@quincunx")) == "regions-28"
    assert str(parse_view("htnet-28@as-published")) == "htnet-28@as-published"
    assert NORMALISATIONS == ("raw", "scaled", "minmax", "minmax-255", "centred", "centred-rms")
