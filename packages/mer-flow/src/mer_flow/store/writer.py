"""The one writer of a store: commits samples whole, survives a kill at any point, ends in the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py

from mer_flow.samples import SampleTable
from mer_flow.store.assembly import Contents, StoredIndex, assemble
from mer_flow.store.parts import Failure, PartsFolder, explained
from mer_flow.store.reader import FlowStore, damage_explained
from mer_flow.store.record import (
    EncodeOptions,
    PayloadHead,
    SampleRecord,
    encode_sample,
    open_payload,
    read_head,
)
from mer_flow.store.schema import CHUNKED, MapKind, canonical_json, differing_keys, row_digest, sample_order
from mer_flow.work.errors import StoreError, StoreMismatchError
from mer_flow.work.lock import StoreLock

__all__ = ["EncodeOptions", "Failure", "SampleRecord", "StoreWriter", "encode_sample"]

#: HDF5 keeps an attribute in one 64 KiB message.
PIPELINE_LIMIT = 60_000
#: Differing parameters that a message lists.
SHOWN = 12


class StoreWriter:
    """Adds samples to a store.

    Committed samples lie as small files in `<store>.parts` until `finish` assembles a new store file from
    them and the present one, by copying compressed chunks in a fixed order, and renames it over the present
    one. So readers never see a half-written store; a killed build continues where it stopped; and the final
    bytes depend on the samples alone, not on interruptions, the order of commits or the number of workers.
    Leaving the context without `finish` keeps the parts.

    Args:
        path: The HDF5 file to make or extend.
        pipeline: Every parameter of the maps, JSON-able, `map_kind` among them; a store takes samples of one
            pipeline only.
        options: Expected flow dtype, and the gzip level of the small columns.

    Raises:
        StoreError: The pipeline is not valid, or the file there is not a readable store.

    Example:
        with StoreWriter(path, pipeline, options) as writer:
            done = writer.begin("samm", table)
            for record in records_not_in(done):
                writer.commit(record.sample.sample_id, encode_sample(record, options))
            writer.finish()
    """

    def __init__(self, path: Path | str, pipeline: Mapping[str, Any], options: EncodeOptions | None = None):
        self.path = Path(path)
        self.options = options or EncodeOptions()
        self.map_kind = MapKind.of(pipeline)
        try:
            text = canonical_json(pipeline)
        except (TypeError, ValueError) as error:
            raise StoreError(f"the pipeline is not JSON: {error}") from error
        if len(text.encode()) > PIPELINE_LIMIT:
            raise StoreError(
                f"the pipeline's JSON takes {len(text.encode())} bytes; "
                f"at most {PIPELINE_LIMIT} fit in a store"
            )
        self.pipeline = dict(pipeline)
        if not self.path.name:
            raise StoreError(f"'{path}' names no file; give the store a file name, as in flows.h5")
        self._lock = StoreLock(self.path)
        self._parts = PartsFolder(self.path)
        self._rows: dict[str, dict[str, str]] = {}
        self._contents: dict[str, Contents] = {}
        self._stored_rows: dict[str, dict[str, str]] = {}
        self._shapes: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {}
        self._changed = False
        self._started = False

    def __enter__(self) -> StoreWriter:
        self._lock.acquire()
        try:
            self._load()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def begin(self, database: str, table: SampleTable) -> set[str]:
        """Says what is to be written, and learns what is there already.

        Args:
            database: The database.
            table: Its whole sample table as the sheet gives it.

        Returns:
            The `sample_id`s that are committed for these very rows. A sample whose row changed since is not
            among them: its new commit replaces the old one.

        Raises:
            StoreError: A row belongs to another database, or the writer is not entered.
        """
        self._require_lock()
        foreign = sorted({sample.database for sample in table} - {database})
        if foreign:
            raise StoreError(
                f"begin('{database}') got rows of {', '.join(foreign)}; begin one database at a time"
            )
        if "/" in database or not database.strip("."):
            raise StoreError(f"'{database}' cannot name a database in a store")
        self._rows[database] = {sample.sample_id: row_digest(sample) for sample in table}
        self._contents.setdefault(database, Contents())
        return {sample_id for sample_id in self._rows[database] if self._is_current(database, sample_id)}

    def failed(self, database: str) -> set[str]:
        """Returns the `sample_id`s whose recorded failure is of the present sheet row."""
        rows = self._begun(database)
        return {
            key
            for key, failure in self._contents[database].failures.items()
            if rows.get(key) == failure.row_digest
        }

    def failures(self, database: str) -> list[tuple[str, str, str]]:
        """Returns `(sample_id, stage, reason)` of every recorded failure, earlier builds included, sorted."""
        self._begun(database)
        recorded = self._contents[database].failures
        return [
            (key, recorded[key].stage, recorded[key].reason) for key in sorted(recorded, key=sample_order)
        ]

    def commit(self, sample_id: str, payload: bytes) -> None:
        """Commits one sample; when this returns, no kill or power cut loses it.

        Args:
            sample_id: The sample, of a database that was begun.
            payload: What `encode_sample` returned.

        Raises:
            StoreError: The payload is not of this sample, or the disk is full.
            StoreMismatchError: The payload does not fit the store or its database.
        """
        database = self._database_of(sample_id)
        with open_payload(payload) as image:
            head = read_head(image)
        self._check_fit(database, sample_id, head)
        part = self._parts.commit(database, sample_id, self._rows[database][sample_id], payload)
        self._contents[database].parts[sample_id] = part
        self._contents[database].failures.pop(sample_id, None)
        self._shapes.setdefault(database, head.shapes)
        self._changed = True

    def fail(self, sample_id: str, stage: str, reason: str) -> None:
        """Records that a sample has no flow; what an older sheet row gave is dropped from the new store.

        Args:
            sample_id: The sample, of a database that was begun.
            stage: Where it failed.
            reason: The message, with its remedy.

        Raises:
            StoreError: The sample is committed already.
        """
        database = self._database_of(sample_id)
        if self._is_current(database, sample_id):
            raise StoreError(f"{sample_id} is committed already; it cannot fail")
        failure = Failure(sample_id, stage, reason.replace("\0", ""), self._rows[database][sample_id])
        contents = self._contents[database]
        if contents.failures.get(sample_id) == failure:
            return
        self._parts.fail(database, failure)
        contents.parts.pop(sample_id, None)
        contents.stored.pop(sample_id, None)
        contents.failures[sample_id] = failure
        self._changed = True

    def finish(self) -> bool:
        """Assembles the store from what is committed, by interrupted builds of other databases too.

        Returns:
            Whether a new file was written; False where nothing was committed since the last one.

        Raises:
            StoreError: The disk is full or a file cannot be read; the parts and the present store are kept.
        """
        self._require_lock()
        changed = self._changed
        if changed:
            filled = {name: item for name, item in self._contents.items() if item.sample_ids or item.failures}
            assemble(self.path, self.pipeline, filled, self._parts.size(), self.options.compression)
        with explained("removing the parts", self._parts.path):
            self._parts.remove()
        self._load()
        return changed

    def _load(self) -> None:
        """Reads what the store and the parts hold, and refuses another pipeline."""
        self._contents, self._stored_rows, self._shapes, self._changed = {}, {}, {}, False
        if self.path.exists():
            self._load_store()
        left = self._parts.manifest()
        if left is not None:
            self._compare(left, f"the unfinished build in {self._parts.path}", "delete that folder")
            for database in self._parts.databases():
                self._load_parts(database)
        self._started = left is not None
        for database in self._rows:
            self._contents.setdefault(database, Contents())

    def _load_store(self) -> None:
        with FlowStore(self.path) as store:
            self._compare(
                store.pipeline, str(self.path), "write to another store, or delete this one to build it anew"
            )
        with h5py.File(self.path, "r", locking=False) as file:
            for database in file:
                with damage_explained(self.path, f"the index of {database}"):
                    group = file[database]
                    index = StoredIndex.read(group)
                ids = [sample.sample_id for sample in index.samples]
                stored = {sample_id: i for i, sample_id in enumerate(ids)}
                self._contents[database] = Contents(stored, {}, index.failures)
                self._stored_rows[database] = dict(zip(ids, index.row_digests, strict=True))
                if ids:
                    arrays = {name: group[name] for name in CHUNKED if name in group}
                    self._shapes[database] = {
                        name: (item.shape[1:], str(item.dtype)) for name, item in arrays.items()
                    }

    def _load_parts(self, database: str) -> None:
        contents = self._contents.setdefault(database, Contents())
        contents.parts = self._parts.parts(database)
        if contents.parts and database not in self._shapes:
            with h5py.File(next(iter(contents.parts.values())).path, "r", locking=False) as image:
                self._shapes[database] = read_head(image).shapes
        for sample_id in contents.parts:
            contents.failures.pop(sample_id, None)
        for sample_id, failure in self._parts.failures(database).items():
            if (
                sample_id in contents.parts
                or self._stored_rows.get(database, {}).get(sample_id) == failure.row_digest
            ):
                continue  # left by a kill between a commit and the removal of the former failure
            contents.stored.pop(sample_id, None)
            contents.failures[sample_id] = failure
        self._changed = self._changed or bool(contents.parts or contents.failures)

    def _compare(self, stored: Mapping[str, Any], where: str, remedy: str) -> None:
        differing = differing_keys(stored, self.pipeline)
        if differing:
            kinds = [item.get("map_kind", {}).get("kind") for item in (stored, self.pipeline)]
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

    def _check_fit(self, database: str, sample_id: str, head: PayloadHead) -> None:
        if head.sample.sample_id != sample_id or head.sample.database != database:
            raise StoreError(
                f"the payload committed as {sample_id} is of {head.sample.sample_id} ({head.sample.database})"
            )
        side = self.map_kind.map_size
        expected = ((3, side, side), self.options.dtype)
        if head.shapes["flow"] != expected:
            raise StoreMismatchError(
                f"{sample_id}: the payload's flow is {head.shapes['flow']}, expected {expected}"
            )
        present = self._shapes.get(database)
        if present is not None and head.shapes != present:
            raise StoreMismatchError(
                f"{sample_id} carries {_describe(head.shapes)}, while {database} "
                f"in {self.path} carries {_describe(present)}. Every sample of a database carries the same: "
                "use the same --keep-faces, --keep-clips and dtype, or another store."
            )

    def _is_current(self, database: str, sample_id: str) -> bool:
        row = self._rows[database][sample_id]
        contents = self._contents[database]
        if sample_id in contents.parts:
            return contents.parts[sample_id].row_digest == row
        return sample_id in contents.stored and self._stored_rows[database][sample_id] == row

    def _begun(self, database: str) -> dict[str, str]:
        self._require_lock()
        if database not in self._rows:
            raise StoreError(f"database '{database}' was not begun; call begin('{database}', table) first")
        return self._rows[database]

    def _database_of(self, sample_id: str) -> str:
        self._require_lock()
        for database, rows in self._rows.items():
            if sample_id in rows:
                if not self._started:
                    self._parts.start(self.pipeline)
                    self._started = True
                return database
        raise StoreError(
            f"sample '{sample_id}' is in no table that was begun ({', '.join(self._rows) or 'none was'})"
        )

    def _require_lock(self) -> None:
        if not self._lock.held:
            raise StoreError(
                f"the writer of {self.path} is not open; use it as `with StoreWriter(...) as writer:`"
            )


def _describe(shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{name} {dtype} {shape}" for name, (shape, dtype) in shapes.items())
