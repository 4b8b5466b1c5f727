"""Frame files by the number in their names, and their decoding."""

from __future__ import annotations

import io
import os
import re
import warnings
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mer_flow.databases.layout import is_file
from mer_flow.databases.limits import MOST_IMAGE_BYTES, MOST_PIXELS
from mer_flow.work.errors import FrameError
from mer_flow.work.files import size_of

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

#: Suffixes of frame files, compared in lower case; everything else in a clip's folder is no frame.
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"})

_COPY_MARK = re.compile(r"(\s*\(\d+\)|\s+-\s+copy(\s*\(\d+\))?)$", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"(\d+)\D*$")


def frame_number(name: str) -> int | None:
    """Parse a frame number: the last run of digits of a file name's stem.

    Args:
        name: A file name; a mark of a copied file, as in `img46 (1).jpg`, is not taken for a number.

    >>> names = ("reg_img46.jpg", "006_05562.jpg", "image034208.bmp", "img46 (1).jpg", "a.png")
    >>> [frame_number(name) for name in names]
    [46, 5562, 34208, 46, None]
    """
    found = _LAST_NUMBER.search(_COPY_MARK.sub("", Path(name).stem))
    return int(found.group(1)) if found else None


def image_names(folder: Path) -> list[str]:
    """Return the names of a folder's images, the shortest first, then by alphabet."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and is_file(e)]
    images = (name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)
    return sorted(images, key=lambda name: (len(name), name))


def image_numbers(folder: Path) -> list[int]:
    """Return the frame numbers that a folder has, ascending, each once."""
    return sorted({n for name in image_names(folder) if (n := frame_number(name)) is not None})


@dataclass(frozen=True, slots=True)
class FrameHit:
    """The frame found for a wanted number; `distance` is that of the two numbers."""

    path: Path
    number: int
    distance: int


class FrameIndex:
    """The frames of one clip's folder by parsed number, whatever the padding or prefix of their names.

    Attributes:
        numbers: Every frame number there is, ascending.
    """

    def __init__(self, folder: Path, files: dict[int, str]) -> None:
        self.folder = folder
        self.numbers: tuple[int, ...] = tuple(sorted(files))
        self._files = files

    @classmethod
    def scan(cls, folder: Path) -> FrameIndex:
        """List a folder once.

        Where several files carry one number (other padding, a copy, another suffix), the shortest name
        counts, then the alphabetically first.

        Raises:
            FrameError: The folder is missing, unreadable or holds no numbered image.
        """
        folder = Path(folder)
        files: dict[int, str] = {}
        try:
            for name in image_names(folder):
                number = frame_number(name)
                if number is not None:
                    files.setdefault(number, name)
        except OSError as error:
            raise FrameError(
                f"frame folder {folder} cannot be listed ({error.strerror}); "
                "check the database's root and the clip's name"
            ) from error
        if not files:
            raise FrameError(
                f"frame folder {folder} holds no numbered image ({len(list(folder.iterdir()))} files; "
                f"expected suffixes {', '.join(sorted(IMAGE_SUFFIXES))}); unpack the release again"
            )
        return cls(folder, files)

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, number: object) -> bool:
        return number in self._files

    def path(self, number: int) -> Path:
        """Return the file of exactly this number; a FrameError says that there is none."""
        return self.nearest(number, 0).path

    def nearest(self, number: int, limit: int) -> FrameHit:
        """Find the existing frame nearest to a wanted number; of two equally near, the earlier one.

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
        """Return the existing frame numbers from `first` to `last`, both included."""
        return self.numbers[bisect_left(self.numbers, first) : bisect_left(self.numbers, last + 1)]


@contextmanager
def opened(source: Path | io.BytesIO) -> Iterator[Image.Image]:
    """Open an image whose pixels are still to be decoded; one with too many is a ValueError."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower
        try:
            image = Image.open(source)
        except Image.DecompressionBombError as error:
            raise ValueError(f"{error}; expected {MOST_PIXELS} at most") from error
    with image:
        if image.width * image.height > MOST_PIXELS:
            size = f"{image.width}x{image.height} px"
            raise ValueError(f"{size} would be decoded, expected {MOST_PIXELS} pixels at most")
        yield image


def read_frame(path: Path) -> np.ndarray:
    """Decode one frame, pixels as stored (no rotation by EXIF).

    Returns:
        uint8 (H, W) of a grey image or (H, W, 3) RGB of a colour image.

    Raises:
        FrameError: The file is missing, empty, truncated, no image, deeper than eight bits, or larger than
            `mer_flow.databases.limits` says.
    """
    import numpy as np
    from PIL import UnidentifiedImageError

    try:
        size = size_of(Path(path))
        if size > MOST_IMAGE_BYTES:
            raise FrameError(f"frame {path} has {size} bytes, expected {MOST_IMAGE_BYTES} at most: no frame")
        data = Path(path).read_bytes()
    except OSError as error:
        raise FrameError(
            f"frame {path} cannot be read ({error.strerror}); restore it from the release"
        ) from error
    if not data:
        raise FrameError(f"frame {path} is empty (0 bytes); copy it again from the release")
    try:
        # Pillow refuses a truncated file; OpenCV would fill the missing rows with grey and say nothing.
        with opened(io.BytesIO(data)) as image:
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
            "give a whole picture (PNG, JPEG, BMP), as by copying it again from the release"
        ) from error
