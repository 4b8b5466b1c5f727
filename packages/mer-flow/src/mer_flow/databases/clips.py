"""Which frames of a sample are read: the sheet's numbers matched to the files that exist."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mer_flow.databases.frames import FrameHit, FrameIndex, read_frame
from mer_flow.databases.layout import ClipLocator
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.work.errors import FrameError


@dataclass(frozen=True, slots=True)
class ClipTask:
    """One sample to work on, as a worker process needs it.

    Attributes:
        sample: The sample.
        folder: Its frame folder; None where the tree has none.
        cropped: Whether the release's frames are face crops already.
        shift: What to add to the sheet's numbers to get the files' numbers.
    """

    sample: Sample
    folder: Path | None
    cropped: bool
    shift: int = 0

    @classmethod
    def of(cls, locator: ClipLocator, sample: Sample) -> ClipTask:
        """Asks a locator where a sample's frames lie."""
        shift = locator.frame_number(sample, sample.onset) - sample.onset
        return cls(sample, locator.folder(sample), locator.frames_are_cropped, shift)

    def open(self, nearest_limit: int) -> ClipFrames:
        """Opens the clip's frames.

        Args:
            nearest_limit: How many frames away a substitute for a missing frame may lie.

        Raises:
            FrameError: The tree has no folder for the clip, or the folder holds no frame.
        """
        if self.folder is None:
            raise FrameError(
                f"{self.sample.sample_id}: the tree has no folder for this clip; "
                "`mer-flow doctor` lists all that are missing"
            )
        return ClipFrames(self.sample, self.folder, nearest_limit, self.shift)


@dataclass
class ClipFrames:
    """The frames of one sample's clip, addressed by the sheet's numbers.

    Args:
        sample: The sample.
        folder: Its frame folder.
        limit: How many frames away a substitute for a missing frame may lie.
        shift: What to add to the sheet's numbers to get the files'; 0 in nearly every release.
    """

    sample: Sample
    folder: Path
    limit: int
    shift: int = 0
    substituted: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = FrameIndex.scan(self.folder)

    def read(self, role: str, number: int) -> np.ndarray:
        """Reads the frame that plays a role, or its nearest neighbour within the limit.

        Args:
            role: `onset`, `apex` or `offset`; a substitution is recorded under it.
            number: The sheet's frame number.

        Returns:
            `(H, W)` or `(H, W, 3)` RGB uint8.

        Raises:
            FrameError: No frame within the limit, or the file is unreadable.
        """
        return read_frame(self.hit(role, number).path)

    def hit(self, role: str, number: int) -> FrameHit:
        """Finds the file of a frame without reading it; a substitution is recorded under `role`."""
        try:
            hit = self.index.nearest(number + self.shift, self.limit)
        except FrameError as error:
            raise FrameError(f"{self.sample.sample_id}: {role} frame {number}: {error}") from error
        if hit.distance:
            self.substituted[role] = hit.number - self.shift - number
        return hit

    def numbers(self) -> list[int]:
        """Returns the existing file numbers from onset to offset, ascending.

        Raises:
            FrameError: Fewer than two frames exist in the interval.
        """
        first, last = self.sample.onset + self.shift, self.sample.offset + self.shift
        if UNKNOWN_FRAME in (self.sample.onset, self.sample.offset):
            inside = list(self.index.numbers)
        else:
            inside = [number for number in self.index.numbers if first <= number <= last]
        if len(inside) < 2:
            raise FrameError(
                f"{self.sample.sample_id}: {len(inside)} frame(s) exist from onset {first} to offset {last} "
                f"in {self.folder}, expected at least 2. Check that the release is complete."
            )
        return inside

    def read_onset(self) -> np.ndarray:
        """Reads the onset, or the first frame of a clip whose onset no sheet gives.

        Raises:
            FrameError: No frame within the limit, or the file is unreadable.
        """
        known = self.sample.onset != UNKNOWN_FRAME
        return self.read("onset", self.sample.onset if known else self.index.numbers[0] - self.shift)

    def read_exact(self, file_number: int) -> np.ndarray:
        """Reads the file of exactly this number.

        Raises:
            FrameError: There is no such file, or it is unreadable.
        """
        return read_frame(self.index.path(file_number))

    def spread(self, count: int) -> list[int]:
        """Returns file numbers spread evenly from onset to offset; a short clip repeats its neighbours.

        Args:
            count: How many.

        Returns:
            `count` existing file numbers, ascending.
        """
        inside = self.numbers()
        return [inside[round(position)] for position in np.linspace(0, len(inside) - 1, count)]
