"""The store's schema: names, shapes, filters, digests and the order of everything, in one place."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import h5py
import numpy as np

from mer_flow.samples import COLUMNS, INT_COLUMNS, Sample
from mer_flow.work.errors import StoreError

#: Raised whenever a reader of the former version could misread a store.
SCHEMA_VERSION = 1

#: Default gzip level. On smooth flow level 4 is 4 % smaller than 1 at nearly its speed; 9 takes four times as
#: long for 2 %.
GZIP_LEVEL = 4

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

#: The build flag that provides an ingredient.
PROVIDED_BY = {
    "flow": "`mer-flow build`",
    "faces": "`mer-flow build ... --keep-faces`",
    "clips": "`mer-flow build ... --keep-clips K`",
    "flow_sequence": "`mer-flow build ... --keep-flow-sequence consecutive` (or `onset`)",
    "landmarks": "`mer-flow build` from the database's frames",
    "regions": "`mer-flow build` from the database's frames",
    "alignment": "`mer-flow build` from the database's frames",
}

#: Order of the five region centres. Left and right are the subject's own: the subject's left eye lies on the
#: image's right.
REGIONS = ("left eye", "right eye", "nose", "left lip corner", "right lip corner")

VALUES = ("px", "minmax-255")
KINDS = ("computed", "imported")


@dataclass(frozen=True, slots=True)
class MapKind:
    """What the maps of a store are.

    Attributes:
        kind: `computed` from frames, or `imported` as others published them.
        map_size: Side S of a map in pixels.
        values: `px` (u, v in pixels of the map, strain dimensionless) or `minmax-255` (each channel min-max
            scaled to 0–255).
    """

    kind: str
    map_size: int
    values: str

    @classmethod
    def of(cls, pipeline: Mapping[str, Any]) -> MapKind:
        """Reads the kind from a pipeline description.

        Raises:
            StoreError: `map_kind` is missing or invalid.
        """
        raw = pipeline.get("map_kind")
        if not isinstance(raw, Mapping) or set(raw) != {"kind", "map_size", "values"}:
            raise StoreError(f"pipeline['map_kind'] must be {{'kind', 'map_size', 'values'}}, got {raw!r}")
        kind = cls(str(raw["kind"]), int(raw["map_size"]), str(raw["values"]))
        if kind.kind not in KINDS or kind.values not in VALUES or kind.map_size < 4:
            raise StoreError(
                f"pipeline['map_kind'] is {raw!r}; expected kind in {KINDS}, "
                f"values in {VALUES}, map_size of at least 4"
            )
        return kind


def provided_by(ingredients: Iterable[str]) -> str:
    """Returns the one build command that provides several ingredients.

    >>> provided_by(["clips", "faces"])
    '`mer-flow build ... --keep-clips K --keep-faces`'
    """
    commands = [PROVIDED_BY[what] for what in ingredients]
    flags = [command.partition(" ... ")[2].rstrip("`") for command in commands]
    if any(flags):
        return f"`mer-flow build ... {' '.join(flag for flag in flags if flag)}`"
    return commands[-1]


def canonical_json(value: Any) -> str:
    """Returns JSON with sorted keys and no spare space, so that equal content gives equal text.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def pipeline_hash(pipeline: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a pipeline's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(pipeline).encode()).hexdigest()


def differing_keys(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Compares two pipelines key by key.

    Args:
        stored: Nested parameters of the store.
        asked: Nested parameters of the request.

    Returns:
        `(dotted key, stored value, asked value)` of every difference, sorted; an absent value is the text
        `absent`.

    >>> differing_keys({"flow": {"tau": 0.25, "warps": 5}}, {"flow": {"tau": 0.25, "warps": 3}})
    [('flow.warps', 5, 3)]
    """
    left, right = dict(_flat(stored)), dict(_flat(asked))
    keys = sorted(left.keys() | right.keys())
    both = [(key, left.get(key, "absent"), right.get(key, "absent")) for key in keys]
    return [(key, a, b) for key, a, b in both if canonical_json(a) != canonical_json(b)]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def sample_order(sample_id: str) -> tuple[Any, ...]:
    """Returns the sort key of samples within a database: text compared as text, numbers as numbers.

    The order does not depend on the order of commits, so equal content gives equal files.

    >>> sorted(["casme3/spNO.10/a_5", "casme3/spNO.9/a_28", "casme3/spNO.9/a_5"], key=sample_order)
    ['casme3/spNO.9/a_5', 'casme3/spNO.9/a_28', 'casme3/spNO.10/a_5']
    """
    parts = re.split(r"(\d+)", sample_id)
    return (*((int(part), part) if i % 2 else part for i, part in enumerate(parts)), sample_id)


def row_digest(sample: Sample) -> str:
    """Returns a short digest of a sheet row; a sample whose row changed is computed again."""
    return hashlib.sha256(canonical_json(asdict(sample)).encode()).hexdigest()[:16]


def content_digest(arrays: Mapping[str, np.ndarray | None]) -> str:
    """Returns the SHA-256 of one sample's arrays, names, dtypes and shapes included, in hex.

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


def text_array(values: Sequence[str]) -> np.ndarray:
    """Encodes text for a fixed-length UTF-8 dataset: a checksum covers it, variable-length text escapes one.

    Raises:
        StoreError: A value contains a NUL character.
    """
    encoded = [value.encode("utf-8") for value in values]
    if any(b"\0" in value for value in encoded):
        raise StoreError("text with a NUL character cannot be stored")
    width = max([1, *map(len, encoded)])
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))


