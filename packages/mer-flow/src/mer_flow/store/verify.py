"""Checking a store whole: every checksum, shape, value and cross-reference; all faults at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import h5py

from mer_flow.samples import Sample, row_fault
from mer_flow.store import schema
from mer_flow.store.guard import DAMAGE
from mer_flow.store.reader import FlowStore
from mer_flow.store.schema import SMALL, Failure, MapKind
from mer_flow.store.values import wrong_values
from mer_flow.work.errors import MerFlowError

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a store.

    Attributes:
        kind: `unreadable`, `schema`, `checksum`, `digest`, `shape`, `value`, `duplicate` or `reference`.
        where: Database and sample or dataset; empty for the file as a whole.
        message: What is wrong, expected against found.
    """

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {f'{self.where}: ' if self.where else ''}{self.message}"


def verify_store(path: Path | str, on_sample: Callable[[], None] | None = None) -> list[Fault]:
    """Read a whole store and list everything wrong with it; `on_sample` is called after each sample."""
    check = _Check(on_sample or (lambda: None))
    store = check.read("unreadable", "", FlowStore, path)
    if store is not None:
        with store:
            check.file(store)
    return check.faults


def damaged(path: Path, database: str) -> set[str]:
    """Return what of a database must be computed anew: samples, or its name where more is damaged.

    Raises:
        StoreError: The file as a whole is damaged, so that nothing can be taken over.
    """
    with FlowStore(path) as store:
        if database not in store.databases:
            return set()
        try:
            ids = set(store.samples(database).sample_ids)
        except (MerFlowError, *DAMAGE):
            return {database}
    places = [fault.where for fault in verify_store(path)]
    own = {place for place in places if place == database or place.startswith(f"{database}/")}
    return own if own <= ids else {database}


class _Check:
    """The faults found so far."""

    def __init__(self, on_sample: Callable[[], None]):
        self.faults: list[Fault] = []
        self.on_sample = on_sample

    def say(self, kind: str, where: str, message: str) -> None:
        self.faults.append(Fault(kind, where, message))

    def read(self, kind: str, where: str, function: Callable[..., _Read], *arguments: Any) -> _Read | None:
        """Return what a function reads; None, and a fault, where it cannot."""
        try:
            return function(*arguments)
        except (MerFlowError, *DAMAGE) as error:
            self.say(kind, where, f"cannot be read: {error}")
            return None

    def file(self, store: FlowStore) -> None:
        kind = store.map_kind
        seen: Counter[str] = Counter()
        for name in store.databases:
            group = self.read("unreadable", name, store.group, name)
            samples = self.read("unreadable", name, _table, group, "samples", Sample) if group else None
            if group is None or samples is None:
                continue
            seen.update(sample.sample_id for sample in samples)
            self.rows(name, group, samples)
            digests = [self.text(name, group, column, len(samples)) for column in schema.TEXTS][-1]
            self.arrays(group, kind, [sample.sample_id for sample in samples], digests)
        self.repeated(seen, "the sample_id")

    def repeated(self, counts: Counter[str], what: str) -> None:
        for sample_id, count in counts.items():
            if count > 1:
                self.say("duplicate", sample_id, f"{what} occurs {count} times")

    def rows(self, database: str, group: h5py.Group, samples: list[Sample]) -> None:
        for sample in samples:
            if sample.database != database:
                self.say("reference", sample.sample_id, f"of '{sample.database}', it lies in '{database}'")
            if fault := row_fault(replace(sample, database=database)):
                self.say("reference", sample.sample_id, fault)
        ids = [sample.sample_id for sample in samples]
        if ids != sorted(ids, key=schema.sample_order):
            self.say("schema", database, "the samples are not in the store's order")
        failures = self.read("unreadable", f"{database}/failures", _table, group, "failures", Failure)
        failed = Counter(failure.sample_id for failure in failures or ())
        for sample_id in sorted(set(failed) & set(ids)):
            self.say("reference", sample_id, "the sample is both committed and among the failures")
        self.repeated(failed, "its failure")

    def text(self, database: str, group: h5py.Group, column: str, count: int) -> list[str]:
        """Return a text column; empty where it cannot be used."""
        where = f"{database}/{column}"
        values = self.read("unreadable", where, lambda: schema.read_text(group[column])) or []
        if column == "notes":
            self.read("unreadable", where, lambda: [json.loads(value) for value in values])
        if values and len(values) != count:
            self.say("shape", where, f"{len(values)} rows for {count} samples")
            return []
        return values

    def arrays(self, group: h5py.Group, kind: MapKind, ids: list[str], digests: list[str]) -> None:
        database = group.name.strip("/")
        present = [name for name in schema.INGREDIENTS if name in group]
        if ids and "flow" not in present:
            self.say("schema", database, "there is no flow")
        held = {}
        for name in present:
            where = f"{database}/{name}"
            held[name] = self.read("checksum", where, self.ingredient, group, name, len(ids), kind.map_size)
        for row, sample_id in enumerate(ids):
            usable = [(name, dataset) for name, dataset in held.items() if dataset is not None]
            read = [(n, self.read("checksum", sample_id, dataset.__getitem__, row)) for n, dataset in usable]
            arrays = {name: array for name, array in read if array is not None}
            for message in wrong_values(arrays, kind):
                self.say("value", sample_id, message)
            whole = digests and len(arrays) == len(present)
            if whole and schema.content_digest(arrays) != digests[row]:
                self.say("digest", sample_id, "its arrays are not the ones that were committed")
            self.on_sample()

    def ingredient(self, group: h5py.Group, name: str, count: int, side: int) -> Any:
        """Return a dataset, or the array of a small one; None where it cannot be used."""
        dataset, where = group[name], f"{group.name.strip('/')}/{name}"
        expected = schema.misfit(name, dataset.shape[1:], str(dataset.dtype), side)
        if name not in SMALL and (dataset.chunks != (1, *dataset.shape[1:]) or not dataset.fletcher32):
            self.say("schema", where, "not chunked by sample with Fletcher-32 checksums")
        if expected or dataset.shape[0] != count:
            wanted = expected and f", each expected as {expected}"
            self.say("shape", where, f"{dataset.dtype} {dataset.shape} for {count} samples{wanted}")
            return None
        return dataset[()] if name in SMALL else dataset


def _table(group: h5py.Group, name: str, kind: type[Any]) -> list[Any]:
    return schema.read_table(group[name], kind)
