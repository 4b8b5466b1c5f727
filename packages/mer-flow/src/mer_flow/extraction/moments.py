"""Where in a clip skin moves: one stretch seen from its first frame, or a window slid along a long video.

The curve that this gives is an aid to look at, no detector: a blink beside the brow, speech and every macro
expression raise it as well, and nothing here was trained to tell them apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from mer_flow.extraction.apex import divide_and_conquer, movement_curve, spot_apex
from mer_flow.extraction.watch import Sighting, sight
from mer_flow.flow.noise import REFERENCE_SIZE
from mer_flow.work.errors import FaceError, FrameError, UsageError

if TYPE_CHECKING:
    from mer_flow.extraction.extractor import Extractor, FoundFace
    from mer_flow.extraction.footage import Footage

#: Frames of a stretch in which the face is looked for again, the last among them.
LOOKS = 12
#: Most frames of one stretch, whose aligned faces are held in memory.
LONGEST = 2000
#: Movement, px of a 224 px face, that a still face shows too, its head drifting and its video compressed.
#: Four synthetic ones (JPEG frames, MPEG-4) gave 0.050 to 0.067; a brow that moves 0.5 px gives 0.15.
STILL = 0.10
#: A window stands out where its movement exceeds this, px of a 224 px face, ...
LEAST = 0.15
#: ... and so many times what the quietest quarter of all windows shows.
TIMES = 3.0
#: Windows of this share of the strongest's movement are as strong.
ALIKE = 0.75


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames of a clip, seen from the first of them.

    Attributes:
        first: Position of the first frame.
        face: The face there.
        curve: float64 (K,), how far skin has moved since the first frame, px of a 224 px face; the mean over
            the regions that move most, smoothed.
        apex: Position of the frame that the spotter chose.
        sightings: The face in some of the frames, the first and the last among them.
    """

    first: int
    face: FoundFace
    curve: np.ndarray
    apex: int
    sightings: tuple[Sighting, ...]

    @property
    def strength(self) -> float:
        """The largest movement, px of a 224 px face."""
        return float(self.curve.max())

    @property
    def top(self) -> int:
        """Position of the largest movement."""
        return self.first + int(self.curve.argmax())


@dataclass(frozen=True)
class Windows:
    """A window slid along a clip.

    Attributes:
        stretches: One per window in which a face was found at its beginning, in order.
        faceless: Positions of the first frames of the others.
        threshold: What a candidate moment's movement must exceed, px of a 224 px face.
    """

    stretches: tuple[Stretch, ...]
    faceless: tuple[int, ...]
    threshold: float

    def candidates(self, most: int) -> tuple[Stretch, ...]:
        """Return the windows that stand out, in order; of more than `most` the strongest.

        Of windows near each other, which see the same movement, one is taken: the first that is about as
        strong as the strongest, since the way back from the apex moves skin as far as the way there.
        """
        chosen: list[Stretch] = []
        left = sorted(self.stretches, key=lambda stretch: -stretch.strength)
        while left and left[0].strength > self.threshold and len(chosen) < most:
            peak = left[0]
            reach = 1.5 * len(peak.curve)
            near = [item for item in left if abs(item.top - peak.top) <= reach]
            alike = [item for item in near if item.strength >= ALIKE * peak.strength]
            chosen.append(min(alike, key=lambda item: item.first))
            left = [item for item in left if abs(item.top - peak.top) > reach]
        return tuple(sorted(chosen, key=lambda item: item.first))


