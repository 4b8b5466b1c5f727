"""Explanations as pictures: of one sample, and per class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ahmsa_model.errors import InputError
from ahmsa_model.explain.attention import received
from ahmsa_model.explain.average import FACE, Averages
from ahmsa_model.explain.face import USUAL_CENTRES, on_face
from ahmsa_model.explain.sample import Explanation
from ahmsa_model.pictures.prediction import BAR, BAR_REST, GAP, INK, PANEL, TITLE, font

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

#: Side of one head's attention, px.
HEAD = 56
_HEADS_SHOWN = 12


def draw_explanation(found: Explanation) -> Image:
    """Draw one sample's explanation.

    First row: the face, integrated gradients and occlusion laid onto it, the regions' shares. Second row: the
    map's channels and their integrated gradients. Below: what each patch is given by each head of each level.
    """
    from PIL import Image, ImageDraw

    from mer_flow.pictures.colours import signed_to_colour

    seen, told = found.seen, found.attribution
    gradients, occlusion = told.gradients[0], told.occlusion[0]
    place = found.view, seen.centres, seen.side
    name, share = found.classes[found.target], float(found.probabilities[found.target])
    face = np.full((seen.side, seen.side, 3), 255, np.uint8) if seen.face is None else _rgb(seen.face)
    top = [
        ("apex" if seen.face is not None else "the store keeps no face", face),
        ("integrated gradients", _laid(face, on_face(gradients.sum(0), *place))),
        ("occlusion", _laid(face, on_face(occlusion, *place))),
    ]
    maps = [(f"{found.view} {channel}", signed_to_colour(values, _top(values)))
            for channel, values in zip(("u", "v", "strain"), seen.map, strict=False)]  # fmt: skip
    told_of = [(f"gradients of {channel}", signed_to_colour(values, _top(gradients)))
               for channel, values in zip(("u", "v", "strain"), gradients, strict=False)]  # fmt: skip
    levels = found.attention
    height = 3 * (PANEL + TITLE + GAP) + 3 * GAP + len(levels) * (HEAD + TITLE + GAP) + 3 * TITLE
    canvas = Image.new("RGB", (4 * PANEL + 5 * GAP, height), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text(
        (GAP, 8), f"what speaks for {name} (probability {share:.3f}): {seen.name}", fill=INK, font=font(15)
    )
    y = GAP + TITLE
    for row in (top, maps, told_of):
        for column, (title, pixels) in enumerate(row):
            _panel(canvas, draw, (GAP + column * (PANEL + GAP), y), title, pixels)
        y += PANEL + TITLE + GAP
    right = 3 * (PANEL + GAP) + GAP
    drops = dict(zip(found.shares, told.regions[0].tolist(), strict=True))
    _regions(draw, (right, GAP + TITLE), found.shares, drops)
    lines = (
        "red: for the class, blue: against it", "each picture on its own scale",
        f"their sum misses the score by {abs(float(told.gap[0])):.1g}", "likeness to random weights",
        f"(1 alike, 0 unrelated): {found.control:+.2f}",
    )  # fmt: skip
    for n, line in enumerate(lines):
        draw.text((right, GAP + 2 * TITLE + PANEL + 20 * n), line, fill=INK, font=font(13))
    for n, level in enumerate(levels, start=1):
        _attention(canvas, draw, y, n, level)
        y += HEAD + TITLE + GAP
    for n, warning in enumerate(found.warnings[:2]):
        draw.text((GAP, y + 16 * n), warning[:150], fill=INK, font=font(12))
    return canvas


def draw_averages(found: Averages) -> Image:
    """Draw one row per class: gradients and occlusion on the face's place, and the regions' shares."""
    from PIL import Image, ImageDraw

    from mer_flow.pictures.colours import signed_to_colour

    height = 3 * TITLE + len(found.classes) * (PANEL + TITLE + GAP) + GAP
    canvas = Image.new("RGB", (3 * PANEL + 4 * GAP + 40, height), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text(
        (GAP, 8),
        "what speaks for a class, mean over its own samples: gradients, occlusion; crosses: eyes, nose, lips",
        fill=INK,
        font=font(15),
    )
    draw.text((GAP, 28), found.source, fill=INK, font=font(12))
    y = 2 * TITLE + 8
    for mean in found.classes:
        title = f"{mean.name}: {mean.samples} samples, {mean.right} right"
        for column, cells in enumerate((mean.gradients, mean.occlusion)):
            face = on_face(cells, found.view, USUAL_CENTRES * FACE, FACE)
            what = title if column == 0 else "occlusion"
            left = GAP + column * (PANEL + GAP)
            _panel(canvas, draw, (left, y), what, signed_to_colour(face, _top(face)))
            for cx, cy in USUAL_CENTRES * PANEL + (left, y + TITLE):
                draw.line((cx - 4, cy, cx + 4, cy), fill=INK)
                draw.line((cx, cy - 4, cx, cy + 4), fill=INK)
        _regions(draw, (2 * (PANEL + GAP) + GAP, y), mean.shares, mean.drops)
        y += PANEL + TITLE + GAP
    note = f"likeness to random weights (1 alike, 0 unrelated): {found.control:+.2f}"
    draw.text((GAP, y), note, fill=INK, font=font(12))
    return canvas


def save_explained(found: Explanation | Averages, folder: Path | str) -> list[Path]:
    """Write `explanation.png` and `explanation.npz`, the maps, into a folder.

    Raises:
        InputError: They cannot be written.
    """
    folder = Path(folder)
    picture, arrays = folder / "explanation.png", folder / "explanation.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (draw_averages(found) if isinstance(found, Averages) else draw_explanation(found)).save(picture)
        np.savez_compressed(arrays, **found.arrays())
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error}); name another") from error
    return [picture, arrays]


def _panel(canvas: Image, draw: ImageDraw, at: tuple[int, int], title: str, pixels: np.ndarray) -> None:
    from PIL import Image

    draw.text(at, title, fill=INK, font=font(13))
    shown = Image.fromarray(pixels).resize((PANEL, PANEL), Image.Resampling.NEAREST)
    canvas.paste(shown, (at[0], at[1] + TITLE))
    draw.rectangle((at[0], at[1] + TITLE, at[0] + PANEL - 1, at[1] + TITLE + PANEL - 1), outline=BAR_REST)


def _regions(draw: ImageDraw, at: tuple[int, int], shares: dict[str, float], drops: dict[str, float]) -> None:
    x, y = at
    draw.text((x, y), "regions: share of gradients, fall if still", fill=INK, font=font(12))
    for n, (name, share) in enumerate(shares.items()):
        top = y + TITLE + 44 * n
        draw.text((x, top), f"{name}  {share:.0%}, {drops[name]:+.2f}", fill=INK, font=font(13))
        draw.rectangle((x, top + 20, x + PANEL, top + 34), fill=BAR_REST)
        draw.rectangle((x, top + 20, x + PANEL * share, top + 34), fill=BAR)


def _attention(canvas: Image, draw: ImageDraw, y: int, number: int, level: np.ndarray) -> None:
    """Draw a row: one picture per head, what each patch is given, the mean over the level's blocks."""
    from PIL import Image

    from mer_flow.pictures.colours import unsigned_to_colour

    given = received(level).mean(0)  # (heads, side, side)
    heads, side = given.shape[0], given.shape[-1]
    what = "one patch, which attends to itself" if side == 1 else f"{side}x{side} patches"
    more = f", {_HEADS_SHOWN} of {heads} shown" if heads > _HEADS_SHOWN else ""
    text = (
        f"level {number}, {what}: attention given to each patch, per head, mean of {len(level)} blocks{more}"
    )
    if side > 1:
        text += f" (black 0, white {float(given.max()):.2f})"
    draw.text((GAP, y), text, fill=INK, font=font(13))
    for n, head in enumerate(given[:_HEADS_SHOWN]):
        pixels = unsigned_to_colour(head, float(given.max()))
        shown = Image.fromarray(pixels).resize((HEAD, HEAD), Image.Resampling.NEAREST)
        canvas.paste(shown, (GAP + n * (HEAD + 12), y + TITLE))


def _laid(face: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay a signed map in colour over a greyed face: the stronger, the less of the face is left."""
    from mer_flow.pictures.colours import signed_to_colour

    top = _top(values)
    grey = np.repeat(face.mean(-1, keepdims=True), 3, axis=-1) * 0.5 + 120
    weight = np.clip(np.abs(values) / top, 0, 1)[..., None] ** 0.5
    return np.rint(np.clip(grey, 0, 255) * (1 - weight) + signed_to_colour(values, top) * weight).astype(
        np.uint8
    )


def _top(values: np.ndarray) -> float:
    """Return where a map's colours end: its largest value, and something for a map of zeros."""
    return max(float(np.abs(values).max()), 1e-12)


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image
