"""One sample as a worker hands it over: arrays checked, filtered and packed into a small HDF5 image."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import h5py
import numpy as np

from mer_flow.samples import Sample
from mer_flow.store.schema import CHUNKED, GZIP_LEVEL, SMALL, canonical_json, content_digest, create_dataset
from mer_flow.work.errors import StoreError

#: Both ends of the HDF5 format that a store uses: fixed, or the bytes would depend on the library's default.
LIBVER = ("v110", "v110")


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How records are encoded.

    Attributes:
        dtype: Of the flow. `float16` keeps 1 px to 0.0005 px, far below the error of the flow itself.
        compression: gzip level, 0 to 9.
    """

    dtype: Literal["float16", "float32"] = "float16"
    compression: int = GZIP_LEVEL

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise StoreError(f"flow dtype '{self.dtype}' is not supported; use float16 or float32")
        if not 0 <= self.compression <= 9:
            raise StoreError(f"gzip level {self.compression} is not in 0 to 9")


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


@dataclass(frozen=True, slots=True)
class PayloadHead:
    """What a payload holds, without its large arrays.

    Attributes:
        sample: The row.
        notes: Canonical JSON.
        content_digest: SHA-256 of the arrays.
        shapes: Chunked ingredient -> (shape of one sample, dtype).
        small: Small ingredient -> array; absent ones are left out.
    """

    sample: Sample
    notes: str
    content_digest: str
    shapes: dict[str, tuple[tuple[int, ...], str]]
    small: dict[str, np.ndarray]


def encode_sample(record: SampleRecord, options: EncodeOptions | None = None) -> bytes:
    """Packs a record into an HDF5 image whose chunks carry the store's filters already.

    Runs in workers: the writer then copies compressed chunks and never compresses.

    Args:
        record: The sample.
        options: Flow dtype and gzip level.

    Returns:
        The bytes to pass to `StoreWriter.commit`; equal records give equal bytes.

    Raises:
        StoreError: An array has a wrong shape or dtype, or holds values that are not finite.
    """
    options = options or EncodeOptions()
    arrays = _checked(record, options)
    try:
        notes = canonical_json(record.notes)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{record.sample.sample_id}: notes are not JSON: {error}") from error
    meta = {"sample": asdict(record.sample), "notes": notes, "content_digest": content_digest(arrays)}
    with h5py.File("record", "w", driver="core", backing_store=False, libver=LIBVER) as image:
        image.create_dataset(
            "meta", data=np.frombuffer(canonical_json(meta).encode(), np.uint8), track_times=False
        )
        for name in CHUNKED:
            if name in arrays:
                shape = (1, *arrays[name].shape)
                create_dataset(image, name, shape, arrays[name].dtype, shape, options.compression)[0] = (
                    arrays[name]
                )
        for name in SMALL:
            if name in arrays:
                image.create_dataset(name, data=arrays[name], track_times=False)
        image.flush()
        return image.id.get_file_image()


def open_payload(payload: bytes) -> h5py.File:
    """Opens a payload for reading.

    Raises:
        StoreError: The bytes are not a payload.
    """
    try:
        return h5py.File(io.BytesIO(payload), "r")
    except OSError as error:
        raise StoreError(f"not an encoded sample: {error}") from error


def read_head(image: h5py.File) -> PayloadHead:
    """Reads everything but the large arrays from an opened payload or part.

    Raises:
        StoreError: The file is not an encoded sample.
    """
    if "meta" not in image or "flow" not in image:
        raise StoreError(f"{image.filename}: not an encoded sample. Delete it; the sample is computed again.")
    meta = json.loads(image["meta"][()].tobytes())
    shapes = {
        name: (tuple(image[name].shape[1:]), str(image[name].dtype)) for name in CHUNKED if name in image
    }
    small = {name: image[name][()] for name in SMALL if name in image}
    return PayloadHead(Sample(**meta["sample"]), meta["notes"], meta["content_digest"], shapes, small)


def _checked(record: SampleRecord, options: EncodeOptions) -> dict[str, np.ndarray]:
    """Returns the record's arrays in their stored dtypes, or says which one is wrong."""
    name = record.sample.sample_id
    if any("\0" in value for value in asdict(record.sample).values() if isinstance(value, str)):
        raise StoreError(f"{name!r}: a text of its row holds a NUL character")
    flow = np.asarray(record.flow)
    if flow.ndim != 3 or flow.shape[0] != 3 or flow.shape[1] != flow.shape[2]:
        raise StoreError(f"{name}: flow has shape {flow.shape}, expected (3, S, S)")
    arrays = {"flow": _stored_flow(name, flow, options)}
    side = flow.shape[1]
    if record.flow_sequence is not None:
        sequence = np.asarray(record.flow_sequence)
        if sequence.ndim != 4 or sequence.shape[1] != 2 or sequence.shape[2] != sequence.shape[3]:
            raise StoreError(f"{name}: flow_sequence has shape {sequence.shape}, expected (K - 1, 2, S, S)")
        arrays["flow_sequence"] = _stored_flow(name, sequence, options)
    for key in ("faces", "clips"):
        array = getattr(record, key)
        if array is None:
            continue
        array = np.asarray(array)
        spatial = array.ndim in (3, 4) and array.shape[1:3] == (side, side) and array.shape[3:] in ((), (3,))
        if (
            not spatial
            or array.dtype != np.uint8
            or (key == "faces" and array.shape[0] != 2)
            or array.shape[0] == 0
        ):
            count = "2" if key == "faces" else "K"
            raise StoreError(
                f"{name}: {key} is {array.dtype} {array.shape}, "
                f"expected uint8 ({count}, {side}, {side}) or (..., 3)"
            )
        arrays[key] = np.ascontiguousarray(array)
    for key, (shape, dtype) in SMALL.items():
        array = getattr(record, key)
        if array is None:
            continue
        array = np.asarray(array, dtype=dtype)
        if array.shape != shape or not np.isfinite(array).all():
            raise StoreError(
                f"{name}: {key} has shape {array.shape} (expected {shape}) or values that are not finite"
            )
        arrays[key] = np.ascontiguousarray(array)
    return arrays


def _stored_flow(name: str, flow: np.ndarray, options: EncodeOptions) -> np.ndarray:
    """Returns flow in its stored dtype, or says that it does not fit."""
    with np.errstate(over="ignore"):
        stored = flow.astype(options.dtype)
    if not np.isfinite(stored).all():
        bad = int(np.size(stored) - np.isfinite(stored).sum())
        raise StoreError(
            f"{name}: {bad} flow value(s) are not finite as {options.dtype} (largest finite "
            f"{np.finfo(options.dtype).max})"
        )
    return np.ascontiguousarray(stored)
