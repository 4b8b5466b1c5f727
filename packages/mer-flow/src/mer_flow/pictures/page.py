"""One page of a contact sheet: title, legends, column heads, one row of tiles per sample. Knows no store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mer_flow.pictures.colours import flow_wheel, signed_to_colour, unsigned_to_colour

INK, FAINT, PAPER, EMPTY = (25, 25, 30), (110, 110, 118), (255, 255, 255), (238, 238, 241)
MARGIN, GAP = 20, 8
CAPTION_WIDTH = 216
LEGEND_HEIGHTS = {"wheel": 108, "swatches": 94, "signed": 78, "unsigned": 78}


@dataclass(frozen=True, slots=True)
class Outline:
    """A box over a tile.

    Attributes:
        box: `(x0, y0, x1, y1)` in fractions of the tile, from the top left.
        colour: RGB.
        label: Short text at the box's top left; empty for none.
    """

    box: tuple[float, float, float, float]
    colour: tuple[int, int, int]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a row.

    Attributes:
        picture: `(H, W, 3)` or `(H, W)` uint8, or None where there is none.
        missing: What to write in place of a missing picture.
        outlines: Boxes over the picture.
        enlarge: Keep pixels square and hard, as for a 28x28 map.
    """

    picture: NDArray[np.uint8] | None
    missing: str = ""
    outlines: tuple[Outline, ...] = ()
    enlarge: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One sample: its caption (first line in bold) and its tiles."""

    caption: tuple[str, ...]
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Legend:
    """One legend over the columns: `wheel`, `signed`, `unsigned` or `swatches`.

    Attributes:
        kind: Which legend.
        title: What the colours mean.
        marks: Texts: rim of the wheel; left, middle, right of a bar; one per swatch.
        colours: Swatch colours.
    """

    kind: str
    title: str
    marks: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...] = ()


@dataclass
class Page:
    """What a page shows.

    Attributes:
        title: First line.
        notes: Lines under it.
        legends: From left to right.
        heads: One per column: name, and a line of explanation.
        rows: One per sample.
        tile: Side of a tile, px.
    """

    title: str
    notes: Sequence[str]
    legends: Sequence[Legend]
    heads: Sequence[tuple[str, str]]
    rows: Sequence[Row] = field(default_factory=list)
    tile: int = 168


def _font(size: int) -> Any:
    """Returns Pillow's own font, so that a picture looks the same on every machine."""
    return ImageFont.load_default(size)


def _bold(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int) -> None:
    """Writes emphasised text: twice, slightly apart, since the bundled font has one weight."""
    draw.text(at, text, INK, _font(size))
    draw.text((at[0] + 0.6, at[1]), text, INK, _font(size))


def _fit(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> list[str]:
    """Breaks text into lines no wider than `width` px, at blanks where there are any."""
    lines: list[str] = []
    font = _font(size)
    for word in text.split(" "):
        if lines and draw.textlength(f"{lines[-1]} {word}", font) <= width:
            lines[-1] = f"{lines[-1]} {word}"
            continue
        while draw.textlength(word, font) > width:
            cut = next(
                n for n in range(len(word), 0, -1) if n == 1 or draw.textlength(word[:n], font) <= width
            )
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return lines


def _tile_image(tile: Tile, side: int) -> Image.Image:
    """Draws one tile at its final size."""
    if tile.picture is None:
        image = Image.new("RGB", (side, side), EMPTY)
        draw = ImageDraw.Draw(image)
        for n, line in enumerate(_fit(draw, tile.missing, 12, side - 16)):
            draw.text((8, 8 + 15 * n), line, FAINT, _font(12))
        return image
    image = Image.fromarray(np.ascontiguousarray(tile.picture)).convert("RGB")
    smaller = image.width > side
    method = (
        Image.Resampling.NEAREST
        if tile.enlarge
        else Image.Resampling.BOX
        if smaller
        else Image.Resampling.BICUBIC
    )
    image = image.resize((side, side), method)
    draw = ImageDraw.Draw(image)
    for outline in tile.outlines:
        x0, y0, x1, y1 = (value * side for value in outline.box)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=outline.colour, width=2)
        if outline.label:
            wide = draw.textlength(outline.label, _font(11))
            draw.rectangle((x0, y0, x0 + wide + 6, y0 + 14), fill=outline.colour)
            draw.text((x0 + 3, y0 + 1), outline.label, PAPER, _font(11))
    return image


