"""The one writer of a store: commits samples whole, survives a kill at any point, ends in the same bytes.

A committed sample, or failure, is one file in `<store>.parts/<database>/`, which exists whole or not at all
and replaces a former one of the same sample. `finish` copies the compressed chunks of these files and of the
present store into a new file, in a fixed order, and renames it over the present one: readers never see half a
store, and its bytes depend on the samples alone, not on interruptions, the order of commits or the workers.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mer_flow.samples import SampleTable
from mer_flow.store import schema
from mer_flow.store.assemble import Entries, Held, assemble, held_in, in_order
from mer_flow.store.encode import (
    EncodeOptions,
    SampleRecord,
    chunked_types,
    encode_sample,
    part_heads,
    read_head,
    with_head,
)
from mer_flow.store.reader import FlowStore, damage_explained
from mer_flow.store.schema import Failure, canonical_json
from mer_flow.work.errors import LockHeldError, StoreBusyError, StoreError, StoreMismatchError
from mer_flow.work.files import sync_folder, write_whole
from mer_flow.work.lock import hold

__all__ = ["EncodeOptions", "SampleRecord", "StoreWriter", "encode_sample"]

#: Says in a parts folder what the build was begun with.
MANIFEST = "manifest.json"
#: Room that metadata may take beyond the chunks when the free space is checked.
SLACK_BYTES = 4 << 20
_SCHEMA = {"schema_version": schema.SCHEMA_VERSION}


class StoreWriter:
    """Adds samples to a store; leaving the context without `finish` keeps what was committed.

    Args:
        path: The HDF5 file to make or extend.
        pipeline: Every parameter of the maps, JSON-able, `map_kind` among them; a store takes samples of one
            pipeline only, as `schema.deciding` reads it. Other `versions` are recorded as a further build.
        options: Expected flow dtype, and the gzip level of the small columns.
        without: Samples, or whole databases, that are not taken over from the present store: damaged ones.

    Raises:
        StoreError: The pipeline is not valid, or the file there is not a readable store.
    """

    def __init__(
        self,
        path: Path | str,
        pipeline: Mapping[str, Any],
        options: EncodeOptions | None = None,
        without: Collection[str] = (),
    ):
        self.path = Path(path)
        if not self.path.name:
            raise StoreError(f"'{path}' names no file; give the store a file name, as in flows.h5")
        self.options = options or EncodeOptions()
        self.map_kind = schema.MapKind.of(pipeline)
        self.pipeline = dict(pipeline)
        with schema.explained("the pipeline is not JSON: {}", TypeError, ValueError, RecursionError):
            canonical_json(pipeline)
        self._without = frozenset(without)
        self._parts = schema.parts_folder(self.path)
        self._lock: ExitStack | None = None
        self._rows: dict[str, dict[str, str]] = {}
        self._entries: dict[str, Entries] = {}
        self._changed = False
        self._versions: dict[str, Any] = dict(pipeline.get("versions", {}))
        self._builds: list[dict[str, Any]] = []

    def __enter__(self) -> StoreWriter:
        with _locked(self.path) as lock:
            self._load()
            self._lock = lock.pop_all()
        return self

    @property
    def warnings(self) -> list[str]:
        """Versions that differ from those the store was begun with, and do not decide its maps."""
        differing = schema.differing_keys(self.pipeline.get("versions", {}), self._versions)
        return [
            f"{name} was {old} when {self.path} was begun and is {new} now; both are recorded"
            for name, old, new in differing
        ]

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def begin(self, database: str, table: SampleTable) -> set[str]:
        """Say what is to be written, a database's whole table as its sheet gives it.

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
        self._rows[database] = {sample.sample_id: schema.row_digest(sample) for sample in table}
        self._entries.setdefault(database, {})
        return self._current(database, Held)

    def failed(self, database: str) -> set[str]:
        """Return the `sample_id`s whose recorded failure is of the present sheet row."""
        return self._current(database, Failure)

    def failures(self, database: str) -> list[tuple[str, str, str]]:
        """Return `(sample_id, stage, reason)` of every recorded failure, earlier builds included, sorted."""
        self._current(database, Failure)
        found = in_order(self._entries[database], Failure)
        return [(item.sample_id, item.stage, item.reason) for item in found]

    def commit(self, sample_id: str, payload: bytes) -> None:
        """Commit what `encode_sample` returned; when this returns, no kill or power cut loses it.

        Raises:
            StoreError: The payload is not of this sample, or the disk is full.
            StoreMismatchError: The payload does not fit the store or its database.
        """
        database = self._database_of(sample_id)
        stream = io.BytesIO(payload)
        with schema.explained("not an encoded sample: {}", ValueError, KeyError, RecursionError):
            head = read_head(stream)
            sample, types = head["sample"], head["types"]
        if (sample["sample_id"], sample["database"]) != (sample_id, database):
            raise StoreError(
                f"the payload committed as {sample_id} is of {sample['sample_id']} ({sample['database']})"
            )
        self._check_fit(database, sample_id, types)
        head["row_digest"] = self._rows[database][sample_id]
        part = self._put(database, sample_id, with_head(head, stream.read()))
        self._entries[database][sample_id] = held_in(head, part)

    def fail(self, sample_id: str, stage: str, reason: str) -> None:
        """Record at which stage a sample failed and why; what an older sheet row gave is dropped.

        Raises:
            StoreError: The sample is committed already.
        """
        database = self._database_of(sample_id)
        row, present = self._rows[database][sample_id], self._entries[database].get(sample_id)
        # A path in it need not be UTF-8.
        told = reason.replace("\0", "").encode("utf-8", "backslashreplace").decode()
        failure = Failure(sample_id, stage, told, row)
        if isinstance(present, Held) and present.row_digest == row:
            raise StoreError(f"{sample_id} is committed already; it cannot fail")
        if present != failure:
            self._put(database, sample_id, with_head(asdict(failure)))
            self._entries[database][sample_id] = failure

    def finish(self) -> bool:
        """Assemble the store from what is committed, by interrupted builds of other databases too.

        Returns:
            Whether a new file was written; False where nothing was committed since the last one.

        Raises:
            StoreError: The disk is full or a file cannot be read; the parts and the present store are kept.
        """
        self._require_lock()
        changed = self._changed
        if changed:
            self._assemble()
        with _explained("removing the parts", self._parts):
            for folder in self._parts.glob("*/"):
                shutil.rmtree(folder)
            if self._parts.exists():  # the manifest goes last: what a kill leaves gives the same bytes again
                shutil.rmtree(self._parts)
        self._without = frozenset()
        self._load()
        return changed

    def _load(self) -> None:
        """Learn what the store and the parts hold, and refuse another pipeline."""
        self._entries = {database: {} for database in self._rows}
        self._changed, self._builds = bool(self._without), []
        if self.path.exists():
            with FlowStore(self.path) as store:
                remedy = "write to another store, or delete this one to build it anew"
                schema.refuse_other(store.pipeline, self.pipeline, str(self.path), remedy)
                self.pipeline, self._builds = store.pipeline, store.builds[1:]
                for database in set(store.databases) - self._without:
                    self._load_database(store, database)
        begun = _manifest(self._parts)
        if begun is None:
            return
        where = f"the unfinished build in {self._parts}"
        builds = begun.pop("builds", [])
        schema.refuse_other(begun, {**self.pipeline, **_SCHEMA}, where, "delete that folder")
        if not self.path.exists():
            self.pipeline = {name: value for name, value in begun.items() if name not in _SCHEMA}
        for versions in (begun.get("versions", {}), *builds):
            self._record_build(versions)
        for path, head in part_heads(self.path):
            sample_id = head["sample"]["sample_id"] if "sample" in head else head["sample_id"]
            entry = held_in(head, path) if "sample" in head else Failure(**head)
            self._entries.setdefault(path.parent.name, {})[sample_id] = entry
            self._changed = True

    def _record_build(self, versions: dict[str, Any]) -> bool:
        """Add the versions of one build; returns whether they are new to the store."""
        new = versions not in (self.pipeline.get("versions", {}), *self._builds)
        if new:
            self._builds.append(versions)
        return new

    def _load_database(self, store: FlowStore, database: str) -> None:
        entries: Entries = {item.sample_id: item for item in store.failures(database)}
        with damage_explained(self.path, f"the index of {database}"):
            group = store.group(database)
            types = chunked_types(group)
            texts = [schema.read_text(group[name]) for name in schema.TEXTS]
            for place, (sample, *row) in enumerate(zip(store.samples(database), *texts, strict=True)):
                if sample.sample_id not in self._without:
                    entries[sample.sample_id] = Held(place, types, sample, *row)
        self._entries[database] = entries

    def _check_fit(self, database: str, sample_id: str, types: dict[str, str]) -> None:
        side = self.map_kind.map_size
        held = (item.types for item in self._entries[database].values() if isinstance(item, Held))
        wanted = next(held, {**types, "flow": f"{self.options.dtype} {(3, side, side)}"})
        if types != wanted:
            own, others = (", ".join(f"{k} {v}" for k, v in carried.items()) for carried in (types, wanted))
            raise StoreMismatchError(
                f"{sample_id} carries {own}; expected {others}, as all samples of {database} in {self.path}: "
                "use the same --keep-faces, --keep-clips and dtype, or another store."
            )

    def _put(self, database: str, sample_id: str, content: bytes) -> Path:
        """Write a sample's file into the parts folder, in place of a former one."""
        path = self._parts / database / f"{hashlib.sha256(sample_id.encode()).hexdigest()[:16]}.part"
        with _explained(f"committing {sample_id}", path):
            new = self._record_build(self._versions)
            if new or not (path.parent.is_dir() and (self._parts / MANIFEST).exists()):
                path.parent.mkdir(parents=True, exist_ok=True)
                begun = {**self.pipeline, **_SCHEMA} | ({"builds": self._builds} if self._builds else {})
                write_whole(self._parts / MANIFEST, canonical_json(begun).encode())
                sync_folder(self._parts.parent)
            write_whole(path, content)
        self._changed = True
        return path

    def _current(self, database: str, kind: type[Held] | type[Failure]) -> set[str]:
        """Return the samples that are held, or failed, by their present rows."""
        self._require_lock()
        if database not in self._rows:
            raise StoreError(f"database '{database}' was not begun; call begin('{database}', table) first")
        rows, entries = self._rows[database], self._entries[database]
        return {
            key
            for key, item in entries.items()
            if isinstance(item, kind) and rows.get(key) == item.row_digest
        }

    def _database_of(self, sample_id: str) -> str:
        self._require_lock()
        for database, rows in self._rows.items():
            if sample_id in rows:
                return database
        raise StoreError(
            f"sample '{sample_id}' is in no table that was begun ({', '.join(self._rows) or 'none was'})"
        )

    def _require_lock(self) -> None:
        if self._lock is None:
            raise StoreError(
                f"the writer of {self.path} is not open; use it as `with StoreWriter(...) as writer:`"
            )

    def _assemble(self) -> None:
        """Write the new store beside the present one, sync it and rename it over that."""
        temporary = self.path.with_name(self.path.name + ".tmp")
        sources = [path for path in (self.path, *self._parts.glob("*/*.part")) if path.exists()]
        needed = SLACK_BYTES + sum(path.stat().st_size for path in sources)
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise StoreError(
                f"the disk is full: assembling {self.path} needs up to {needed / 2**20:.0f} MiB, "
                f"{free / 2**20:.0f} MiB are free. Nothing committed is lost: free space and build again."
            )
        try:
            with _explained("assembling the store", temporary):
                level = self.options.compression
                assemble(temporary, self.pipeline, self._builds, self._entries, self.path, level)
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(self.path)
                sync_folder(self.path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def begun_pipeline(path: Path) -> dict[str, Any]:
    """Return the pipeline that a store, or else an unfinished build of it, was begun with; empty for neither.

    Raises:
        StoreError: What is there cannot be read.
    """
    if path.exists():
        with FlowStore(path) as store:
            return store.pipeline
    return _manifest(schema.parts_folder(path)) or {}


def _manifest(parts: Path) -> dict[str, Any] | None:
    path = parts / MANIFEST
    if not path.exists():
        return None
    message = f"{path} is damaged ({{}}). Delete {parts} and build again."
    with schema.explained(message, ValueError, TypeError, RecursionError):
        return dict(json.loads(path.read_text(encoding="utf-8")))


def _locked(store: Path) -> ExitStack:
    """Lock a store against other writers until the stack is closed."""
    path, stack = store.with_name(store.name + ".lock"), ExitStack()
    remedy = "Choose a --store folder on a local disk that you may write to."
    # NotImplementedError: the file system knows no locks.
    with schema.explained(f"cannot make the lock file {path}: {{}}. {remedy}", OSError, NotImplementedError):
        store.parent.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(hold(path))
        except LockHeldError as error:
            raise StoreBusyError(
                f"{store} is being written by another build ({error}). "
                "Wait until it ends, or stop it: what it committed is kept."
            ) from error
    return stack


@contextmanager
def _explained(what: str, path: Path) -> Iterator[None]:
    """Turn a failed write into an error that says what to do; none of them loses a commit."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # HDF5 reports some failed writes without their errno
        number = getattr(error, "errno", None)
        full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fault = f"the disk is full ({what}, {path})" if full else f"{what} failed at {path}: {error}"
        remedy = "free space" if full else "check the free space, mend the cause"
        raise StoreError(
            f"{fault}. Nothing committed is lost: {remedy} and run the same command again."
        ) from error
