"""Frame files indexed by the number in their names, and their decoding."""

from __future__ import annotations

import io
import os
import re
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mer_flow.work.errors import FrameError

#: Suffixes of frame files, compared in lower case; everything else in a clip's folder is no frame.
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"})

_COPY_MARK = re.compile(r"(\s*\(\d+\)|\s+-\s+copy(\s*\(\d+\))?)$", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


def frame_number(name: str) -> int | None:
    """Parses a frame number: the last run of digits of a file name's stem.

    Args:
        name: A file name; a mark of a copied file, as in `img46 (1).jpg`, is not taken for a number.

    Returns:
        The number, or None where the stem holds no digit.

    >>> names = ("reg_img46.jpg", "006_05562.jpg", "image034208.bmp", "img46 (1).jpg", "a.png")
    >>> [frame_number(name) for name in names]
    [46, 5562, 34208, 46, None]
    """
    found = _LAST_NUMBER.search(_COPY_MARK.sub("", Path(name).stem))
    return int(found.group(1)) if found else None


@dataclass(frozen=True, slots=True)
class FrameHit:
    """The frame found for a wanted number.

    Attributes:
        path: The image file.
        number: Its parsed number.
        distance: Frames between the wanted and the found number; 0 where the frame itself exists.
    """

    path: Path
    number: int
    distance: int


class FrameIndex:
    """The frames of one clip's folder by parsed number, whatever the padding or prefix of their names.

    Attributes:
        folder: The clip's folder.
        numbers: Every frame number there is, ascending.
        duplicates: Number -> names of all files that carry it, the one used first.
        ignored: Names of images without a number.
    """

    def __init__(
        self, folder: Path, files: dict[int, tuple[str, ...]], ignored: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.numbers: tuple[int, ...] = tuple(sorted(files))
        self.duplicates = {number: names for number, names in sorted(files.items()) if len(names) > 1}
        self.ignored = ignored
        self._files = {number: names[0] for number, names in files.items()}

    @classmethod
    def scan(cls, folder: Path) -> FrameIndex:
        """Lists a folder once.

        Args:
            folder: The clip's folder. Where several files carry one number (other padding, a copy, another
                suffix), the shortest name is used, then the alphabetically first, and all are recorded as
                `duplicates`.

        Returns:
            The index.

        Raises:
            FrameError: The folder is missing, unreadable or holds no numbered image.
        """
        folder = Path(folder)
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
        except OSError as error:
            raise FrameError(
                f"frame folder {folder} cannot be listed ({error.strerror}); "
                "check the database's root and the clip's name"
            ) from error
        images = [n for n in names if Path(n).suffix.lower() in IMAGE_SUFFIXES and not n.startswith(".")]
        files: dict[int, list[str]] = defaultdict(list)
        ignored = []
        for name in sorted(images, key=lambda n: (len(n), n)):
            number = frame_number(name)
            if number is None:
                ignored.append(name)
            else:
                files[number].append(name)
        if not files:
            raise FrameError(
                f"frame folder {folder} holds no numbered image ({len(names)} files; expected suffixes "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}); unpack the release again"
            )
        return cls(folder, {number: tuple(found) for number, found in files.items()}, tuple(ignored))

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, number: object) -> bool:
        return number in self._files

    def path(self, number: int) -> Path:
        """Returns the file of exactly this number.

        Raises:
            FrameError: There is no such frame.
        """
        return self.nearest(number, 0).path

    def nearest(self, number: int, limit: int) -> FrameHit:
        """Finds the existing frame nearest to a wanted number; of two equally near, the earlier one.

        Args:
            number: The wanted frame.
            limit: The largest accepted distance, frames.

        Returns:
            The frame and its distance, which the caller records.

        Raises:
            FrameError: No frame lies within the limit.
        """
        at = bisect_left(self.numbers, number)
        near = self.numbers[max(at - 1, 0) : at + 1]
        found = min(near, key=lambda n: (abs(n - number), n))
        distance = abs(found - number)
        if distance > limit:
            raise FrameError(
                f"frame {number} is missing in {self.folder}; the nearest of its {len(self)} frames "
                f"({self.numbers[0]} to {self.numbers[-1]}) is {found}, {distance} away, limit {limit}; "
                "restore the file, or raise frames.nearest_limit"
            )
        return FrameHit(self.folder / self._files[found], found, distance)

    def between(self, first: int, last: int) -> tuple[int, ...]:
        """Returns the existing frame numbers from `first` to `last`, both included."""
        return self.numbers[bisect_left(self.numbers, first) : bisect_left(self.numbers, last + 1)]


def read_frame(path: Path) -> np.ndarray:
    """Decodes one frame, pixels as stored (no rotation by EXIF).

    Args:
        path: An image file.

    Returns:
        uint8 (H, W) of a grey image or (H, W, 3) RGB of a colour image.

    Raises:
        FrameError: The file is missing, empty, truncated, no image, or deeper than eight bits.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FrameError(
            f"frame {path} cannot be read ({error.strerror}); restore it from the release"
        ) from error
    if not data:
        raise FrameError(f"frame {path} is empty (0 bytes); copy it again from the release")
    try:
        # Pillow refuses a truncated file; OpenCV would fill the missing rows with grey and say nothing.
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                raise FrameError(
                    f"frame {path} has mode {image.mode}, expected 8-bit grey or colour; "
                    "is this a depth map? point to the colour frames"
                )
            grey = image.mode in ("1", "L", "LA")
            return np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow names the buffer's address, and a recorded failure must read the same in every run.
        what = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise FrameError(
            f"frame {path} ({len(data)} bytes) is truncated or no image: {what}; "
            "copy it again from the release"
        ) from error
