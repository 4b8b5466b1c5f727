"""A video with what was found in it: the moment, its map, the answer, and the curve of movement."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from ahmsa_model.errors import InputError
from ahmsa_model.pictures.prediction import BAR, BAR_REST, INK, MARK, flow_panel, font
from ahmsa_model.predict import flow_errors
from ahmsa_model.video import Moment, VideoPrediction

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SIZE = (960, 600)
#: Left, top, width and height of the parts.
FRAME = (16, 44, 560, 420)
MAP = (600, 44, 232, 232)
BARS = (600, 316, 344, 148)
CURVE = (16, 496, 928, 70)

FAINT, REST, SHADE = (120, 120, 126), (150, 150, 156), (250, 226, 214)
#: Frames per second at which it is written at the most, so that an eye can follow.
SHOWN = 25.0
#: Suffix -> codec: one that OpenCV's own FFmpeg writes, and browsers play the second.
CODECS = {".mp4": "mp4v", ".webm": "VP80", ".avi": "MJPG"}


def annotated_frames(result: VideoPrediction) -> Iterator[Image]:
    """Draw every frame of a clip, `SIZE` px, RGB.

    On the left the frame, framed while a moment lasts, with the aligned face's outline; on the right the
    moment's flow from onset to apex and the classes' probabilities; below the curve of movement.
    """
    from PIL import Image, ImageDraw

    footage = result.footage
    boards = {id(moment): _board(result, moment) for moment in result.moments}
    empty = _board(result, None)
    for position, frame in enumerate(footage.frames(range(len(footage)))):
        moment = next((m for m in result.moments if m.onset <= position <= m.end), None)
        board = (empty if moment is None else boards[id(moment)]).copy()
        draw = ImageDraw.Draw(board)
        shown = Image.fromarray(frame).convert("RGB")
        scale = min(FRAME[2] / shown.width, FRAME[3] / shown.height)
        shown = shown.resize((round(shown.width * scale), round(shown.height * scale)), Image.Resampling.BOX)
        left, top = FRAME[0] + (FRAME[2] - shown.width) // 2, FRAME[1] + (FRAME[3] - shown.height) // 2
        board.paste(shown, (left, top))
        if moment is not None:
            corners = _outline(moment) * scale + (left, top)
            draw.polygon([tuple(corner) for corner in corners], outline=MARK)
            said = {moment.onset: "onset", moment.apex: "apex"}.get(position, "")
            draw.rectangle((left, top, left + shown.width - 1, top + shown.height - 1), outline=MARK, width=3)
            if said:
                wide = draw.textlength(said, font(20))
                draw.rectangle((left, top, left + wide + 20, top + 32), fill=MARK)
                draw.text((left + 10, top + 4), said, fill="white", font=font(20))
        name = footage.named(position)
        draw.text((SIZE[0] - 16 - draw.textlength(name, font(15)), 12), name, fill=INK, font=font(15))
        x = _along(result, position)
        draw.line((x, CURVE[1] - 4, x, CURVE[1] + CURVE[3] + 4), fill=INK, width=2)
        yield board


def save_annotated(result: VideoPrediction, path: Path | str) -> Path:
    """Write the annotated video; its suffix, one of `CODECS`, names the format.

    A clip of more than `SHOWN` frames per second is written in slow motion, which is said in it.

    Raises:
        InputError: The suffix is another one, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in CODECS:
        raise InputError(f"annotated video {path}: expected one of {', '.join(CODECS)} as its suffix")
    with flow_errors():
        from mer_flow.work.files import new_file
        from mer_flow.work.libraries import load_cv2

        cv2 = load_cv2()
        codec = cv2.VideoWriter_fourcc(*CODECS[path.suffix.lower()])
        with new_file(path, overwrite=True) as part:
            named = part.with_suffix(path.suffix)  # by which the container is chosen
            writer = cv2.VideoWriter(str(named), codec, min(result.footage.fps or SHOWN, SHOWN), SIZE)
            try:
                if not writer.isOpened():
                    raise InputError(f"annotated video {path} cannot be written; name a folder that can")
                for frame in annotated_frames(result):
                    writer.write(np.asarray(frame)[:, :, ::-1])
                writer.release()
                named.replace(part)
            finally:
                writer.release()
                named.unlink(missing_ok=True)
    return path


