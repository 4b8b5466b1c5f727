"""What a synthetic tree knows of itself: the true movement of every clip, beside its sheet and frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mer_flow.work.errors import LayoutError

TRUTH_FILE = "mer-flow-truth.h5"

_TEXT = ("sample_id", "emotion", "movement")
_NUMBERS = ("onset", "apex", "offset")
_NONE = np.empty(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class TruthSample:
    """The truth of one clip.

    A point of the face at `x` on the onset lies at `head · [x + displacement(x), 1]` on the apex.

    Attributes:
        sample_id: As the database's reader names it.
        onset: True file number of the onset.
        apex: True file number of the apex.
        offset: True file number of the offset.
        displacement: `(2, H, W)` float32, facial movement from onset to apex in image px (+x right, +y down).
        head: `(2, 3)` float64, rigid motion of the head from onset to apex, image px.
        amplitude: Length of the longest displacement, px.
        emotion: The database's own word, lower case.
        movement: Action units that move.
        landmarks: `(68, 2)` float64, dlib's points on the onset, image px; known, not detected.
    """

    sample_id: str
    onset: int
    apex: int
    offset: int
    displacement: np.ndarray
    head: np.ndarray
    amplitude: float
    emotion: str
    movement: str
    landmarks: np.ndarray


class Truth(Mapping[str, TruthSample]):
    """The truth of one tree, by sample id; displacements are read when asked for.

    Args:
        path: The truth file.

    Raises:
        LayoutError: There is no such file, or it is not a truth file.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise LayoutError(
                f"{self.path.parent} has no {TRUTH_FILE}: it is no synthetic tree, or an unfinished one. "
                "Make one with: mer-flow demo --trees-only --out DIR"
            )
        try:
            with h5py.File(self.path, "r") as file:
                self.parameters: dict[str, Any] = json.loads(file.attrs["parameters"])
                self.quirks: dict[str, list[str]] = json.loads(file.attrs["quirks"])
                self._columns = {name: file[name].asstr()[:] for name in _TEXT}
                self._columns |= {
                    name: file[name][:] for name in (*_NUMBERS, "amplitude", "head", "landmarks")
                }
        except (OSError, KeyError, ValueError) as error:
            raise LayoutError(
                f"{self.path} is damaged or no truth file ({error}); delete the tree and make it again"
            ) from error
        self._index = {str(name): i for i, name in enumerate(self._columns["sample_id"])}

    def __getitem__(self, sample_id: str) -> TruthSample:
        i = self._index[sample_id]
        with h5py.File(self.path, "r") as file:
            displacement = file["displacement"][i]
        columns = self._columns
        return TruthSample(
            sample_id=sample_id,
            onset=int(columns["onset"][i]),
            apex=int(columns["apex"][i]),
            offset=int(columns["offset"][i]),
            displacement=displacement,
            head=columns["head"][i],
            amplitude=float(columns["amplitude"][i]),
            emotion=str(columns["emotion"][i]),
            movement=str(columns["movement"][i]),
            landmarks=columns["landmarks"][i],
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def apexes(self) -> dict[str, int]:
        """Returns the true file number of every apex, without reading any displacement."""
        return {name: int(self._columns["apex"][i]) for name, i in self._index.items()}


def load_truth(root: Path) -> Truth:
    """Opens the truth of a synthetic tree.

    Args:
        root: The tree's root.

    Returns:
        A mapping from sample id to `TruthSample`.

    Raises:
        LayoutError: The tree has no truth, or it is damaged.
    """
    return Truth(Path(root) / TRUTH_FILE)


def write_truth(
    path: Path,
    samples: Iterable[TruthSample],
    count: int,
    size: tuple[int, int],
    parameters: Mapping[str, Any],
    quirks: Mapping[str, Iterable[str]],
) -> None:
    """Writes a truth file, one sample at a time.

    Args:
        path: Where to write.
        samples: The truth, consumed in order.
        count: Number of samples.
        size: Width and height of the frames in px.
        parameters: What the tree was made with.
        quirks: Oddity -> sample ids.
    """
    width, height = size
    rows = []
    with h5py.File(path, "w") as file:
        file.attrs["parameters"] = json.dumps(dict(parameters), sort_keys=True)
        file.attrs["quirks"] = json.dumps({name: list(ids) for name, ids in quirks.items()}, sort_keys=True)
        fields = file.create_dataset(
            "displacement",
            (count, 2, height, width),
            np.float32,
            chunks=(1, 2, height, width),
            compression="gzip",
            compression_opts=4,
            shuffle=True,
        )
        for i, sample in enumerate(samples):
            fields[i] = sample.displacement
            rows.append(replace(sample, displacement=_NONE))
        for name in _TEXT:
            file.create_dataset(name, data=[getattr(row, name) for row in rows], dtype=h5py.string_dtype())
        for name in _NUMBERS:
            file.create_dataset(name, data=np.array([getattr(row, name) for row in rows], dtype=np.int64))
        for name in ("amplitude", "head", "landmarks"):
            file.create_dataset(name, data=np.array([getattr(row, name) for row in rows], dtype=np.float64))
