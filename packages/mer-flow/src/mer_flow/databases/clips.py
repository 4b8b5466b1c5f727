"""Which frames of a sample are read: the sheet's numbers matched to the files that exist."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mer_flow.databases.frames import FrameHit, FrameIndex, read_frame
from mer_flow.databases.layout import ClipLocator
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.work.cluster import dask_executor
from mer_flow.work.errors import FrameError
from mer_flow.work.executor import LocalProcesses
from mer_flow.work.libraries import CV2_PROVIDERS, DLIB_PROVIDERS
from mer_flow.work.where import Needs, Where

if TYPE_CHECKING:
    import numpy as np


#: What a worker's clips depend on, in the versions of the driver.
PACKAGES = ("mer-flow", "torch", "numpy", "pillow", "mediapipe", *CV2_PROVIDERS, *DLIB_PROVIDERS)


@dataclass(frozen=True, slots=True)
class Clips:
    """A database's clips, and where they are worked on."""

    root: Path
    where: Where

    def executor(self, workers: int) -> AbstractContextManager[Executor]:
        """Open processes here, or a cluster whose workers all see the clips."""
        if self.where.on_dask:
            return dask_executor(self.where, Needs.of(PACKAGES, self.root), workers)
        return LocalProcesses(workers)


@dataclass(frozen=True, slots=True)
class ClipTask:
    """One sample to work on, as a worker process needs it.

    Attributes:
        folder: The sample's frame folder; None where the tree has none.
        cropped: Whether the release's frames are face crops already.
    """

    sample: Sample
    folder: Path | None
    cropped: bool

    @classmethod
    def of(cls, locator: ClipLocator, sample: Sample) -> ClipTask:
        """Ask a locator where a sample's frames lie."""
        return cls(sample, locator.folder(sample), locator.frames_are_cropped)

    def open(self, nearest_limit: int) -> ClipFrames:
        """Open the clip's frames; a substitute for a missing one may lie so many frames away.

        Raises:
            FrameError: The tree has no folder for the clip, or the folder holds no frame.
        """
        if self.folder is None:
            raise FrameError(
                f"{self.sample.sample_id}: the tree has no folder for this clip; "
                "`mer-flow doctor` lists all that are missing"
            )
        return ClipFrames(self.sample, self.folder, nearest_limit)


@dataclass
class ClipFrames:
    """The frames of one sample's clip.

    Attributes:
        limit: How many frames away a substitute for a missing frame may lie.
        substituted: Role -> distance in frames of what stood in for it.
    """

    sample: Sample
    folder: Path
    limit: int
    substituted: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = FrameIndex.scan(self.folder)

    def hit(self, role: str, number: int) -> FrameHit:
        """Find the file of a frame, or its nearest neighbour within the limit.

        Args:
            role: `onset`, `apex` or `offset`; a substitution is recorded under it.
            number: The frame's number.

        Raises:
            FrameError: No frame within the limit.
        """
        try:
            hit = self.index.nearest(number, self.limit)
        except FrameError as error:
            raise FrameError(f"{self.sample.sample_id}: {role} frame {number}: {error}") from error
        if hit.distance:
            self.substituted[role] = hit.number - number
        return hit

    def read(self, role: str, number: int) -> np.ndarray:
        """Read what `hit` finds: `(H, W)` or `(H, W, 3)` RGB uint8."""
        return read_frame(self.hit(role, number).path)

    def read_onset(self) -> np.ndarray:
        """Read the onset, or the first frame of a clip whose onset no sheet gives."""
        known = self.sample.onset != UNKNOWN_FRAME
        return self.read("onset", self.sample.onset if known else self.index.numbers[0])

    def read_exact(self, number: int) -> np.ndarray:
        """Read the file of exactly this number."""
        return read_frame(self.index.path(number))

    def numbers(self) -> tuple[int, ...]:
        """Return the existing frame numbers from onset to offset, ascending.

        Raises:
            FrameError: Fewer than two frames exist in the interval.
        """
        first, last = self.sample.onset, self.sample.offset
        unknown = UNKNOWN_FRAME in (first, last)
        inside = self.index.numbers if unknown else self.index.between(first, last)
        if len(inside) < 2:
            raise FrameError(
                f"{self.sample.sample_id}: {len(inside)} frame(s) exist from onset {first} to offset {last} "
                f"in {self.folder}, expected at least 2. Check that the release is complete."
            )
        return inside

    def others(self, count: int = 4) -> Iterator[np.ndarray]:
        """Read up to `count` frames spread over the clip behind its onset, one when it is asked for.

        Ends before the first that is unreadable, at once where the clip has no frames but one.
        """
        with suppress(FrameError):
            for number in dict.fromkeys(self.spread(count + 1)[1:]):
                yield self.read_exact(number)

    def spread(self, count: int) -> list[int]:
        """Return `count` existing frame numbers spread evenly from onset to offset, ascending.

        A short clip repeats its neighbours.
        """
        import numpy as np

        inside = self.numbers()
        return [inside[round(position)] for position in np.linspace(0, len(inside) - 1, count)]