def _outline(moment: Moment) -> np.ndarray:
    """Return the corners of the aligned face, (4, 2) px of the frame."""
    extracted = moment.prediction.extracted
    matrix, side = extracted.alignment, extracted.flow.shape[-1]
    corners = np.array([(0, 0), (side, 0), (side, side), (0, side)], dtype=np.float64)
    return (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def _board(result: VideoPrediction, moment: Moment | None) -> Image:
    """Draw what stays the same during a moment, or outside of all."""
    from PIL import Image, ImageDraw

    board = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(board)
    fps = result.footage.fps
    slower = f", {fps / SHOWN:.1f} times slower" if fps and fps > SHOWN else ""
    draw.text((FRAME[0], 10), f"{result.footage.path.name}{slower}", fill=INK, font=font(17))
    x, y, wide, tall = MAP
    if moment is None:
        draw.rectangle((x, y, x + wide, y + tall), fill=(246, 246, 248))
        draw.text((x + 12, y + 12), "no moment here", fill=FAINT, font=font(15))
    else:
        pixels, full = flow_panel(moment.prediction.extracted.flow)
        board.paste(Image.fromarray(pixels).resize((wide, tall), Image.Resampling.BICUBIC), (x, y))
        draw.rectangle((x, y, x + wide - 1, y + tall - 1), outline=REST)
        _wheel(board, (x + wide + 12, y))
        lines = ("full colour:", f"{full:g} px of a face", f"{pixels.shape[0]} px wide", "white: still")
        for n, line in enumerate(lines):
            draw.text((x + wide + 12, y + 88 + 16 * n), line, fill=INK, font=font(12))
        where = f"{moment.prediction.onset} to {moment.prediction.apex}"
        draw.text((x, y + tall + 6), f"flow, {where}", fill=INK, font=font(12))
        _bars(draw, moment)
    if result.warnings:
        more = f" (one of {len(result.warnings)})" if len(result.warnings) > 1 else ""
        # The gravest come last: first the clip's, then the moment's.
        for n, line in enumerate(wrap(f"warning{more}: {result.warnings[-1]}", 150)[:2]):
            draw.text((FRAME[0], 465 + 13 * n), line, fill=MARK, font=font(11))
    _curve(draw, result)
    return board


def _wheel(board: Image, place: tuple[int, int]) -> None:
    from PIL import Image

    from mer_flow.pictures.colours import flow_wheel

    board.paste(Image.fromarray(flow_wheel(81)), place)


def _bars(draw: ImageDraw, moment: Moment) -> None:
    x, y, wide, tall = BARS
    prediction = moment.prediction
    step = min(tall / max(len(prediction.classes), 3), 48)
    ranked = np.argsort(-prediction.probabilities, kind="stable")
    for i, k in enumerate(ranked[:7]):
        top, share = y + i * step, float(prediction.probabilities[k])
        draw.text((x, top), f"{prediction.classes[k]}  {share:.2f}", fill=INK, font=font(15))
        bar = (x, top + 20, x + wide, top + step - 6)
        draw.rectangle(bar, fill=BAR_REST)
        draw.rectangle((bar[0], bar[1], x + wide * share, bar[3]), fill=BAR)


def _along(result: VideoPrediction, position: int) -> float:
    """Return where a frame lies on the curve's axis, px."""
    times = result.footage.times
    share = position / (len(result.footage) - 1) if times is None else float(times[position] / times[-1])
    return CURVE[0] + CURVE[2] * share


def _curve(draw: ImageDraw, result: VideoPrediction) -> None:
    from mer_flow.pictures.colours import nice_ceiling

    x, y, wide, tall = CURVE
    top = nice_ceiling(max([px for _, px in result.curve] + [2 * result.threshold, 0.5]))
    draw.rectangle((x, y, x + wide, y + tall), fill=(246, 246, 248))
    for moment in result.moments:
        draw.rectangle((_along(result, moment.onset), y, _along(result, moment.end), y + tall), fill=SHADE)

    def height(px: float) -> float:
        return y + tall * (1 - min(px / top, 1.0))

    if result.threshold:
        for start in range(x, x + wide, 12):
            draw.line((start, height(result.threshold), start + 6, height(result.threshold)), fill=REST)
    points = [(_along(result, position), height(px)) for position, px in result.curve]
    if len(points) > 1:
        draw.line(points, fill=BAR, width=2)
    for moment in result.moments:
        apex = _along(result, moment.apex)
        draw.polygon([(apex - 6, y - 9), (apex + 6, y - 9), (apex, y)], fill=MARK)
    draw.text((x + 4, y + 2), f"{top:g} px", fill=FAINT, font=font(11))
    text = "how far skin moves since the onset: a spotting aid, not a detector. Triangle: apex"
    if result.threshold:
        text = (
            "movement per window: a spotting aid, not a detector. Triangles: candidate moments; dashes: limit"
        )
    draw.text((x, y + tall + 6), text, fill=FAINT, font=font(12))
    end = "" if result.footage.times is None else f"{result.footage.times[-1]:.2f} s"
    draw.text((x + wide - draw.textlength(end, font(12)), y + tall + 6), end, fill=FAINT, font=font(12))
