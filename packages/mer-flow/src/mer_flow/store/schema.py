"""The store's schema: names, shapes, filters, digests and the order of everything, in one place."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import h5py
import numpy as np
from pydantic import Field

from mer_flow.samples import Sample
from mer_flow.work.errors import StoreError, StoreMismatchError
from mer_flow.work.settings import Settings

#: Raised whenever a reader of the former version could misread a store.
SCHEMA_VERSION = 1

#: Arrays too large for one chunk: one chunk per sample, copied as it is when a store is assembled.
CHUNKED = ("flow", "faces", "clips", "flow_sequence")

#: Small arrays per sample, kept in one chunk per database: name -> (shape of one sample, dtype).
SMALL: dict[str, tuple[tuple[int, ...], str]] = {
    "landmarks": ((68, 2), "float32"),
    "regions": ((5, 2), "float32"),
    "alignment": ((2, 3), "float64"),
}

#: Everything a sample can carry, in the order of the file.
INGREDIENTS = (*CHUNKED, *SMALL)

#: Text columns beside the sample table, in the order of the file.
TEXTS = ("notes", "row_digest", "content_digest")

#: The flag of `mer-flow build` that keeps an ingredient; the others are always kept.
KEPT_BY = {
    "faces": "--keep-faces",
    "clips": "--keep-clips K",
    "flow_sequence": "--keep-flow-sequence consecutive",
}

#: Versions that decide the maps, and what of them does: a flow backend's major number, and of a face mesh not
#: MediaPipe's release but the model's digest. The others are recorded and warned of.
DECIDING = {
    "flow_backend": (r"\b(\d+)\.\d[\w.+]*", r"\1"),
    "region_backend": (r"^mediapipe [^ ,]+", "mediapipe"),
}

#: Differing parameters that a message lists.
SHOWN = 12

#: Order of the five region centres. Left and right are the subject's own: the subject's left eye lies on the
#: image's right.
REGIONS = ("left eye", "right eye", "nose", "left lip corner", "right lip corner")


class MapKind(Settings):
    """What the maps of a store are.

    Attributes:
        kind: `computed` from frames, or `imported` as others published them.
        map_size: Side S of a map in pixels.
        values: `px` (u, v in pixels of the map, strain dimensionless) or `minmax-255` (each channel min-max
            scaled to 0–255).
    """

    where = "map_kind"
    error = StoreError

    kind: Literal["computed", "imported"]
    map_size: int = Field(ge=4)
    values: Literal["px", "minmax-255"]

    @classmethod
    def of(cls, pipeline: Mapping[str, Any]) -> MapKind:
        """Read the kind from a pipeline description."""
        message = "pipeline['map_kind'] must hold kind, map_size and values: {}"
        with explained(message, KeyError, TypeError):
            return cls(**pipeline["map_kind"])


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that has no flow, and why.

    Attributes:
        sample_id: The sample.
        stage: Where it failed: `frames`, `face`, `flow` ...
        reason: The message, with its remedy.
        row_digest: Digest of the sheet row it was tried with; a changed row is tried again.
    """

    sample_id: str
    stage: str
    reason: str
    row_digest: str


_Row = TypeVar("_Row", Sample, Failure)


