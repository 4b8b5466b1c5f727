"""Frame files by parsed number, and their decoding."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mer_flow.databases.frames import FrameIndex, frame_number, image_numbers, read_frame
from mer_flow.work.errors import FrameError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("img46.jpg", 46),
        ("reg_img46.jpg", 46),
        ("006_05562.jpg", 5562),
        ("009_3577.jpg", 3577),
        ("image034208.bmp", 34208),
        ("image17581039.bmp", 17581039),
        ("166.jpg", 166),
        ("img46 (1).jpg", 46),
        ("img46 - Copy.jpg", 46),
        ("cover.jpg", None),
    ],
)
def test_number_is_the_last_run_of_digits(name: str, number: int | None) -> None:
    assert frame_number(name) == number


def test_scan_takes_images_only_whatever_their_case(tmp_path: Path) -> None:
    folder = touch(
        tmp_path / "c",
        "img2.JPG",
        "img10.jpg",
        "img3.Bmp",
        "Desktop - Shortcut.lnk",
        "note7.txt",
        "._img2.jpg",
        "x.png",
    )
    (folder / "img99.jpg").mkdir()
    index = FrameIndex.scan(folder)
    assert index.numbers == (2, 3, 10)
    assert image_numbers(folder) == [2, 3, 10]
    assert index.path(2).name == "img2.JPG"
    assert 10 in index and 4 not in index and len(index) == 3


def test_mixed_padding_and_copies_are_one_number(tmp_path: Path) -> None:
    index = FrameIndex.scan(
        touch(tmp_path / "c", "006_05562.jpg", "006_5562.jpg", "006_05563.jpg", "006_05563 (1).jpg")
    )
    assert index.numbers == (5562, 5563)
    assert index.path(5562).name == "006_5562.jpg"
    assert index.path(5563).name == "006_05563.jpg"


def test_nearest_is_recorded_and_limited(tmp_path: Path) -> None:
    index = FrameIndex.scan(touch(tmp_path / "c", "1.jpg", "2.jpg", "6.jpg", "9.jpg"))
    assert (index.nearest(2, 0).number, index.nearest(2, 0).distance) == (2, 0)
    assert (index.nearest(5, 2).number, index.nearest(5, 2).distance) == (6, 1)
    assert index.nearest(4, 2).number == 2, "of two equally near frames the earlier one"
    assert (index.nearest(0, 1).number, index.nearest(11, 2).number) == (1, 9)
    with pytest.raises(FrameError, match=r"frame 12 is missing .* is 9, 3 away, limit 2; .*nearest_limit"):
        index.nearest(12, 2)
    with pytest.raises(FrameError, match="frame 3 is missing"):
        index.path(3)


def test_between_includes_both_ends(tmp_path: Path) -> None:
    index = FrameIndex.scan(touch(tmp_path / "c", *(f"{n}.jpg" for n in (1, 3, 4, 8))))
    assert index.between(3, 8) == (3, 4, 8)
    assert index.between(5, 7) == ()


def test_missing_and_empty_folders_say_where(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="nowhere cannot be listed"):
        FrameIndex.scan(tmp_path / "nowhere")
    with pytest.raises(FrameError, match=r"holds no numbered image \(1 files"):
        FrameIndex.scan(touch(tmp_path / "c", "readme.txt"))


def picture(mode: str) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix", "shape"),
    [
        ("L", "jpg", (40, 50)),
        ("RGB", "jpg", (40, 50, 3)),
        ("RGB", "bmp", (40, 50, 3)),
        ("RGBA", "png", (40, 50, 3)),
        ("P", "png", (40, 50, 3)),
        ("1", "png", (40, 50)),
    ],
)
def test_grey_stays_grey_and_colour_is_rgb(
    tmp_path: Path, mode: str, suffix: str, shape: tuple[int, ...]
) -> None:
    path = tmp_path / f"img1.{suffix}"
    picture(mode).save(path)
    frame = read_frame(path)
    assert frame.dtype == np.uint8 and frame.shape == shape


def test_channels_come_in_the_order_red_green_blue(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 3), np.uint8)
    values[..., 0] = 200
    Image.fromarray(values).save(tmp_path / "1.png")
    assert read_frame(tmp_path / "1.png")[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("suffix", ["jpeg", "png", "bmp"])
def test_every_truncation_is_found(tmp_path: Path, suffix: str) -> None:
    stream = io.BytesIO()
    picture("RGB").save(stream, suffix)
    data = stream.getvalue()
    path = tmp_path / f"img1.{suffix}"
    path.write_bytes(data)
    whole = read_frame(path)
    for size in [*range(0, len(data) - 1, max(1, len(data) // 150)), len(data) - 1]:
        path.write_bytes(data[:size])
        try:
            frame = read_frame(path)
        except FrameError as error:
            assert str(path) in str(error) and "from the release" in str(error)
        else:
            # Only what follows the last pixel may be lost: a PNG's checksum, a BMP's padding.
            assert size > len(data) - {"png": 40, "bmp": 4, "jpeg": 0}[suffix], f"{size} of {len(data)} bytes"
            np.testing.assert_array_equal(frame, whole)


def test_no_image_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "img1.jpg").write_text("this is text")
    with pytest.raises(FrameError, match="truncated or no image: unknown format"):  # the same in every run
        read_frame(tmp_path / "img1.jpg")
    with pytest.raises(FrameError, match="cannot be read"):
        read_frame(tmp_path / "img2.jpg")


def test_a_depth_map_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 1200, np.uint16)).save(tmp_path / "166.png")
    with pytest.raises(FrameError, match="depth map"):
        read_frame(tmp_path / "166.png")
