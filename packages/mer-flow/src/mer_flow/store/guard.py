"""What a store may be made of, checked before a byte of its arrays is read: a file may come from a stranger.

HDF5 lets a dataset take its bytes from any file of the reader's disk (external storage, external links,
virtual datasets), lets a filter load a library, and lets a header claim sizes that no memory holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

import h5py

from mer_flow.samples import Sample
from mer_flow.store import schema
from mer_flow.store.schema import CHUNKED, SMALL, TEXTS, Failure
from mer_flow.work.errors import StoreError

#: What reading a damaged file may raise, besides this package's own errors.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
#: Bytes that a reader takes into memory at once, at most: one sample of a large array, or a whole column.
MOST_BYTES = 256 << 20
#: Characters of a root attribute, at most.
MOST_TEXT = 16 << 20
#: Filters that HDF5 has within; any other is a library that the file names.
_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
_TABLES: dict[str, type[Any]] = {"samples": Sample, "failures": Failure}


def check_objects(file: h5py.File) -> None:
    """Refuse a file with anything but what the schema names, stored within the file and of bearable size.

    What is too damaged to be opened is left to its reader.

    Raises:
        StoreError: An object is of another class, lies in another file, has an unknown filter, a type that is
            no number or fixed text, another number of axes, or is too large.
    """
    for database in file:
        with suppress(*DAMAGE):
            _check_database(_group(file, database))


def _check_database(group: h5py.Group) -> None:
    for name in group:
        with suppress(*DAMAGE):
            if name in _TABLES:
                columns = {column.name for column in fields(_TABLES[name])}
                table = _group(group, name)
                for column in table:
                    _refuse_unknown(table, column, columns)
                    with suppress(*DAMAGE):
                        _check_dataset(table, column, 1)
            else:
                _refuse_unknown(group, name, {*CHUNKED, *SMALL, *TEXTS})
                check_array(group, name)


def check_array(group: h5py.Group, name: str) -> None:
    """Refuse one array, or column of text, that `check_objects` would refuse."""
    axes = {"flow": (4,), "faces": (4, 5), "clips": (4, 5), "flow_sequence": (5,), "alignment": (3,)}
    _check_dataset(group, name, *axes.get(name, (3,) if name in SMALL else (1,)), single=name in CHUNKED)


def root_attributes(file: h5py.File, names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of some root attributes that are there; one that is no number or text is a StoreError."""
    found = {}
    for name in names:
        if name not in file.attrs:
            continue
        kind = file.attrs.get_id(name)
        text = isinstance(kind.get_type(), h5py.h5t.TypeStringID)
        if kind.shape != () or not (text or isinstance(kind.get_type(), h5py.h5t.TypeIntegerID)):
            raise StoreError(f"the attribute {name} is no single number or text")
        value = file.attrs[name]
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, str) and len(value) > MOST_TEXT:
            raise StoreError(
                f"the attribute {name} has {len(value)} characters, expected {MOST_TEXT} at most"
            )
        found[name] = value
    return found


def read_pipeline(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pipeline that a store's root attributes tell of; a StoreError where it is not whole."""
    with schema.explained("the attribute pipeline is damaged ({})", ValueError, TypeError, RecursionError):
        pipeline = json.loads(attributes["pipeline"])
        if not isinstance(pipeline, dict):
            raise ValueError(f"it is a {type(pipeline).__name__}, expected a table")
        expected = schema.pipeline_hash(pipeline)
    if attributes["pipeline_hash"] != expected:
        raise StoreError(
            f"the attribute pipeline_hash is {attributes['pipeline_hash']!r}, but its pipeline hashes to "
            f"{expected}: one of them was changed"
        )
    schema.MapKind.of(pipeline)
    return pipeline


def read_builds(attributes: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the versions of a store's later builds."""
    with schema.explained("the attribute builds is damaged ({})", ValueError, TypeError, RecursionError):
        builds = json.loads(attributes.get("builds", "[]"))
        if not isinstance(builds, list) or not all(isinstance(build, dict) for build in builds):
            raise ValueError("expected a list of tables")
    return builds


def _member(group: h5py.Group, name: str) -> Any:
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        kind = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
        raise StoreError(f"{_place(group, name)} is a link to {kind} ({link.path})")
    return group[name]


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    member = _member(parent, name)
    if not isinstance(member, h5py.Group):
        raise StoreError(f"{_place(parent, name)} is a {type(member).__name__.lower()}, expected a group")
    return member


def _check_dataset(group: h5py.Group, name: str, *axes: int, single: bool = False) -> None:
    dataset = _member(group, name)
    if not isinstance(dataset, h5py.Dataset):
        found = type(dataset).__name__.lower()
        raise StoreError(f"{_place(group, name)} is a {found}, expected a dataset")
    if fault := next(_faults(dataset, axes, single), ""):
        raise StoreError(f"{_place(group, name)} {fault}")


def _faults(dataset: h5py.Dataset, axes: tuple[int, ...], single: bool) -> Iterator[str]:
    """Say what is wrong with a dataset; its values are not touched."""
    made, kind = dataset.id.get_create_plist(), dataset.id.get_type()
    if made.get_layout() == h5py.h5d.VIRTUAL:
        yield "is put together from other files (a virtual dataset)"
    if made.get_external_count():
        outside = made.get_external(0)[0].decode(errors="replace")
        yield f"has its values in another file ({outside})"
    filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    if foreign := [number for number in filters if number not in _FILTERS]:
        yield f"uses the filter {foreign[0]}, expected shuffle, gzip and Fletcher-32 alone"
    fixed = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
    if not fixed and not isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID):
        yield "holds neither numbers nor texts of fixed length"
    if dataset.ndim not in axes:
        yield f"has {dataset.ndim} axes, expected {' or '.join(map(str, axes))}"
        return
    width = dataset.id.get_type().get_size()
    once = dataset.shape[1:] if single else dataset.shape
    for shape in (once, dataset.chunks or ()):
        size = width
        for extent in shape:
            size *= extent
        if size > MOST_BYTES:
            yield f"claims {size / 2**20:,.0f} MiB to be read at once, expected {MOST_BYTES >> 20} at most"


def _refuse_unknown(group: h5py.Group, name: str, known: set[str]) -> None:
    if name not in known:
        raise StoreError(f"{_place(group, name)} is no part of a store")


def _place(group: h5py.Group, name: str) -> str:
    return f"{group.name.strip('/')}/{name}".strip("/")
