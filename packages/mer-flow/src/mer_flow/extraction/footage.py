"""Clips of one's own: a video file or a folder of numbered frames, read in order, frame by frame."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mer_flow.databases.frames import FrameIndex, read_frame
from mer_flow.work.errors import FrameError, UsageError
from mer_flow.work.libraries import load_cv2

#: Gaps between frames that differ by more than this factor are a variable rate.
_UNEVEN = 1.5
#: A file whose frames end before this share of those that it announces was cut short.
_WHOLE = 0.95
_CONVERT = "convert it (ffmpeg -i {name} -c:v libx264 -crf 12 clip.mp4), or give a folder of its frames"


@dataclass(frozen=True)
class Footage(ABC):
    """A clip whose frames are read when asked for; a *position* counts its frames from 0.

    Attributes:
        path: The file or folder.
        numbers: Frame number at each position: of a folder those in the files' names, of a video from 0.
        times: float64 (K,) seconds since the first frame; None where the frame rate is not known.
        notes: What a user should know of it, a line each.
    """

    path: Path
    numbers: tuple[int, ...]
    times: np.ndarray | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def fps(self) -> float | None:
        """Mean frames per second; None where it is not known."""
        return None if self.times is None else (len(self) - 1) / float(self.times[-1])

    @abstractmethod
    def frames(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Read frames, uint8 (H, W) or (H, W, 3) RGB, of ascending positions.

        Raises:
            FrameError: A frame cannot be read.
        """

    def named(self, position: int) -> str:
        """Return what messages call a frame, as in `frame 12 (0.40 s)`."""
        when = "" if self.times is None else f" ({self.times[position]:.2f} s)"
        return f"frame {self.numbers[position]}{when}"

    def position(self, moment: str) -> int:
        """Find a moment of the clip.

        Args:
            moment: A frame number as in `12`, or seconds since the first frame as in `0.4s`.

        Raises:
            UsageError: It is neither, lies outside the clip, or seconds are asked of an unknown rate.
        """
        found = re.fullmatch(r"(\d+)|(\d*\.?\d+) ?s", moment.strip())
        if found is None:
            raise UsageError(
                f"moment '{moment}' is neither a frame nor seconds; write 12 for frame 12, 0.4s for seconds"
            )
        if found[1]:
            if int(found[1]) in self.numbers:
                return self.numbers.index(int(found[1]))
            raise UsageError(
                f"{self.path} has no frame {found[1]}: its {len(self)} frames are "
                f"{self.numbers[0]} to {self.numbers[-1]}"
            )
        if self.times is None:
            raise UsageError(f"{self.path} is a folder without a frame rate; say it with --fps, as --fps 200")
        if float(found[2]) > self.times[-1] + 0.5 / (self.fps or 1):
            raise UsageError(f"{self.path} lasts {self.times[-1]:.2f} s, so it has no moment {moment}")
        return int(np.abs(self.times - float(found[2])).argmin())


@dataclass(frozen=True)
class FrameFolder(Footage):
    """A folder of numbered pictures."""

    def frames(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Read frames as `Footage.frames` says."""
        index = FrameIndex.scan(self.path)
        for position in positions:
            yield read_frame(index.path(self.numbers[position]))


@dataclass(frozen=True)
class VideoFile(Footage):
    """A video file, decoded by OpenCV's FFmpeg from its beginning: jumping is not exact in every codec."""

    def frames(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Read frames as `Footage.frames` says."""
        cv2 = load_cv2()
        with _opened(self.path) as capture:
            at = -1
            for position in positions:
                while at < position and capture.grab():
                    at += 1
                done, image = capture.retrieve() if at == position else (False, None)
                if not done:
                    raise FrameError(f"{self.path}: frame {position} cannot be decoded; copy the file again")
                yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def open_footage(path: Path, fps: float | None = None) -> Footage:
    """Open a clip; a video is decoded once, so that its frames and their times are known and not guessed.

    Args:
        path: A video file, or a folder of pictures whose names carry their numbers.
        fps: Frames per second, of a folder, or in place of what a video says: a high-speed camera's file
            often names the rate to be shown at.

    Raises:
        FrameError: There is no such clip, it cannot be decoded, or it has fewer than two frames.
        UsageError: `fps` is not positive.
    """
    path = Path(path)
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"--fps is {fps}; expected a positive number of frames per second")
    if not path.exists():
        raise FrameError(f"clip {path} does not exist; give a video file or a folder of numbered frames")
    footage = _folder(path, fps) if path.is_dir() else _video(path, fps)
    if len(footage) < 2:
        raise FrameError(f"clip {path} holds {len(footage)} frame, expected the onset and at least one more")
    return footage


def _folder(path: Path, fps: float | None) -> FrameFolder:
    numbers = FrameIndex.scan(path).numbers
    times = None if fps is None else (np.array(numbers, dtype=np.float64) - numbers[0]) / fps
    return FrameFolder(path, numbers, times)


def _video(path: Path, fps: float | None) -> VideoFile:
    cv2 = load_cv2()
    if path.stat().st_size == 0:
        raise FrameError(f"clip {path} is empty (0 bytes); copy it again")
    stamps = []
    with _opened(path) as capture:
        said, announced = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        turned, codec = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)), _codec(capture)
        while capture.grab():
            stamps.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    if not stamps:
        raise FrameError(
            f"clip {path}: no frame can be decoded (codec '{codec}', which this OpenCV may lack); "
            f"{_CONVERT.format(name=path.name)}"
        )
    times, notes = _times(np.array(stamps), said, fps)
    if turned % 360:
        notes.append(f"turned by {turned % 360} degrees, as the file's metadata ask")
    if len(stamps) < _WHOLE * announced:
        notes.append(
            f"the file announces {announced:.0f} frames and {len(stamps)} can be decoded: it was cut short"
        )
    return VideoFile(path, tuple(range(len(stamps))), times, tuple(notes))


def _times(stamps: np.ndarray, said: float, fps: float | None) -> tuple[np.ndarray | None, list[str]]:
    """Return the frames' times: by the rate that the user says, the file's stamps, or the file's rate."""
    count = np.arange(len(stamps))
    gaps = np.diff(stamps)
    if fps is not None:
        return count / fps, []
    if len(gaps) and (gaps > 0).all():
        middle = float(np.median(gaps))
        uneven = gaps.max() > _UNEVEN * middle or gaps.min() < middle / _UNEVEN
        note = (
            f"variable frame rate: {1000 * gaps.min():.0f} to {1000 * gaps.max():.0f} ms between frames; "
            "times are the file's stamps"
        )
        return stamps - stamps[0], [note] if uneven else []
    if said > 0:
        return count / said, []
    return None, ["the file says no frame rate; say it with --fps"]


def _codec(capture: Any) -> str:
    number = int(capture.get(load_cv2().CAP_PROP_FOURCC))
    code = bytes((number >> shift) & 0xFF for shift in (0, 8, 16, 24))
    return code.decode("ascii", "replace").strip("\0 ") or "unknown"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    cv2 = load_cv2()
    before = cv2.getLogLevel()
    cv2.setLogLevel(0)  # OpenCV prints its own complaints; ours is one line
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise FrameError(
                f"clip {path} ({path.stat().st_size:,} bytes) is no video that this OpenCV can read: "
                f"damaged, cut short, or of a codec it lacks; {_CONVERT.format(name=path.name)}"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        yield capture
    finally:
        capture.release()
        cv2.setLogLevel(before)