def _draw_legend(image: Image.Image, draw: ImageDraw.ImageDraw, legend: Legend, left: int, top: int) -> int:
    """Draws one legend; returns the x where it ends."""
    _bold(draw, (left, top), legend.title, 13)
    under = top + 20
    title_end = left + int(draw.textlength(legend.title, _font(13)))
    if legend.kind == "wheel":
        size = 73
        image.paste(Image.fromarray(flow_wheel(size)), (left, under))
        draw.ellipse((left, under, left + size - 1, under + size - 1), outline=FAINT)
        for n, mark in enumerate(legend.marks):
            draw.text((left + size + 10, under + 4 + 17 * n), mark, INK, _font(12))
        widest = max((draw.textlength(mark, _font(12)) for mark in legend.marks), default=0)
        return max(title_end, left + size + 10 + int(widest))
    if legend.kind == "swatches":
        columns = (len(legend.marks) + 2) // 3
        x = left
        for column in range(columns):
            entries = list(zip(legend.marks, legend.colours, strict=True))[3 * column : 3 * column + 3]
            for n, (mark, colour) in enumerate(entries):
                y = under + 2 + 19 * n
                draw.rectangle((x, y, x + 13, y + 13), outline=colour, width=3)
                draw.text((x + 20, y - 1), mark, INK, _font(12))
            x += 36 + int(max(draw.textlength(mark, _font(12)) for mark, _ in entries))
        return max(title_end, x - 16)
    width = 190
    ramp = np.tile(np.linspace(-1.0 if legend.kind == "signed" else 0.0, 1.0, width), (18, 1))
    to_colour = signed_to_colour if legend.kind == "signed" else unsigned_to_colour
    image.paste(Image.fromarray(to_colour(ramp, 1.0)), (left, under + 4))
    draw.rectangle((left, under + 4, left + width - 1, under + 21), outline=FAINT)
    spots = np.linspace(0, width, len(legend.marks)) if len(legend.marks) > 1 else [0]
    for spot, mark in zip(spots, legend.marks, strict=True):
        wide = draw.textlength(mark, _font(12))
        draw.text(
            (min(max(left + spot - wide / 2, left), left + width - wide), under + 26), mark, INK, _font(12)
        )
    return max(title_end, left + width)


def draw_page(page: Page) -> Image.Image:
    """Draws a page.

    Args:
        page: What it shows; every row has one tile per column head.

    Returns:
        An RGB image.
    """
    scratch = ImageDraw.Draw(Image.new("RGB", (8, 8)))
    columns = len(page.heads)
    width = 2 * MARGIN + CAPTION_WIDTH + columns * (page.tile + GAP)
    title_width = 2 * MARGIN + int(scratch.textlength(page.title, _font(20))) + 2
    width = max(width, title_width, _legend_width(page))
    notes = [line for note in page.notes for line in _fit(scratch, note, 13, width - 2 * MARGIN)]
    subheads = [_fit(scratch, text, 11, page.tile) for _, text in page.heads]
    head_height = 20 + 14 * max((len(lines) for lines in subheads), default=0) + 6
    legend_top = MARGIN + 30 + 18 * len(notes) + 10
    legend_height = max((LEGEND_HEIGHTS[legend.kind] for legend in page.legends), default=0)
    head_top = legend_top + legend_height
    rows_top = head_top + head_height
    captions = [_caption_lines(scratch, row) for row in page.rows]
    heights = [max(page.tile, 17 * len(lines) + 4) for lines in captions]
    height = rows_top + sum(heights) + GAP * len(heights) + MARGIN

    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    _bold(draw, (MARGIN, MARGIN), page.title, 20)
    for n, note in enumerate(notes):
        draw.text((MARGIN, MARGIN + 30 + 18 * n), note, FAINT, _font(13))
    x = MARGIN
    for legend in page.legends:
        x = _draw_legend(image, draw, legend, x, legend_top) + 44
    for column, (name, _) in enumerate(page.heads):
        left = MARGIN + CAPTION_WIDTH + column * (page.tile + GAP)
        _bold(draw, (left, head_top), name, 14)
        for n, line in enumerate(subheads[column]):
            draw.text((left, head_top + 20 + 14 * n), line, FAINT, _font(11))
    top = rows_top
    for row, lines, tall in zip(page.rows, captions, heights, strict=True):
        for n, (text, bold) in enumerate(lines):
            if bold:
                _bold(draw, (MARGIN, top + 17 * n), text, 13)
            else:
                draw.text((MARGIN, top + 17 * n), text, INK, _font(12))
        for column, tile in enumerate(row.tiles):
            left = MARGIN + CAPTION_WIDTH + column * (page.tile + GAP)
            image.paste(_tile_image(tile, page.tile), (left, top))
        top += tall + GAP
    return image


def _caption_lines(draw: ImageDraw.ImageDraw, row: Row) -> list[tuple[str, bool]]:
    """Breaks a caption into lines; the first entry is bold."""
    room = CAPTION_WIDTH - 14
    return [
        (line, n == 0)
        for n, text in enumerate(row.caption)
        for line in _fit(draw, text, 13 if n == 0 else 12, room)
    ]


def _legend_width(page: Page) -> int:
    """Returns the width that the legends need."""
    image = Image.new("RGB", (8, 8))
    draw = ImageDraw.Draw(image)
    x = MARGIN
    for legend in page.legends:
        x = _draw_legend(image, draw, legend, x, 0) + 44
    return x - 44 + MARGIN if page.legends else 0