def read_text(dataset: h5py.Dataset) -> list[str]:
    """Returns the values of a text dataset."""
    return [value.decode("utf-8") for value in dataset[()]]


def create_dataset(
    group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, chunk: tuple[int, ...], level: int
) -> h5py.Dataset:
    """Creates a chunked dataset with the store's filters: shuffle, gzip, Fletcher-32, no time stamps."""
    return group.create_dataset(
        name, shape, dtype, chunks=chunk, shuffle=True, compression="gzip", compression_opts=level,
        fletcher32=True, track_times=False,
    )  # fmt: skip


def write_column(group: h5py.Group, name: str, values: np.ndarray, level: int) -> None:
    """Writes a whole small array as one checked chunk."""
    if values.size == 0:  # an empty dataset has no chunks
        group.create_dataset(name, values.shape, values.dtype, track_times=False)
        return
    create_dataset(group, name, values.shape, values.dtype, values.shape, level)[...] = values


def create_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Creates a group without time stamps (the file must not depend on when it was written)."""
    properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    properties.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(parent.id, name.encode(), gcpl=properties))


def write_samples(group: h5py.Group, samples: Sequence[Sample], level: int) -> None:
    """Writes the sample table, one dataset per column."""
    for name in COLUMNS:
        column = [getattr(sample, name) for sample in samples]
        if name in INT_COLUMNS:
            values = np.array(column, dtype=np.int64)
        elif name == "fps":
            values = np.array(column, dtype=np.float64)
        else:
            values = text_array(column)
        write_column(group, name, values, level)


def read_samples(group: h5py.Group) -> list[Sample]:
    """Reads the sample table back.

    Raises:
        StoreError: A column is missing, or the columns differ in length.
    """
    missing = [name for name in COLUMNS if name not in group]
    if missing:
        raise StoreError(
            f"{group.name}: columns {missing} are missing. Run `mer-flow verify`, then rebuild the store."
        )
    columns: dict[str, list[Any]] = {}
    for name in COLUMNS:
        dataset = group[name]
        columns[name] = dataset[()].tolist() if name in INT_COLUMNS or name == "fps" else read_text(dataset)
    if len({len(values) for values in columns.values()}) > 1:
        lengths = {name: len(values) for name, values in columns.items()}
        raise StoreError(f"{group.name}: columns differ in length: {lengths}. Rebuild the store.")
    return [Sample(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