@contextmanager
def explained(message: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn exceptions of some kinds into a StoreError; `{}` in the message stands for what they say."""
    try:
        yield
    except kinds as error:
        said = " ".join(str(error).split())  # HDF5 tells of a disk that cannot be read in several lines
        raise StoreError(message.replace("{}", said)) from error


def parts_folder(store: Path) -> Path:
    """Return where a build commits samples, one file each, until the store is assembled from them."""
    return store.with_name(store.name + ".parts")


def provided_by(ingredients: Iterable[str]) -> str:
    """Return the one build command that provides several ingredients.

    >>> provided_by(["clips", "faces"])
    '`mer-flow build ... --keep-clips K --keep-faces`'
    """
    flags = " ".join(KEPT_BY[what] for what in ingredients if what in KEPT_BY)
    return f"`mer-flow build ... {flags}`" if flags else "`mer-flow build` from the database's frames"


def misfit(name: str, shape: tuple[int, ...], dtype: str, side: int) -> str:
    """Say what an ingredient of one sample must be where it is not; empty where it fits maps of a side, px.

    >>> misfit("regions", (4, 2), "float32", 224)
    'float32 (5, 2)'
    """
    if name in SMALL:
        return "" if (shape, dtype) == SMALL[name] else f"{SMALL[name][1]} {SMALL[name][0]}"
    pictures = shape[1:] in ((side, side), (side, side, 3))
    fits, expected = {
        "flow": (shape == (3, side, side), f"(3, {side}, {side})"),
        "flow_sequence": (
            len(shape) == 4 and shape[1] == 2 and shape[2] == shape[3] <= side,
            f"(K - 1, 2, S, S), S at most {side}",
        ),
        "faces": (pictures and shape[0] == 2, f"(2, {side}, {side}[, 3])"),
        "clips": (pictures and shape[0] > 0, f"(K, {side}, {side}[, 3])"),
    }[name]
    dtypes = ("float16", "float32") if name.startswith("flow") else ("uint8",)
    return "" if fits and dtype in dtypes else f"{' or '.join(dtypes)} {expected}"


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spare space, so that equal content gives equal text.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def pipeline_hash(pipeline: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a pipeline's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(pipeline).encode()).hexdigest()


def differing_keys(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return `(dotted key, stored value, asked value)` of every difference, sorted; `absent` for no value.

    >>> differing_keys({"flow": {"tau": 0.25, "warps": 5}}, {"flow": {"tau": 0.25, "warps": 3}})
    [('flow.warps', 5, 3)]
    """
    left, right = dict(_flat(stored)), dict(_flat(asked))
    both = [(key, left.get(key, "absent"), right.get(key, "absent")) for key in sorted(left | right)]
    return [(key, a, b) for key, a, b in both if canonical_json(a) != canonical_json(b)]


def deciding(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a pipeline decides its maps: everything but the lesser versions.

    >>> deciding({"versions": {"flow_backend": "cv2 4.11.0", "region_backend": "dlib-68", "numpy": "2.1.0"}})
    {'versions': {'flow_backend': 'cv2 4', 'region_backend': 'dlib-68'}}
    """
    versions = pipeline.get("versions", {})
    kept = {name: re.sub(*how, versions[name]) for name, how in DECIDING.items() if name in versions}
    return {**pipeline, "versions": kept}


def refuse_other(stored: Mapping[str, Any], asked: Mapping[str, Any], where: str, remedy: str) -> None:
    """Refuse to mix flow of two pipelines in one store, naming every parameter that differs."""
    differing = differing_keys(deciding(stored), deciding(asked))
    if not differing:
        return
    kinds = [item.get("map_kind", {}).get("kind") for item in (stored, asked)]
    if kinds[0] != kinds[1]:
        raise StoreMismatchError(
            f"{where} holds {kinds[0]} maps, and {kinds[1]} ones are to be added. Imported and "
            f"computed maps are not mixed in one store: {remedy}."
        )
    listed = "; ".join(f"{key}: {old!r} there, {new!r} now" for key, old, new in differing[:SHOWN])
    if len(differing) > SHOWN:
        listed += f"; and {len(differing) - SHOWN} more"
    raise StoreMismatchError(
        f"{where} was made with other parameters ({len(differing)} differ): {listed}. Flow of "
        f"different parameters is not mixed in one store: ask for the same parameters, or {remedy}."
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def sample_order(sample_id: str) -> tuple[Any, ...]:
    """Return the sort key of samples within a database: text compared as text, numbers as numbers.

    >>> sorted(["casme3/spNO.10/a_5", "casme3/spNO.9/a_28", "casme3/spNO.9/a_5"], key=sample_order)
    ['casme3/spNO.9/a_5', 'casme3/spNO.9/a_28', 'casme3/spNO.10/a_5']
    """
    parts = re.split(r"(\d+)", sample_id)
    return (*((int(part), part) if i % 2 else part for i, part in enumerate(parts)), sample_id)


def row_digest(sample: Sample) -> str:
    """Return a short digest of a sheet row; a sample whose row changed is computed again."""
    return hashlib.sha256(canonical_json(asdict(sample)).encode()).hexdigest()[:16]


def content_digest(arrays: Mapping[str, np.ndarray | None]) -> str:
    """Return the SHA-256 of one sample's arrays, names, dtypes and shapes included, in hex.

    Args:
        arrays: Ingredient name -> array of one sample in its stored dtype; None or NaN throughout where
            absent.
    """
    digest = hashlib.sha256()
    for name in INGREDIENTS:
        array = arrays.get(name)
        if array is None or (name in SMALL and bool(np.isnan(array).all())):
            continue
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def create_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Create a group without time stamps: the file must not depend on when it was written."""
    properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    properties.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(parent.id, name.encode(), gcpl=properties))


def create_dataset(
    group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, chunk: tuple[int, ...], level: int
) -> h5py.Dataset:
    """Create a chunked dataset with the store's filters: shuffle, gzip, Fletcher-32, no time stamps."""
    return group.create_dataset(
        name, shape, dtype, chunks=chunk, shuffle=True, compression="gzip", compression_opts=level,
        fletcher32=True, track_times=False,
    )  # fmt: skip


def write_attribute(file: h5py.File, name: str, text: str) -> None:
    """Write a text as a root attribute, of fixed length: it lies in the checksummed header of the object.

    Text of variable length lies in HDF5's global heap, where one flipped bit can make a reader loop.
    """
    content = text.encode()
    file.attrs.create(name, content, dtype=h5py.string_dtype("utf-8", len(content)))


def write_column(group: h5py.Group, name: str, values: np.ndarray | Sequence[str], level: int) -> None:
    """Write a small array, or text, as one checked chunk; variable-length text would escape the checksum."""
    if not isinstance(values, np.ndarray):
        encoded = [value.encode("utf-8") for value in values]
        if any(b"\0" in value for value in encoded):
            raise StoreError("text with a NUL character cannot be stored")
        values = np.array(encoded, dtype=h5py.string_dtype("utf-8", max([1, *map(len, encoded)])))
    if values.size == 0:  # an empty dataset has no chunks
        group.create_dataset(name, values.shape, values.dtype, track_times=False)
    else:
        create_dataset(group, name, values.shape, values.dtype, values.shape, level)[...] = values


def write_table(group: h5py.Group, kind: type[Sample | Failure], rows: Sequence[Any], level: int) -> None:
    """Write rows of one kind, one dataset per field."""
    dtypes = {"int": np.int64, "float": np.float64}
    for column in fields(kind):
        values = [getattr(row, column.name) for row in rows]
        dtype = dtypes.get(str(column.type))
        write_column(group, column.name, values if dtype is None else np.array(values, dtype), level)


def read_text(dataset: h5py.Dataset) -> list[str]:
    """Return the values of a text dataset."""
    return [value.decode("utf-8") for value in dataset[()]]


def read_table(group: h5py.Group, kind: type[_Row]) -> list[_Row]:
    """Read rows of one kind, the inverse of `write_table`."""
    names = [column.name for column in fields(kind)]
    missing = [name for name in names if name not in group]
    if missing:
        raise StoreError(f"{group.name}: columns {missing} are missing. Rebuild the store.")
    datasets = [group[name] for name in names]
    columns = [data[()].tolist() if data.dtype.kind in "if" else read_text(data) for data in datasets]
    lengths = dict(zip(names, map(len, columns), strict=True))
    if len(set(lengths.values())) > 1:
        raise StoreError(f"{group.name}: columns differ in length: {lengths}. Rebuild the store.")
    return [kind(*row) for row in zip(*columns, strict=True)]
