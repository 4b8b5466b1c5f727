"""Videos of one synthetic face that moves when it is told to: for demonstrations, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mer_flow.synthetic.movements import displacement, profile
from mer_flow.synthetic.portrait import make_portrait
from mer_flow.synthetic.rendering import ClipRenderer, HeadMotion
from mer_flow.work.errors import UsageError
from mer_flow.work.files import new_file
from mer_flow.work.libraries import load_cv2

#: Suffix -> codec; JPEG frames keep what moves by a fraction of a pixel.
CODECS = {".avi": "MJPG", ".mp4": "mp4v"}


@dataclass(frozen=True, slots=True)
class Event:
    """One movement of the face.

    Attributes:
        movement: Action units, as in `4+7`.
        start: Seconds from the video's beginning to the onset.
        rise: Seconds from onset to apex, and from there back.
        amplitude: Length of the longest displacement, px of a 640×480 frame.
    """

    movement: str
    start: float = 0.0
    rise: float = 0.25
    amplitude: float = 2.0


def video_frames(
    events: Sequence[Event],
    seconds: float = 0.5,
    fps: float = 100.0,
    seed: int = 0,
    size: tuple[int, int] = (640, 480),
) -> Iterator[np.ndarray]:
    """Render a face with its noise and the slow motion of its head.

    Args:
        events: What moves; nothing, where there is none.
        seconds: Length of the video.
        fps: Frames per second.
        seed: Of face, head motion and noise.
        size: Width and height, px.

    Yields:
        uint8 (H, W, 3) RGB.
    """
    rng = np.random.default_rng((seed, 77))
    portrait = make_portrait(rng, size, colour=True)
    head = HeadMotion.draw(rng, portrait.centre)
    count = round(seconds * fps)
    shown = [*events, Event("4", start=2 * seconds)]  # a still face is one whose movement is yet to come
    renderers = [
        ClipRenderer(
            portrait, displacement(e.movement, portrait.landmarks, size[::-1], e.amplitude), head, rng
        )
        for e in shown
    ]
    for number in range(count):
        strengths = [
            profile(number, *(round((e.start + part * e.rise) * fps) for part in (0, 1, 2))) for e in shown
        ]
        at = int(np.argmax(strengths))
        yield renderers[at].frame(strengths[at], head.matrix(number / max(count - 1, 1)))


def write_video(path: Path, frames: Iterator[np.ndarray], fps: float = 100.0) -> Path:
    """Write frames, uint8 (H, W, 3) RGB, as a video; its suffix, one of `CODECS`, names the format.

    Raises:
        UsageError: The suffix is another one.
    """
    cv2 = load_cv2()
    if path.suffix not in CODECS:
        raise UsageError(f"video {path}: expected one of {', '.join(CODECS)} as its suffix")
    with new_file(path, overwrite=True) as part:
        named = part.with_suffix(path.suffix)  # by which the container is chosen
        writer = None
        for frame in frames:
            if writer is None:
                codec = cv2.VideoWriter_fourcc(*CODECS[path.suffix])
                writer = cv2.VideoWriter(str(named), codec, fps, frame.shape[1::-1])
            writer.write(frame[:, :, ::-1])
        if writer is not None:
            writer.release()
        named.replace(part)
    return path
