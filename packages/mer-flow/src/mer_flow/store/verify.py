"""Checking a store whole: every checksum, shape, value and cross-reference; all problems at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mer_flow.samples import Sample
from mer_flow.store.reader import DAMAGE, open_checked
from mer_flow.store.schema import (
    CHUNKED,
    REGIONS,
    SMALL,
    MapKind,
    content_digest,
    pipeline_hash,
    read_samples,
    read_text,
    sample_order,
)
from mer_flow.work.errors import MerFlowError, StoreError

#: How far outside the map a landmark may lie, as a share of its side: the crop may cut chin and brows.
LANDMARK_MARGIN = 0.5


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a store.

    Attributes:
        kind: `unreadable`, `schema`, `checksum`, `digest`, `shape`, `value`, `duplicate`, `reference` or
            `pipeline`.
        where: Database and sample or dataset; empty for the file as a whole.
        message: What is wrong, expected against found.
    """

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {f'{self.where}: ' if self.where else ''}{self.message}"


def verify_store(path: Path | str, on_sample: Callable[[], None] | None = None) -> list[Problem]:
    """Reads a whole store and lists everything that is wrong with it.

    Args:
        path: The HDF5 file.
        on_sample: Called after each sample, for progress.

    Returns:
        The problems, in the order of the file; none where the store is sound.
    """
    try:
        file = open_checked(Path(path))
    except (StoreError, *DAMAGE) as error:
        return [Problem("unreadable", "", str(error))]
    with file:
        return list(_file(file, on_sample))


def _file(file: h5py.File, on_sample: Callable[[], None] | None) -> Iterator[Problem]:
    kind = None
    try:
        pipeline = json.loads(file.attrs["pipeline"])
        found, expected = str(file.attrs["pipeline_hash"]), pipeline_hash(pipeline)
        if found != expected:
            yield Problem("pipeline", "", f"pipeline_hash is {found}, the pipeline hashes to {expected}")
        kind = MapKind.of(pipeline)
    except (MerFlowError, *DAMAGE) as error:
        yield Problem("pipeline", "", f"the pipeline cannot be read: {error}")
    try:
        names = sorted(file)
    except DAMAGE as error:
        yield Problem("unreadable", "", f"the databases cannot be listed: {error}")
        return
    seen: Counter[str] = Counter()
    for name in names:
        try:
            group = file[name]
            samples = read_samples(group["samples"])
        except (MerFlowError, *DAMAGE) as error:
            yield Problem("unreadable", name, f"the sample table cannot be read: {error}")
            continue
        seen.update(sample.sample_id for sample in samples)
        yield from _table(name, samples)
        yield from _failures(name, group, samples)
        texts = yield from _texts(name, group, len(samples))
        if kind is not None:
            small = yield from _small(name, group, samples, kind.map_size)
            yield from _arrays(name, group, samples, kind, small, texts.get("content_digest"), on_sample)
    for sample_id, count in seen.items():
        if count > 1:
            yield Problem("duplicate", sample_id, f"the sample_id occurs {count} times")


def _table(database: str, samples: list[Sample]) -> Iterator[Problem]:
    for sample in samples:
        if sample.database != database:
            yield Problem(
                "reference", sample.sample_id, f"its database is '{sample.database}', it lies in '{database}'"
            )
        if not sample.sample_id.startswith(f"{database}/") or not sample.subject.startswith(f"{database}/"):
            yield Problem(
                "reference",
                sample.sample_id,
                f"sample_id and subject '{sample.subject}' must begin with '{database}/'",
            )
    ids = [sample.sample_id for sample in samples]
    if ids != sorted(ids, key=sample_order):
        yield Problem("schema", database, "the samples are not in the store's order")


def _failures(database: str, group: h5py.Group, samples: list[Sample]) -> Iterator[Problem]:
    try:
        failed = read_text(group["failures"]["sample_id"])
        lengths = {
            name: len(read_text(group["failures"][name])) for name in ("stage", "reason", "row_digest")
        }
    except DAMAGE as error:
        yield Problem("unreadable", f"{database}/failures", f"cannot be read: {error}")
        return
    if set(lengths.values()) != {len(failed)}:
        yield Problem("shape", f"{database}/failures", f"{len(failed)} sample_ids, other columns {lengths}")
    for sample_id in sorted(set(failed) & {sample.sample_id for sample in samples}):
        yield Problem("reference", sample_id, "the sample is both committed and among the failures")
    for sample_id, count in Counter(failed).items():
        if count > 1:
            yield Problem("duplicate", sample_id, f"the sample is {count} times among the failures")


def _texts(database: str, group: h5py.Group, count: int) -> Any:
    """Checks the text columns and returns those that can be read."""
    columns: dict[str, list[str]] = {}
    for name in ("notes", "row_digest", "content_digest"):
        try:
            values = read_text(group[name])
            if name == "notes":
                for value in values:
                    json.loads(value)
        except DAMAGE as error:
            yield Problem("unreadable", f"{database}/{name}", f"cannot be read: {error}")
            continue
        if len(values) != count:
            yield Problem("shape", f"{database}/{name}", f"{len(values)} rows for {count} samples")
        else:
            columns[name] = values
    return columns


