"""One page of a contact sheet: title, legends, column heads, one row of tiles per sample. Knows no store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mer_flow.pictures.colours import Colour, flow_wheel, signed_to_colour, unsigned_to_colour
from mer_flow.work.files import new_file

INK, FAINT, PAPER, EMPTY = (25, 25, 30), (110, 110, 118), (255, 255, 255), (238, 238, 241)
MARGIN, GAP = 20, 8
CAPTION_WIDTH = 216
LEGEND_GAP = 44
LEGEND_HEIGHTS = {"wheel": 108, "swatches": 94, "signed": 78, "unsigned": 78}


@dataclass(frozen=True, slots=True)
class Outline:
    """A box over a tile: x0, y0, x1, y1 in fractions of the tile; the label, if any, at its top left."""

    box: tuple[float, float, float, float]
    colour: Colour
    label: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a row: (H, W, 3) or (H, W)."""

    picture: NDArray[np.uint8] | None
    missing: str = ""  # what to write where there is no picture
    outlines: tuple[Outline, ...] = ()
    enlarge: bool = False  # keep pixels square and hard, as for a 28x28 map


@dataclass(frozen=True, slots=True)
class Row:
    """One sample: its caption (first line in bold) and its tiles."""

    caption: tuple[str, ...]
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Legend:
    """One legend over the columns.

    Attributes:
        kind: `wheel`, `signed`, `unsigned` or `swatches`.
        title: What the colours mean.
        marks: Texts: rim of the wheel; left, middle, right of a bar; one per swatch.
        colours: Swatch colours.
    """

    kind: str
    title: str
    marks: tuple[str, ...]
    colours: tuple[Colour, ...] = ()


def flow_legend(rim: str) -> Legend:
    """Return the legend of flow in colours, whose rim means `rim`."""
    marks = (f"rim: {rim}, darker: more", "white: still", "right: red, down: yellow", "left: cyan, up: blue")
    return Legend("wheel", "flow", marks)


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows."""

    title: str
    notes: Sequence[str]  # lines under the title
    legends: Sequence[Legend]
    heads: Sequence[tuple[str, str]]  # of each column: name, and a line of explanation
    rows: Sequence[Row] = ()  # each with one tile per column
    tile: int = 168  # side, px


def _font(size: int) -> Any:
    """Return Pillow's own font, so that a picture looks the same on every machine."""
    return ImageFont.load_default(size)


def _bold(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int) -> None:
    """Write emphasised text: twice, slightly apart, since the bundled font has one weight."""
    draw.text(at, text, INK, _font(size))
    draw.text((at[0] + 0.6, at[1]), text, INK, _font(size))


def _fit(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> list[str]:
    """Break text into lines no wider than `width` px, at blanks where there are any."""
    lines: list[str] = []
    font = _font(size)
    for word in text.split(" "):
        if lines and draw.textlength(f"{lines[-1]} {word}", font) <= width:
            lines[-1] = f"{lines[-1]} {word}"
            continue
        while draw.textlength(word, font) > width:
            cut = len(word)
            while cut > 1 and draw.textlength(word[:cut], font) > width:
                cut -= 1
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return lines


def _tile_image(tile: Tile, side: int) -> Image.Image:
    if tile.picture is None:
        image = Image.new("RGB", (side, side), EMPTY)
        draw = ImageDraw.Draw(image)
        for n, line in enumerate(_fit(draw, tile.missing, 12, side - 16)):
            draw.text((8, 8 + 15 * n), line, FAINT, _font(12))
        return image
    image = Image.fromarray(np.ascontiguousarray(tile.picture)).convert("RGB")
    smooth = Image.Resampling.BOX if image.width > side else Image.Resampling.BICUBIC
    image = image.resize((side, side), Image.Resampling.NEAREST if tile.enlarge else smooth)
    draw = ImageDraw.Draw(image)
    for outline in tile.outlines:
        x0, y0, x1, y1 = (value * side for value in outline.box)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=outline.colour, width=2)
        if outline.label:
            wide = draw.textlength(outline.label, _font(11))
            draw.rectangle((x0, y0, x0 + wide + 6, y0 + 14), fill=outline.colour)
            draw.text((x0 + 3, y0 + 1), outline.label, PAPER, _font(11))
    return image


def _draw_legends(image: Image.Image, legends: Sequence[Legend], top: int) -> int:
    """Draw the legends beside one another and return how wide the page must be for them."""
    end = -LEGEND_GAP
    for legend in legends:
        end = _draw_legend(image, legend, max(end + LEGEND_GAP, MARGIN), top)
    return end + MARGIN


