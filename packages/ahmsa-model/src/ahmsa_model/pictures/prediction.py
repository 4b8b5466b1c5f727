"""One picture of a prediction: frames, flow, strain, what the network saw, and the probabilities."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ahmsa_model.errors import InputError
from ahmsa_model.predict import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

PANEL = 224
GAP = 16
TITLE = 22
NOTE = 18
INK = (32, 32, 32)
BAR = (70, 110, 170)
BAR_REST = (225, 230, 238)
MARK = (255, 80, 40)
#: Letters of a line of notes.
_NOTE_WIDTH = 130


def draw_prediction(prediction: Prediction) -> Image:
    """Draw two rows of four panels.

    Above: aligned onset, aligned apex with the five region centres, flow by colour wheel, strain. Below: the
    three channels fed to the network, and the probability of each class. At the foot every warning.
    """
    from PIL import Image, ImageDraw

    from mer_flow.flow.noise import COLOUR_FLOOR, REFERENCE_SIZE, STRAIN_COLOUR_FLOOR
    from mer_flow.pictures.colours import nice_ceiling, signed_to_colour, unsigned_to_colour
    from mer_flow.views.normalise import FLOW_LIMIT, STRAIN_LIMIT

    extracted = prediction.extracted
    strain, side = extracted.flow[2], extracted.flow.shape[-1]
    flow, fastest = flow_panel(extracted.flow)
    strained = nice_ceiling(max(float(np.percentile(strain, 99.5)), STRAIN_COLOUR_FLOOR))
    panels = [
        ("onset", _rgb(extracted.onset_face)),
        (f"apex ({prediction.apex_source})", _rgb(extracted.apex_face)),
        (f"flow, full colour {fastest:g} px", flow),
        (f"strain, 0 to {strained:g}", unsigned_to_colour(strain, strained)),
    ]
    signed = prediction.normalisation in ("raw", "scaled")
    floors = {
        "raw": (COLOUR_FLOOR * prediction.map.shape[-1] / REFERENCE_SIZE, STRAIN_COLOUR_FLOOR),
        "scaled": (COLOUR_FLOOR / FLOW_LIMIT, STRAIN_COLOUR_FLOOR / STRAIN_LIMIT),
    }
    for name, channel in zip(("u", "v", "strain"), prediction.map, strict=True):
        floor = floors.get(prediction.normalisation, (0.0, 0.0))[name == "strain"]
        top = nice_ceiling(max(float(np.abs(channel).max()), floor))
        has_sign = signed and name != "strain"
        paint = signed_to_colour if has_sign else unsigned_to_colour
        low = f"{-top:g}" if has_sign else "0"
        panels.append((f"{prediction.view} {name}, {low} to {top:g}", paint(channel, top)))

    said = prediction.warnings or ("same pipeline as the training maps",)
    notes = [line for warning in said for line in textwrap.wrap(warning, _NOTE_WIDTH)]
    width, foot = 4 * PANEL + 5 * GAP, 2 * (PANEL + TITLE + GAP) + GAP
    canvas = Image.new("RGB", (width, foot + NOTE * len(notes) + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    places = [
        (GAP + column * (PANEL + GAP), GAP + row * (PANEL + TITLE + GAP))
        for row in (0, 1)
        for column in range(4)
    ]
    for (title, pixels), (x, y) in zip(panels, places, strict=False):
        draw.text((x, y), title, fill=INK, font=font(13))
        canvas.paste(Image.fromarray(pixels).resize((PANEL, PANEL), Image.Resampling.NEAREST), (x, y + TITLE))
    x, y = places[1]
    for cx, cy in extracted.regions * (PANEL / side):
        draw.line((x + cx - 4, y + TITLE + cy, x + cx + 4, y + TITLE + cy), fill=MARK, width=2)
        draw.line((x + cx, y + TITLE + cy - 4, x + cx, y + TITLE + cy + 4), fill=MARK, width=2)
    _draw_bars(draw, prediction, places[7])
    for i, note in enumerate(notes):
        draw.text((GAP, foot + NOTE * i), note, fill=INK, font=font(12))
    return canvas


def flow_panel(flow: np.ndarray) -> tuple[np.ndarray, float]:
    """Colour a flow, (3, S, S) px; return uint8 (S, S, 3), and the px that have full colour."""
    from mer_flow.flow.noise import COLOUR_FLOOR, REFERENCE_SIZE, strongest
    from mer_flow.pictures.colours import flow_to_colour, nice_ceiling

    # A percentile: one bad pixel must not wash the picture out. A floor: noise must not look like motion.
    full = nice_ceiling(max(strongest(flow), COLOUR_FLOOR) * flow.shape[-1] / REFERENCE_SIZE)
    return flow_to_colour(flow[:2], full), full


def save_picture(prediction: Prediction, path: Path | str) -> Path:
    """Draw a prediction into an image file, whose suffix names the format.

    Raises:
        InputError: The file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_prediction(prediction).save(path)
    except (OSError, ValueError) as error:
        raise InputError(f"picture {path} cannot be written ({error}); give a writable .png file") from error
    return path


def _draw_bars(draw: ImageDraw, prediction: Prediction, place: tuple[int, int]) -> None:
    x, y = place
    draw.text((x, y), f"probability: {prediction.label}", fill=INK, font=font(13))
    step = PANEL / max(len(prediction.classes), 3)
    for i, (name, share) in enumerate(zip(prediction.classes, prediction.probabilities, strict=True)):
        top = y + TITLE + i * step
        draw.text((x, top + 2), f"{name}  {share:.3f}", fill=INK, font=font(13))
        bar = (x, top + 22, x + PANEL, top + min(step - 6, 46))
        draw.rectangle(bar, fill=BAR_REST)
        draw.rectangle((bar[0], bar[1], x + PANEL * float(share), bar[3]), fill=BAR)


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image


def font(size: int):  # type: ignore[no-untyped-def]  # Pillow's own union of font types
    """Return Pillow's own font, so that a picture looks the same everywhere."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