def _small(database: str, group: h5py.Group, samples: list[Sample], side: int) -> Any:
    """Checks landmarks, regions and alignments, and returns those that are sound in shape."""
    arrays: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in SMALL.items():
        try:
            if name not in group:
                continue
            array = group[name][()]
        except DAMAGE as error:
            yield Problem("checksum", f"{database}/{name}", f"cannot be read: {error}")
            continue
        if array.shape != (len(samples), *shape) or array.dtype != dtype:
            expected = f"{dtype} {(len(samples), *shape)}"
            yield Problem("shape", f"{database}/{name}", f"{array.dtype} {array.shape}, expected {expected}")
            continue
        arrays[name] = array
        absent = np.isnan(array).all(axis=(1, 2))
        finite = np.isfinite(array).all(axis=(1, 2))
        for row in np.flatnonzero(~absent & ~finite):
            yield Problem("value", samples[row].sample_id, f"its {name} hold values that are not finite")
        margin = {"landmarks": LANDMARK_MARGIN * side, "regions": 0.0}.get(name)
        if margin is None:
            continue
        outside = ((array < -margin) | (array > side + margin)).any(axis=2) & finite[:, None]
        for row, point in {int(r): int(p) for r, p in np.argwhere(outside)[::-1]}.items():
            x, y = array[row, point]
            what = REGIONS[point] if name == "regions" else f"landmark {point}"
            yield Problem(
                "value",
                samples[row].sample_id,
                f"{what} lies at ({x:.1f}, {y:.1f}), outside the {side} px map",
            )
    return arrays


def _arrays(
    database: str,
    group: h5py.Group,
    samples: list[Sample],
    kind: MapKind,
    small: dict[str, np.ndarray],
    digests: list[str] | None,
    on_sample: Callable[[], None] | None,
) -> Iterator[Problem]:
    datasets = {}
    for name in CHUNKED:
        try:
            if name in group:
                yield from _layout(database, name, group[name], len(samples), kind.map_size)
                datasets[name] = group[name]
        except DAMAGE as error:
            yield Problem("unreadable", f"{database}/{name}", f"cannot be read: {error}")
    if samples and "flow" not in datasets:
        yield Problem("schema", database, "there is no flow")
    for row, sample in enumerate(samples):
        arrays = {}
        for name, dataset in datasets.items():
            if row >= dataset.shape[0]:
                continue
            try:
                arrays[name] = dataset[row]
            except DAMAGE as error:
                yield Problem("checksum", sample.sample_id, f"its {name} cannot be read: {error}")
        if "flow" in arrays:
            yield from _values(sample.sample_id, arrays["flow"], kind.values)
        if not np.isfinite(arrays.get("flow_sequence", np.zeros(1))).all():
            yield Problem("value", sample.sample_id, "its flow_sequence holds values that are not finite")
        readable = len(arrays) == len(datasets) and set(small) == {name for name in SMALL if name in group}
        if digests is not None and readable:
            found = content_digest({**arrays, **{name: array[row] for name, array in small.items()}})
            if found != digests[row]:
                yield Problem("digest", sample.sample_id, "its arrays are not the ones that were committed")
        if on_sample is not None:
            on_sample()


def _layout(database: str, name: str, dataset: h5py.Dataset, count: int, side: int) -> Iterator[Problem]:
    where = f"{database}/{name}"
    inner = tuple(dataset.shape[1:])
    if name == "flow":
        fits = inner == (3, side, side)
    elif name == "flow_sequence":
        fits = len(inner) == 4 and inner[1] == 2 and inner[2] == inner[3] <= side
    else:
        fits = inner[1:] in ((side, side), (side, side, 3)) and (name == "clips" or inner[0] == 2)
    if dataset.shape[0] != count or not fits:
        yield Problem("shape", where, f"{dataset.shape} for {count} samples of {side} px maps")
    dtypes = ("float16", "float32") if name.startswith("flow") else ("uint8",)
    if str(dataset.dtype) not in dtypes:
        yield Problem("shape", where, f"dtype {dataset.dtype}, expected {' or '.join(dtypes)}")
    if dataset.chunks != (1, *inner) or not dataset.fletcher32:
        yield Problem("schema", where, "not chunked by sample with Fletcher-32 checksums")


def _values(sample_id: str, flow: np.ndarray, values: str) -> Iterator[Problem]:
    finite = np.isfinite(flow)
    if not finite.all():
        yield Problem("value", sample_id, f"{int((~finite).sum())} flow value(s) are not finite")
        return
    if values == "minmax-255":
        if flow.min() < 0 or flow.max() > 255:
            yield Problem(
                "value", sample_id, f"values from {flow.min():g} to {flow.max():g}, expected 0 to 255"
            )
        return
    side = flow.shape[-1]
    if flow.ndim == 3 and flow.shape[0] == 3:
        largest = float(np.abs(flow[:2]).max())
        if largest > side:
            yield Problem("value", sample_id, f"a flow of {largest:.0f} px on a {side} px map")
        if flow[2].min() < 0:
            yield Problem("value", sample_id, f"a strain of {flow[2].min():g}; a norm cannot be negative")