def _draw_legend(image: Image.Image, legend: Legend, left: int, top: int) -> int:
    """Draw one legend and return the x where it ends."""
    draw = ImageDraw.Draw(image)
    _bold(draw, (left, top), legend.title, 13)
    under = top + 20
    title_end = left + int(draw.textlength(legend.title, _font(13)))
    widths = [draw.textlength(mark, _font(12)) for mark in legend.marks]
    if legend.kind == "wheel":
        size = 73
        image.paste(Image.fromarray(flow_wheel(size)), (left, under))
        draw.ellipse((left, under, left + size - 1, under + size - 1), outline=FAINT)
        for n, mark in enumerate(legend.marks):
            draw.text((left + size + 10, under + 4 + 17 * n), mark, INK, _font(12))
        return max(title_end, left + size + 10 + int(max(widths)))
    if legend.kind == "swatches":
        x = left
        for first in range(0, len(legend.marks), 3):
            column = slice(first, first + 3)
            for n, (mark, colour) in enumerate(
                zip(legend.marks[column], legend.colours[column], strict=True)
            ):
                y = under + 2 + 19 * n
                draw.rectangle((x, y, x + 13, y + 13), outline=colour, width=3)
                draw.text((x + 20, y - 1), mark, INK, _font(12))
            x += 36 + int(max(widths[column]))
        return max(title_end, x - 16)
    width = 190
    ramp = np.tile(np.linspace(-1.0 if legend.kind == "signed" else 0.0, 1.0, width), (18, 1))
    to_colour = signed_to_colour if legend.kind == "signed" else unsigned_to_colour
    image.paste(Image.fromarray(to_colour(ramp, 1.0)), (left, under + 4))
    draw.rectangle((left, under + 4, left + width - 1, under + 21), outline=FAINT)
    for spot, mark, wide in zip(np.linspace(0, width, len(widths)), legend.marks, widths, strict=True):
        x = min(max(left + spot - wide / 2, left), left + width - wide)
        draw.text((x, under + 26), mark, INK, _font(12))
    return max(title_end, left + width)


def draw_page(page: Page) -> Image.Image:
    """Draw a page as an RGB image."""
    blank = Image.new("RGB", (8, 8))
    scratch = ImageDraw.Draw(blank)
    columns = [MARGIN + CAPTION_WIDTH + n * (page.tile + GAP) for n in range(len(page.heads) + 1)]
    title_width = 2 * MARGIN + int(scratch.textlength(page.title, _font(20))) + 2
    width = max(columns[-1] + MARGIN, title_width, _draw_legends(blank, page.legends, 0))
    notes = [line for note in page.notes for line in _fit(scratch, note, 13, width - 2 * MARGIN)]
    subheads = [_fit(scratch, text, 11, page.tile) for _, text in page.heads]
    legend_top = MARGIN + 30 + 18 * len(notes) + 10
    head_top = legend_top + max((LEGEND_HEIGHTS[legend.kind] for legend in page.legends), default=0)
    rows_top = head_top + 20 + 14 * max(map(len, subheads), default=0) + 6
    captions = [_caption_lines(scratch, row) for row in page.rows]
    heights = [max(page.tile, 17 * len(lines) + 4) + GAP for lines in captions]

    image = Image.new("RGB", (width, rows_top + sum(heights) + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    _bold(draw, (MARGIN, MARGIN), page.title, 20)
    for n, note in enumerate(notes):
        draw.text((MARGIN, MARGIN + 30 + 18 * n), note, FAINT, _font(13))
    _draw_legends(image, page.legends, legend_top)
    for left, (name, _), subhead in zip(columns, page.heads, subheads, strict=False):
        _bold(draw, (left, head_top), name, 14)
        for n, line in enumerate(subhead):
            draw.text((left, head_top + 20 + 14 * n), line, FAINT, _font(11))
    top = rows_top
    for row, lines, tall in zip(page.rows, captions, heights, strict=True):
        for n, (text, bold) in enumerate(lines):
            if bold:
                _bold(draw, (MARGIN, top + 17 * n), text, 13)
            else:
                draw.text((MARGIN, top + 17 * n), text, INK, _font(12))
        for left, tile in zip(columns, row.tiles, strict=False):
            image.paste(_tile_image(tile, page.tile), (left, top))
        top += tall
    return image


def _caption_lines(draw: ImageDraw.ImageDraw, row: Row) -> list[tuple[str, bool]]:
    """Break a caption into lines, and say which are bold: those of the first entry."""
    return [
        (line, n == 0)
        for n, text in enumerate(row.caption)
        for line in _fit(draw, text, 12 if n else 13, CAPTION_WIDTH - 14)
    ]


def save(image: Image.Image, path: Path) -> Path:
    """Write a PNG file, a present one replaced, and return its path."""
    with new_file(path, overwrite=True) as part:
        image.save(part, format="PNG")
    return path