def follow_stretch(
    frames: Iterable[np.ndarray],
    first: int,
    engine: Extractor,
    looks: Collection[int] = (),
    method: str = "flow-peak",
    cropped: bool = False,
    others: Iterable[np.ndarray] = (),
) -> Stretch:
    """Follow the movement along one stretch of a clip.

    Args:
        frames: uint8 (H, W) or (H, W, 3) RGB each, of one size; the first counts as the onset.
        first: Position of the first frame.
        engine: The pipeline.
        looks: Which of the frames, counted from 0, are searched for the face again.
        method: The spotter.
        cropped: The frames are face crops already.
        others: Some of the frames again; read only where the first one's face is doubtful.

    Raises:
        FaceError: No face in the first frame, or one that scores far below those in `others`.
        FrameError: The frames differ in size.
    """
    from mer_flow.faces.align import to_grey, transform
    from mer_flow.faces.landmarks import find_landmarks

    face, points, shape = None, None, None
    aligned: list[np.ndarray] = []
    sightings: list[Sighting] = []
    for i, frame in enumerate(frames):
        if face is None:
            face, shape = engine.find_face(frame, cropped, others), frame.shape
            points = transform(face.matrix, find_landmarks(frame, face.box)) if face.detected else None
        if frame.shape != shape:
            raise FrameError(f"frames of one clip have one size, but {shape} is followed by {frame.shape}")
        aligned += [to_grey(image) for image in engine.align_clip((frame,), face)]
        if i in looks and face.detected:
            sightings.append(sight(first + i, frame, engine))
    assert face is not None, "a stretch has frames"
    curve = movement_curve(aligned, points)
    if method == "flow-peak" and len(aligned) > 2:  # which is the peak of this very curve
        apex = divide_and_conquer(curve)
    else:
        apex = spot_apex(aligned, method, points)
    scaled = curve * REFERENCE_SIZE / engine.config.align.size
    return Stretch(first, face, scaled, first + apex, tuple(sightings))


def read_stretches(
    footage: Footage, spans: Sequence[tuple[int, int]], engine: Extractor, method: str, cropped: bool = False
) -> list[Stretch]:
    """Follow the movement along stretches of a clip, which is read once; see `follow_stretch`.

    Args:
        footage: The clip.
        spans: Positions of the first and the last frame of each; in order, apart from each other.
        engine: The pipeline.
        method: The spotter.
        cropped: The frames are face crops already.

    Raises:
        UsageError: A stretch is too long to be one movement.
        FaceError: No face in its first frame; the message names clip and frame.
        FrameError: A frame cannot be read, or frames differ in size.
    """
    for first, last in spans:
        if last - first >= LONGEST:
            raise UsageError(
                f"{footage.path}: {last - first + 1:,} frames are no single movement (at most {LONGEST:,}); "
                "say where it is with --onset and --apex, or look for moments with --every 0.25"
            )
    stream = footage.frames([at for first, last in spans for at in range(first, last + 1)])
    found = []
    for first, last in spans:
        count = last - first + 1
        looks = set(np.linspace(0, count - 1, min(LOOKS, count)).round().astype(int).tolist())
        others = footage.frames(range(first + 1, last + 1, max(1, count // 4)))
        try:
            frames = islice(stream, count)
            found.append(follow_stretch(frames, first, engine, looks, method, cropped, others))
        except FaceError as error:
            raise FaceError(f"{footage.path}, {footage.named(first)}: {error}") from error
        except FrameError as error:
            raise FrameError(f"{footage.path}: {error}") from error
    return found


def slide(footage: Footage, every: float, length: float, engine: Extractor) -> Iterator[Stretch | int]:
    """Slide a window along a clip, read once.

    Args:
        footage: A clip whose frame rate is known.
        every: Seconds from one window to the next.
        length: Of a window, seconds.
        engine: The pipeline.

    Yields:
        What moved in each window, or the position of its first frame where that shows no face.

    Raises:
        UsageError: The rate is not known, or a window would hold fewer than three frames.
        FrameError: A frame cannot be read.
    """
    if footage.times is None:
        raise UsageError(f"{footage.path} is a folder without a frame rate; say it with --fps, as --fps 200")
    step, wide = (max(1, round(seconds * (footage.fps or 0))) for seconds in (every, length))
    if wide < 3 or every <= 0:
        raise UsageError(
            f"a window of {length:g} s every {every:g} s holds {wide} frame(s) of {footage.path} at "
            f"{footage.fps:.3g} frames per second; expected at least 3 and a positive step"
        )
    wide = min(wide, len(footage))
    held: deque[np.ndarray] = deque(maxlen=wide)
    for position, frame in enumerate(footage.frames(range(len(footage)))):
        held.append(frame)
        first = position - wide + 1
        if first >= 0 and (first % step == 0 or position == len(footage) - 1):
            try:
                yield follow_stretch(held, first, engine)
            except FaceError:
                yield first


def windows_of(found: Sequence[Stretch | int]) -> Windows:
    """Set the threshold by what all windows of a clip show; see `slide`."""
    stretches = tuple(item for item in found if isinstance(item, Stretch))
    quiet = float(np.percentile([item.strength for item in stretches] or [0.0], 25))
    threshold = max(LEAST, TIMES * quiet)
    return Windows(stretches, tuple(item for item in found if not isinstance(item, Stretch)), threshold)
