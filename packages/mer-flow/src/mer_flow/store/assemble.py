"""The file of a store, assembled from committed parts and the present store in a fixed order.

Compressed chunks are copied as they are, so the bytes depend on the samples alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from mer_flow import __version__
from mer_flow.samples import Sample
from mer_flow.store import schema
from mer_flow.store.encode import LIBVER, open_part
from mer_flow.store.reader import FlowStore
from mer_flow.store.schema import CHUNKED, SMALL, Failure, canonical_json, create_group


@dataclass(frozen=True, slots=True)
class Held:
    """A committed sample, and where its arrays lie: in a part, or in a row of the present store."""

    place: Path | int
    types: dict[str, str]
    sample: Sample
    notes: str
    row_digest: str
    content_digest: str


Entries = dict[str, Held | Failure]
Kind = TypeVar("Kind", Held, Failure)


def assemble(
    path: Path,
    pipeline: Mapping[str, Any],
    builds: Sequence[Mapping[str, Any]],
    entries: Mapping[str, Entries],
    present: Path,
    level: int,
) -> None:
    """Write a store.

    Args:
        path: The new file.
        pipeline: Every parameter of the maps.
        builds: Versions of later builds that differ from the pipeline's.
        entries: What each database holds.
        present: The store that entries without a part lie in; it need not exist where there are none.
        level: gzip level of the small columns.
    """
    with ExitStack() as opened:
        old = opened.enter_context(FlowStore(present)) if present.exists() else None
        new = opened.enter_context(h5py.File(path, "w", libver=LIBVER))
        new.attrs["schema_version"] = schema.SCHEMA_VERSION
        schema.write_attribute(new, "created_with", f"mer-flow {__version__}")
        schema.write_attribute(new, "pipeline", canonical_json(pipeline))
        schema.write_attribute(new, "pipeline_hash", schema.pipeline_hash(pipeline))
        if builds:
            schema.write_attribute(new, "builds", canonical_json(builds))
        for database in sorted(name for name, held in entries.items() if held):
            group = create_group(new, database)
            stored = old.group(database) if old and database in old.databases else None
            _write_database(group, entries[database], stored, level)


def _write_database(group: h5py.Group, entries: Entries, present: h5py.Group | None, level: int) -> None:
    held = in_order(entries, Held)
    small = {name: np.full((len(held), *shape), np.nan, dtype) for name, (shape, dtype) in SMALL.items()}
    for row, (arrays, at) in enumerate(_arrays(held, present)):
        for name in CHUNKED:
            if name in arrays:
                _copy_chunk(arrays[name], at, group, row, len(held))
        for name in SMALL:
            if name in arrays:
                small[name][row] = arrays[name][at]
    samples = create_group(group, "samples")
    schema.write_table(samples, Sample, [item.sample for item in held], level)
    for name, array in small.items():
        if not np.isnan(array).all():
            schema.write_column(group, name, array, level)
    for name in schema.TEXTS:
        schema.write_column(group, name, [getattr(item, name) for item in held], level)
    schema.write_table(create_group(group, "failures"), Failure, in_order(entries, Failure), level)


def _arrays(held: list[Held], present: h5py.Group | None) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Yield the arrays that hold each sample, and where in them."""
    stored: dict[str, Any] = {}
    if present is not None and any(isinstance(item.place, int) for item in held):
        stored = {name: present[name] for name in CHUNKED if name in present}
        stored |= {name: present[name][()] for name in SMALL if name in present}
    for item in held:
        if isinstance(item.place, int):
            yield stored, item.place
        else:
            with open_part(item.place) as image:
                yield image, 0


def _copy_chunk(source: h5py.Dataset, at: int, group: h5py.Group, row: int, count: int) -> None:
    """Copy one sample's chunk without decoding it; its checksum travels with it."""
    name, inner = source.name.rpartition("/")[2], source.shape[1:]
    if name not in group:
        level = source.compression_opts
        schema.create_dataset(group, name, (count, *inner), source.dtype, (1, *inner), level)
    corner = (0,) * len(inner)
    mask, chunk = source.id.read_direct_chunk((at, *corner))
    group[name].id.write_direct_chunk((row, *corner), chunk, mask)


def held_in(head: Mapping[str, Any], part: Path) -> Held:
    """Return what a part with this head holds."""
    return Held(part, head["types"], Sample(**head["sample"]), *(head[name] for name in schema.TEXTS))


def in_order(entries: Entries, kind: type[Kind]) -> list[Kind]:
    """Return the samples, or the failures, in the order of the store."""
    ordered = (entries[key] for key in sorted(entries, key=schema.sample_order))
    return [entry for entry in ordered if isinstance(entry, kind)]
