"""The page of a store: what it shows, and how it behaves in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tests.browser import Browser
from tests.mer_flow.stores import sample_of, write_store

from mer_flow.cli import cli
from mer_flow.pictures.web.sprites import Ends
from mer_flow.work.errors import UsageError

SIDE = 32
#: Subject, clip, emotion, how far it moves in px.
ROWS = [
    ("s1", "a", "surprise", 0.5),
    ("s1", "b", "happiness", 3.0),
    ("s2", "<b>c</b>&", "surprise", 1.0),
    ("s2", "d", "<script>alert(1)</script>", 2.0),
]


def maps_of(reach: float) -> np.ndarray:
    """Everything moves to the right, half of it by `reach`."""
    maps = np.zeros((3, SIDE, SIDE), np.float32)
    maps[0, :, SIDE // 2 :] = reach
    maps[2] = 0.05
    return maps


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples that move by known amounts, one with a fallback; faces are kept."""
    path = tmp_path_factory.mktemp("page") / "s.h5"
    rows = [
        (sample_of("samm", subject, clip, emotion), maps_of(reach)) for subject, clip, emotion, reach in ROWS
    ]
    faces = np.full((2, SIDE, SIDE), 77, np.uint8)
    write_store(path, rows, notes={"b": {"fallbacks": ["apex"]}}, faces=faces).close()
    return path


def show(store: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["show", str(store), "--html", str(out), *arguments])


@pytest.fixture(scope="module")
def page(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    result = show(store, out, "--scale", "2,0.1")
    assert result.exit_code == 0, result.output
    return out / "index.html"


def pixel(page: Path, strip: int, column: int, at: tuple[int, int]) -> tuple[int, ...]:
    """One pixel of a thumbnail."""
    sheet = Image.open(page.parent / "sprites" / "000.webp").convert("RGB")
    return sheet.getpixel((column * SIDE + at[0], strip * SIDE + at[1]))  # type: ignore[return-value]


def test_thumbnails_share_the_fixed_scale(page: Path) -> None:
    """Columns flow, u, v, strain; 2 px to the right is full red, 1 px half of it, still is white."""
    right, left = (SIDE - 4, 4), (4, 4)
    assert pixel(page, 3, 0, right) == (255, 0, 0)
    assert pixel(page, 2, 0, right) == (255, 128, 128)
    assert pixel(page, 3, 0, left) == (255, 255, 255)
    assert pixel(page, 3, 1, right) == (103, 0, 31)  # the end of u's scale
    assert pixel(page, 3, 2, right) == (247, 247, 247)
    assert len({pixel(page, strip, 3, right) for strip in range(4)}) == 1
    assert "flow ends at 2 px, strain at 0.1" in page.read_text()


def test_scales_that_are_fitted(store: Path, tmp_path: Path) -> None:
    assert show(store, tmp_path / "own", "--scale", "sample").exit_code == 0
    assert len({pixel(tmp_path / "own" / "index.html", strip, 1, (SIDE - 4, 4)) for strip in range(4)}) == 1
    assert show(store, tmp_path / "all").exit_code == 0
    shared = [pixel(tmp_path / "all" / "index.html", strip, 1, (SIDE - 4, 4)) for strip in range(4)]
    assert len(set(shared)) == 4 and shared[1] == (103, 0, 31)


def test_faces_only_on_request(store: Path, page: Path, tmp_path: Path) -> None:
    assert "No faces on this page, though the store keeps those of samm" in page.read_text()
    assert Image.open(page.parent / "sprites" / "000.webp").width == 4 * SIDE
    result = show(store, tmp_path / "faces", "--faces")
    text = (tmp_path / "faces" / "index.html").read_text()
    assert result.exit_code == 0 and "Faces of samm are shown" in text
    assert Image.open(tmp_path / "faces" / "sprites" / "000.webp").width == 6 * SIDE
    assert pixel(tmp_path / "faces" / "index.html", 0, 0, (5, 5)) == (77, 77, 77)


def test_names_are_escaped(page: Path) -> None:
    text = page.read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
    assert "<b>c</b>" not in text


def test_imported_maps_say_what_is_lost(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE)).astype(np.float32)
    write_store(
        tmp_path / "m.h5", [(sample_of("samm", "s", "a", "anger"), maps)], values="minmax-255"
    ).close()
    assert show(tmp_path / "m.h5", tmp_path / "page").exit_code == 0
    text = (tmp_path / "page" / "index.html").read_text()
    assert "imported min-max scaled" in text and "data-reach" not in text
    assert Image.open(tmp_path / "page" / "sprites" / "000.webp").width == 3 * SIDE


def test_choice_holds_for_the_page(store: Path, tmp_path: Path) -> None:
    result = show(store, tmp_path / "page", "--class", "surprise", "--limit", "1")
    assert result.exit_code == 0 and "1 sample(s)" in result.stdout
    assert re.findall(r'data-name="([^"]*)"', (tmp_path / "page" / "index.html").read_text()) == ["samm/s1/a"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scale", "2"), "a scale is 'FLOW,STRAIN'"),
        (("--scale", "2,-1"), "two positive numbers"),
        (("--db", "smic"), "unknown database"),
    ],
)
def test_bad_requests(store: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = show(store, tmp_path / "page", *arguments)
    assert isinstance(result.exception, UsageError) and said in str(result.exception)
    assert not (tmp_path / "page").exists()


def test_ends() -> None:
    assert Ends.parse(" 1.5 ,0.2") == Ends(1.5, 0.2)
    with pytest.raises(UsageError, match="got 'inf,1'"):
        Ends.parse("inf,1")


def test_in_a_browser(browser: Browser, page: Path) -> None:
    """Filters, order, counts, links of the counts, and the keyboard."""
    browser.assert_sound(page)
    assert browser.visible("data-name") == [f"samm/{subject}/{clip}" for subject, clip, *_ in ROWS]
    browser.choose("class", "surprise")
    assert browser.visible("data-order") == ["1", "3"]
    assert browser.script("return document.querySelector('[data-count]').textContent") == "2"
    browser.choose("fallback", "apex")
    assert browser.visible("data-order") == []
    assert browser.script("return document.querySelector('.none').offsetParent !== null")
    browser.choose("class", "")
    assert browser.visible("data-order") == ["2"]
    browser.script("document.querySelector('button[type=reset]').click()")
    browser.choose("find", "HAPPI")
    assert browser.visible("data-order") == ["2"]
    browser.open(page, fragment="#database=samm&class=surprise")
    assert browser.visible("data-order") == ["1", "3"]
    browser.open(page)
    browser.script("document.querySelector('select[data-sort]').focus()")
    browser.keys("s")  # typing in a closed list chooses "strongest first"
    assert browser.visible("data-order") == ["2", "4", "3", "1"]
    assert browser.script("return document.documentElement.innerText").count("alert(1)") == 1
