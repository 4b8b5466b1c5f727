"""Assembling a store: compressed chunks are copied as they are into a new file in one fixed order."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mer_flow import __version__
from mer_flow.samples import Sample
from mer_flow.store.parts import Failure, Part, explained
from mer_flow.store.record import LIBVER, read_head
from mer_flow.store.schema import (
    CHUNKED,
    SCHEMA_VERSION,
    SMALL,
    canonical_json,
    create_dataset,
    create_group,
    pipeline_hash,
    read_samples,
    read_text,
    sample_order,
    text_array,
    write_column,
    write_samples,
)
from mer_flow.work.errors import StoreError
from mer_flow.work.files import sync_folder

#: Room that metadata may take beyond the chunks when the free space is checked.
SLACK_BYTES = 4 << 20


@dataclass
class Contents:
    """What one database of the new store is made of.

    Attributes:
        stored: `sample_id` -> index in the present store.
        parts: `sample_id` -> committed part; it wins over a stored sample.
        failures: `sample_id` -> failure.
    """

    stored: dict[str, int] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def sample_ids(self) -> list[str]:
        """Every sample of the new store, in the order of the file."""
        return sorted(self.stored.keys() | self.parts.keys(), key=sample_order)


@dataclass
class StoredIndex:
    """What the writer must know of one database of a present store."""

    samples: list[Sample]
    row_digests: list[str]
    content_digests: list[str]
    notes: list[str]
    failures: dict[str, Failure]

    @classmethod
    def read(cls, group: h5py.Group) -> StoredIndex:
        """Reads the index of a database group."""
        failures = group["failures"]
        columns = [read_text(failures[name]) for name in ("sample_id", "stage", "reason", "row_digest")]
        return cls(
            read_samples(group["samples"]),
            read_text(group["row_digest"]),
            read_text(group["content_digest"]),
            read_text(group["notes"]),
            {row[0]: Failure(*row) for row in zip(*columns, strict=True)},
        )


def assemble(
    store: Path, pipeline: Mapping[str, Any], contents: Mapping[str, Contents], parts_size: int, level: int
) -> None:
    """Writes the new store beside the old one, syncs it and renames it over the old one.

    Args:
        store: The store's path; where a file is there, its chunks are copied too.
        pipeline: Every parameter.
        contents: Database -> what it is made of.
        parts_size: Bytes of all parts, for the check of free space.
        level: gzip level of the small columns.

    Raises:
        StoreError: The disk is full, or the present store or a part cannot be read. The present store is left
            as it is.
    """
    temporary = store.with_name(store.name + ".tmp")
    temporary.unlink(missing_ok=True)
    needed = parts_size + (store.stat().st_size if store.exists() else 0) + SLACK_BYTES
    free = shutil.disk_usage(store.parent).free
    if free < needed:
        raise StoreError(
            f"the disk is full: assembling {store} needs up to {needed / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} MiB are free. Nothing committed is lost: free space and build again."
        )
    try:
        with explained("assembling the store", temporary):
            _write(temporary, store, pipeline, contents, level)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(store)
            sync_folder(store.parent)
    except RuntimeError as error:  # HDF5 reports some failed writes without their errno
        raise StoreError(
            f"assembling {temporary} failed: {error}. Nothing committed is lost: check the free space and "
            "run the same command again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(
    target: Path, present: Path, pipeline: Mapping[str, Any], contents: Mapping[str, Contents], level: int
) -> None:
    old = h5py.File(present, "r", locking=False) if present.exists() else None
    try:
        with h5py.File(target, "w", libver=LIBVER) as new:
            new.attrs["schema_version"] = SCHEMA_VERSION
            new.attrs["created_with"] = f"mer-flow {__version__}"
            new.attrs["pipeline"] = canonical_json(pipeline)
            new.attrs["pipeline_hash"] = pipeline_hash(pipeline)
            for database in sorted(contents):
                source = old[database] if old is not None and database in old else None
                _write_database(create_group(new, database), source, contents[database], level)
    finally:
        if old is not None:
            old.close()


def _write_database(group: h5py.Group, old: h5py.Group | None, contents: Contents, level: int) -> None:
    ids = contents.sample_ids
    index = StoredIndex.read(old) if old is not None else None
    count = len(ids)
    samples: list[Sample] = []
    columns: dict[str, list[str]] = {"notes": [], "row_digest": [], "content_digest": []}
    small = {name: np.full((count, *shape), np.nan, dtype) for name, (shape, dtype) in SMALL.items()}
    old_small = {name: old[name][()] for name in SMALL if old is not None and name in old}
    for row, sample_id in enumerate(ids):
        part = contents.parts.get(sample_id)
        if part is not None:
            with h5py.File(part.path, "r", locking=False) as image:
                head = read_head(image)
                for name in head.shapes:
                    _copy_chunk(image[name], 0, _target(group, name, count, image[name]), row)
            samples.append(head.sample)
            values = head.notes, part.row_digest, head.content_digest
            for name, array in head.small.items():
                small[name][row] = array
        else:
            assert old is not None and index is not None, "a stored sample needs a present store"
            at = contents.stored[sample_id]
            for name in CHUNKED:
                if name in old:
                    _copy_chunk(old[name], at, _target(group, name, count, old[name]), row)
            samples.append(index.samples[at])
            values = index.notes[at], index.row_digests[at], index.content_digests[at]
            for name, stored in old_small.items():
                small[name][row] = stored[at]
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    write_samples(create_group(group, "samples"), samples, level)
    for name, array in small.items():
        if count and not np.isnan(array).all():
            write_column(group, name, array, level)
    for name, texts in columns.items():
        write_column(group, name, text_array(texts), level)
    failures = [contents.failures[key] for key in sorted(contents.failures, key=sample_order)]
    folder = create_group(group, "failures")
    for name in ("sample_id", "stage", "reason", "row_digest"):
        write_column(folder, name, text_array([getattr(failure, name) for failure in failures]), level)


def _target(group: h5py.Group, name: str, count: int, source: h5py.Dataset) -> h5py.Dataset:
    if name in group:
        return group[name]
    return create_dataset(
        group, name, (count, *source.shape[1:]), source.dtype, (1, *source.shape[1:]), source.compression_opts
    )


def _copy_chunk(source: h5py.Dataset, index: int, target: h5py.Dataset, row: int) -> None:
    """Copies one sample's chunk without decoding it; its checksum travels with it."""
    tail = (0,) * (source.ndim - 1)
    mask, chunk = source.id.read_direct_chunk((index, *tail))
    target.id.write_direct_chunk((row, *tail), chunk, mask)
