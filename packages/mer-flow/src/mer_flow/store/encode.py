"""One sample as bytes: what a worker hands to the writer, and what lies in a file of the parts folder.

The first line is JSON, the *head*; an HDF5 image of the arrays follows, filtered as in a store.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import h5py
import numpy as np
from pydantic import Field

from mer_flow.samples import Sample
from mer_flow.store import guard, schema
from mer_flow.store.schema import CHUNKED, SMALL, explained
from mer_flow.work.errors import StoreError
from mer_flow.work.settings import Settings

#: Both ends of the HDF5 format that a store uses: fixed, or the bytes would depend on the library's default.
LIBVER = ("v110", "v110")


class EncodeOptions(Settings):
    """How records are encoded.

    Attributes:
        dtype: Of the flow. `float16` keeps 1 px to 0.0005 px, far below the error of the flow itself.
        compression: gzip level. On smooth flow 4 is 4 % smaller than 1 at nearly its speed; 9 takes four
            times as long for 2 %.
    """

    what = "encode option"
    error = StoreError

    dtype: Literal["float16", "float32"] = "float16"
    compression: int = Field(default=4, ge=0, le=9)


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """Everything a store keeps of one sample.

    Attributes:
        sample: Its row; the apex is the one that was used.
        flow: `(3, S, S)` float, u, v in px of the aligned face (+x right, +y down), strain.
        landmarks: `(68, 2)` x, y in px on the aligned apex; None where there are none.
        regions: `(5, 2)` x, y in px, ordered as `mer_flow.store.schema.REGIONS`; None where there are none.
        alignment: `(2, 3)` similarity from image to aligned face; None where there is none.
        faces: `(2, S, S[, 3])` uint8, aligned onset and apex; None unless kept.
        clips: `(K, S, S[, 3])` uint8, K aligned frames in time order; None unless kept.
        notes: What was decided for this sample, JSON-able; `fallbacks` lists the names of the fallbacks it
            needed.
        flow_sequence: `(K - 1, 2, S', S')` float, u, v in px of this smaller map, between frames of the clip;
            None unless kept.
    """

    sample: Sample
    flow: np.ndarray
    landmarks: np.ndarray | None = None
    regions: np.ndarray | None = None
    alignment: np.ndarray | None = None
    faces: np.ndarray | None = None
    clips: np.ndarray | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    flow_sequence: np.ndarray | None = None


def encode_sample(record: SampleRecord, options: EncodeOptions | None = None) -> bytes:
    """Pack a record for `StoreWriter.commit`, which then never compresses; equal records give equal bytes.

    Raises:
        StoreError: An array has a wrong shape or dtype, or holds values that are not finite.
    """
    options = options or EncodeOptions()
    sample_id = record.sample.sample_id
    if any("\0" in value for value in asdict(record.sample).values() if isinstance(value, str)):
        raise StoreError(f"{sample_id!r}: a text of its row holds a NUL character")
    with explained(f"{sample_id}: notes are not JSON: {{}}", TypeError, ValueError):
        notes = schema.canonical_json(record.notes)
    given = {name: getattr(record, name) for name in schema.INGREDIENTS}
    arrays = {n: _stored(sample_id, n, np.asarray(a), options) for n, a in given.items() if a is not None}
    side = arrays["flow"].shape[-1]
    for name, array in arrays.items():
        if expected := schema.misfit(name, array.shape, str(array.dtype), side):
            raise StoreError(f"{sample_id}: {name} is {array.dtype} {array.shape}, expected {expected}")
    with h5py.File("payload", "w", driver="core", backing_store=False, libver=LIBVER) as image:
        for name, array in arrays.items():
            shape = (1, *array.shape)
            if name in CHUNKED:
                schema.create_dataset(image, name, shape, array.dtype, shape, options.compression)[0] = array
            else:
                image.create_dataset(name, data=array[None], track_times=False)
        types = chunked_types(image)
        image.flush()
        content = image.id.get_file_image()
    digest = schema.content_digest(arrays)
    head = {"sample": asdict(record.sample), "notes": notes, "content_digest": digest, "types": types}
    return with_head(head, content)


def _stored(sample_id: str, name: str, array: np.ndarray, options: EncodeOptions) -> np.ndarray:
    """Return an array in its stored dtype, which pictures have already."""
    dtype = options.dtype if name.startswith("flow") else SMALL[name][1] if name in SMALL else array.dtype
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, dtype)
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        bad = int((~np.isfinite(stored)).sum())
        raise StoreError(f"{sample_id}: {bad} {name} value(s) are not finite as {dtype}")
    return stored


def chunked_types(group: h5py.Group) -> dict[str, str]:
    """Return dtype and shape of one sample's large arrays, as in `{"flow": "float16 (3, 224, 224)"}`."""
    present = {name: group[name] for name in CHUNKED if name in group}
    return {name: f"{dataset.dtype} {dataset.shape[1:]}" for name, dataset in present.items()}


def with_head(head: Mapping[str, Any], image: bytes = b"") -> bytes:
    """Join a head and an image; the head of a failure stands alone."""
    return schema.canonical_json(head).encode() + b"\n" + image


def read_head(stream: BinaryIO) -> dict[str, Any]:
    """Read the head of a payload or part, or raise ValueError; its image is what is left of the stream."""
    head = json.loads(stream.readline())
    if not isinstance(head, dict):
        raise ValueError(f"the head is {head!r}")
    return head


def part_heads(store: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every file of a store's parts folder with its head: a sample's has the key `sample`."""
    for path in sorted(schema.parts_folder(store).glob("*/*.part")):
        with _damaged(path), path.open("rb") as stream:
            head = read_head(stream)
        yield path, head


def open_part(path: Path) -> h5py.File:
    """Open the arrays of a part: ingredient -> `(1, ...)`."""
    with _damaged(path), path.open("rb") as stream:
        read_head(stream)
        image = h5py.File(io.BytesIO(stream.read()), "r")
        for name in image:
            guard.check_array(image, name)
        return image


def _damaged(path: Path) -> AbstractContextManager[None]:
    remedy = "Delete it; the same command computes that sample again."
    return explained(f"{path} is damaged ({{}}). {remedy}", OSError, ValueError, StoreError, RecursionError)
