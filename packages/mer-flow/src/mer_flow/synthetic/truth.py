"""What a synthetic tree knows of itself: the true movement of every clip, beside its sheet and frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mer_flow.synthetic.casting import Clip, Plan
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
        onset: True file number, as apex and offset.
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

    @classmethod
    def of(cls, clip: Clip, displacement: np.ndarray, head: np.ndarray, landmarks: np.ndarray) -> TruthSample:
        """Return the truth of a planned clip."""
        role, frames = clip.role, (clip.onset, clip.apex, clip.offset)
        shown = (role.amplitude, role.emotion, role.movement)
        return cls(clip.sample_id, *frames, displacement, head, *shown, landmarks)


class Truth(Mapping[str, TruthSample]):
    """The truth of one tree, by sample id; displacements are read when asked for.

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
                columns = {name: file[name].asstr()[:].tolist() for name in _TEXT}
                columns |= {name: file[name][:].tolist() for name in (*_NUMBERS, "amplitude")}
                columns |= {name: list(file[name][:]) for name in ("head", "landmarks")}
        except (OSError, KeyError, ValueError) as error:
            raise LayoutError(
                f"{self.path} is damaged or no truth file ({error}); delete the tree and make it again"
            ) from error
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        self._rows = {row["sample_id"]: TruthSample(**row, displacement=_NONE) for row in rows}
        self._index = {name: i for i, name in enumerate(self._rows)}

    def __getitem__(self, sample_id: str) -> TruthSample:
        with h5py.File(self.path, "r") as file:
            return replace(self._rows[sample_id], displacement=file["displacement"][self._index[sample_id]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def apexes(self) -> dict[str, int]:
        """Return the true file number of every apex, without reading any displacement."""
        return {name: row.apex for name, row in self._rows.items()}


def load_truth(root: Path) -> Truth:
    """Open the truth of a synthetic tree.

    Raises:
        LayoutError: The tree has no truth, or it is damaged.
    """
    return Truth(Path(root) / TRUTH_FILE)


def write_truth(
    path: Path, samples: Iterable[TruthSample], plan: Plan, parameters: Mapping[str, Any]
) -> None:
    """Write a truth file, one sample at a time.

    Args:
        path: Where to write.
        samples: The truth of the plan's clips, consumed in order.
        plan: The tree's.
        parameters: What the tree was made with.
    """
    width, height = plan.size
    rows = []
    with h5py.File(path, "w") as file:
        file.attrs["parameters"] = json.dumps(dict(parameters), sort_keys=True)
        file.attrs["quirks"] = json.dumps(dict(plan.quirks), sort_keys=True)
        shape, packed = (2, height, width), {"compression": "gzip", "compression_opts": 4, "shuffle": True}
        fields = file.create_dataset(
            "displacement", (len(plan.clips), *shape), np.float32, chunks=(1, *shape), **packed
        )
        for i, sample in enumerate(samples):
            fields[i] = sample.displacement
            rows.append(replace(sample, displacement=_NONE))
        for name in _TEXT:
            file.create_dataset(name, data=[getattr(row, name) for row in rows], dtype=h5py.string_dtype())
        for name in (*_NUMBERS, "amplitude", "head", "landmarks"):
            dtype = np.int64 if name in _NUMBERS else np.float64
            file.create_dataset(name, data=np.array([getattr(row, name) for row in rows], dtype=dtype))
