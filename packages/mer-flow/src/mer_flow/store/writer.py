"""The one writer of a store: commits samples whole, survives a kill at any point, ends in the same bytes.

A committed sample, or failure, is one file in `<store>.parts/<database>/`, which exists whole or not at all
and replaces a former one of the same sample. `finish` copies the compressed chunks of these files and of the
present store into a new file, in a fixed order, and renames it over the present one.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from mer_flow import __version__
from mer_flow.samples import Sample, SampleTable
from mer_flow.store import schema
from mer_flow.store.encode import (
    LIBVER,
    EncodeOptions,
    SampleRecord,
    chunked_types,
    damaged_part,
    encode_sample,
    part_heads,
    read_head,
    with_head,
)
from mer_flow.store.reader import FlowStore, damage_explained
from mer_flow.store.schema import (
    CHUNKED,
    SMALL,
    Failure,
    canonical_json,
    create_group,
    sample_order,
    write_column,
)
from mer_flow.work.errors import LockHeldError, StoreBusyError, StoreError, StoreMismatchError
from mer_flow.work.files import sync_folder, write_whole
from mer_flow.work.lock import hold

__all__ = ["EncodeOptions", "SampleRecord", "StoreWriter", "encode_sample"]

#: Says in a parts folder what the build was begun with.
MANIFEST = "manifest.json"
#: Differing parameters that a message lists.
SHOWN = 12
#: Room that metadata may take beyond the chunks when the free space is checked.
SLACK_BYTES = 4 << 20
_SCHEMA = {"schema_version": schema.SCHEMA_VERSION}


@dataclass(frozen=True, slots=True)
class _Held:
    """A committed sample: where its arrays lie, in a part or in a row of the present store."""

    row_digest: str
    place: Path | int


_Entry = TypeVar("_Entry", _Held, Failure)


class StoreWriter:
    """Adds samples to a store.

    Readers never see a half-written store; a killed build continues where it stopped; and the final bytes
    depend on the samples alone, not on interruptions, the order of commits or the number of workers. Leaving
    the context without `finish` keeps what was committed.

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
        if not self.path.name:
            raise StoreError(f"'{path}' names no file; give the store a file name, as in flows.h5")
        self.options = options or EncodeOptions()
        self.map_kind = schema.MapKind.of(pipeline)
        self.pipeline = dict(pipeline)
        try:
            canonical_json(pipeline)
        except (TypeError, ValueError) as error:
            raise StoreError(f"the pipeline is not JSON: {error}") from error
        self._parts = schema.parts_folder(self.path)
        self._lock: ExitStack | None = None
        self._rows: dict[str, dict[str, str]] = {}
        self._entries: dict[str, dict[str, _Held | Failure]] = {}
        self._types: dict[str, dict[str, str]] = {}
        self._changed = False

    def __enter__(self) -> StoreWriter:
        with _locked(self.path) as lock:
            self._load()
            self._lock = lock.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def begin(self, database: str, table: SampleTable) -> set[str]:
        """Say what is to be written, and learn what is there already.

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
        self._rows[database] = {sample.sample_id: schema.row_digest(sample) for sample in table}
        self._entries.setdefault(database, {})
        return self._current(database, _Held)

    def failed(self, database: str) -> set[str]:
        """Return the `sample_id`s whose recorded failure is of the present sheet row."""
        return self._current(database, Failure)

    def failures(self, database: str) -> list[tuple[str, str, str]]:
        """Return `(sample_id, stage, reason)` of every recorded failure, earlier builds included, sorted."""
        self._current(database, Failure)
        found = _sorted(self._entries[database], Failure)
        return [(item.sample_id, item.stage, item.reason) for item in found]

    def commit(self, sample_id: str, payload: bytes) -> None:
        """Commit one sample; when this returns, no kill or power cut loses it.

        Args:
            sample_id: The sample, of a database that was begun.
            payload: What `encode_sample` returned.

        Raises:
            StoreError: The payload is not of this sample, or the disk is full.
            StoreMismatchError: The payload does not fit the store or its database.
        """
        database = self._database_of(sample_id)
        stream = io.BytesIO(payload)
        try:
            head = read_head(stream)
            sample, types = head["sample"], head["types"]
        except (ValueError, KeyError) as error:
            raise StoreError(f"not an encoded sample: {error}") from error
        if (sample["sample_id"], sample["database"]) != (sample_id, database):
            raise StoreError(
                f"the payload committed as {sample_id} is of {sample['sample_id']} ({sample['database']})"
            )
        self._check_fit(database, sample_id, types)
        row = self._rows[database][sample_id]
        part = self._put(database, sample_id, with_head(head | {"row_digest": row}, stream.read()))
        self._entries[database][sample_id] = _Held(row, part)
        self._types.setdefault(database, types)

    def fail(self, sample_id: str, stage: str, reason: str) -> None:
        """Record that a sample has no flow; what an older sheet row gave is dropped from the new store.

        Args:
            sample_id: The sample, of a database that was begun.
            stage: Where it failed.
            reason: The message, with its remedy.

        Raises:
            StoreError: The sample is committed already.
        """
        database = self._database_of(sample_id)
        row, present = self._rows[database][sample_id], self._entries[database].get(sample_id)
        failure = Failure(sample_id, stage, reason.replace("\0", ""), row)
        if isinstance(present, _Held) and present.row_digest == row:
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
        self._load()
        return changed

    def _load(self) -> None:
        """Learn what the store and the parts hold, and refuse another pipeline."""
        self._entries = {database: {} for database in self._rows}
        self._types, self._changed = {}, False
        if self.path.exists():
            with FlowStore(self.path) as store:
                remedy = "write to another store, or delete this one to build it anew"
                self._refuse_other({**store.pipeline, **_SCHEMA}, str(self.path), remedy)
                for database in store.databases:
                    self._load_database(store, database)
        manifest = self._parts / MANIFEST
        if not manifest.exists():
            return
        try:
            begun = dict(json.loads(manifest.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{manifest} is damaged ({error}). Delete {self._parts}, build again."
            ) from error
        self._refuse_other(begun, f"the unfinished build in {self._parts}", "delete that folder")
        for path, head in part_heads(self.path):
            database, self._changed = path.parent.name, True
            entries = self._entries.setdefault(database, {})
            with damaged_part(path):
                if "sample" in head:
                    entries[head["sample"]["sample_id"]] = _Held(head["row_digest"], path)
                    self._types.setdefault(database, head["types"])
                else:
                    entries[head["sample_id"]] = Failure(**head)

    def _load_database(self, store: FlowStore, database: str) -> None:
        entries: dict[str, _Held | Failure] = {item.sample_id: item for item in store.failures(database)}
        with damage_explained(self.path, f"the index of {database}"):
            group = store.group(database)
            rows = zip(store.samples(database), schema.read_text(group["row_digest"]), strict=True)
            for at, (sample, row) in enumerate(rows):
                entries[sample.sample_id] = _Held(row, at)
                self._types[database] = chunked_types(group)
        self._entries[database] = entries

    def _refuse_other(self, stored: Mapping[str, Any], where: str, remedy: str) -> None:
        differing = schema.differing_keys(stored, {**self.pipeline, **_SCHEMA})
        if not differing:
            return
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

    def _check_fit(self, database: str, sample_id: str, types: Mapping[str, str]) -> None:
        side = self.map_kind.map_size
        expected = f"{self.options.dtype} {(3, side, side)}"
        if types["flow"] != expected:
            raise StoreMismatchError(
                f"{sample_id}: the payload's flow is {types['flow']}, expected {expected}"
            )
        present = self._types.get(database, types)
        if types != present:
            own, others = (", ".join(f"{k} {v}" for k, v in carried.items()) for carried in (types, present))
            raise StoreMismatchError(
                f"{sample_id} carries {own}, while {database} in {self.path} carries {others}. "
                "Every sample of a database carries the same: "
                "use the same --keep-faces, --keep-clips and dtype, or another store."
            )

    def _put(self, database: str, sample_id: str, content: bytes) -> Path:
        """Write a sample's file into the parts folder, in place of a former one."""
        path = self._parts / database / f"{hashlib.sha256(sample_id.encode()).hexdigest()[:16]}.part"
        with _explained(f"committing {sample_id}", path):
            if not (path.parent.is_dir() and (self._parts / MANIFEST).exists()):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self._parts / MANIFEST, canonical_json({**self.pipeline, **_SCHEMA}).encode())
                sync_folder(self._parts.parent)
            write_whole(path, content)
        self._changed = True
        return path

    def _current(self, database: str, kind: type[_Held] | type[Failure]) -> set[str]:
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
                self._write_to(temporary)
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(self.path)
                sync_folder(self.path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _write_to(self, path: Path) -> None:
        with ExitStack() as opened:
            old = opened.enter_context(FlowStore(self.path)) if self.path.exists() else None
            new = opened.enter_context(h5py.File(path, "w", libver=LIBVER))
            new.attrs["schema_version"] = schema.SCHEMA_VERSION
            new.attrs["created_with"] = f"mer-flow {__version__}"
            new.attrs["pipeline"] = canonical_json(self.pipeline)
            new.attrs["pipeline_hash"] = schema.pipeline_hash(self.pipeline)
            for database in sorted(name for name, entries in self._entries.items() if entries):
                present = old.group(database) if old and database in old.databases else None
                group = create_group(new, database)
                _write_database(group, self._entries[database], present, self.options.compression)


def _write_database(
    group: h5py.Group, entries: Mapping[str, _Held | Failure], present: h5py.Group | None, level: int
) -> None:
    held, failures = _sorted(entries, _Held), _sorted(entries, Failure)
    small = {name: np.full((len(held), *shape), np.nan, dtype) for name, (shape, dtype) in SMALL.items()}
    rows = []
    for row, (arrays, at, *texts) in enumerate(_sources(held, present)):
        rows.append(texts)
        for name in CHUNKED:
            if name in arrays:
                _copy_chunk(arrays[name], at, group, row, len(held))
        for name in SMALL:
            if name in arrays:
                small[name][row] = arrays[name][at]
    samples, notes, digests = zip(*rows, strict=True) if rows else ((), (), ())
    schema.write_samples(create_group(group, "samples"), samples, level)
    for name, array in small.items():
        if not np.isnan(array).all():
            write_column(group, name, array, level)
    write_column(group, "notes", notes, level)
    write_column(group, "row_digest", [item.row_digest for item in held], level)
    write_column(group, "content_digest", digests, level)
    schema.write_failures(create_group(group, "failures"), failures, level)


def _sources(
    held: list[_Held], present: h5py.Group | None
) -> Iterator[tuple[Mapping[str, Any], int, Sample, str, str]]:
    """Yield the arrays that hold each sample, where in them, its table row, its notes, its content digest."""
    arrays: dict[str, Any] = {}
    rows: list[tuple[Sample, str, str]] = []
    if present is not None:
        arrays = {name: present[name] for name in CHUNKED if name in present}
        arrays |= {name: present[name][()] for name in SMALL if name in present}
        texts = [schema.read_text(present[name]) for name in ("notes", "content_digest")]
        rows = list(zip(schema.read_samples(present), *texts, strict=True))
    for item in held:
        if isinstance(item.place, int):
            yield arrays, item.place, *rows[item.place]
        else:
            with damaged_part(item.place), item.place.open("rb") as stream:
                head = read_head(stream)
                image = h5py.File(io.BytesIO(stream.read()), "r")
            with image:
                yield image, 0, Sample(**head["sample"]), head["notes"], head["content_digest"]


def _copy_chunk(source: h5py.Dataset, at: int, group: h5py.Group, row: int, count: int) -> None:
    """Copy one sample's chunk without decoding it; its checksum travels with it."""
    name, inner = source.name.rpartition("/")[2], source.shape[1:]
    if name not in group:
        level = source.compression_opts
        schema.create_dataset(group, name, (count, *inner), source.dtype, (1, *inner), level)
    corner = (0,) * len(inner)
    mask, chunk = source.id.read_direct_chunk((at, *corner))
    group[name].id.write_direct_chunk((row, *corner), chunk, mask)


def _sorted(entries: Mapping[str, _Held | Failure], kind: type[_Entry]) -> list[_Entry]:
    return [entries[key] for key in sorted(entries, key=sample_order) if isinstance(entries[key], kind)]


def _locked(store: Path) -> ExitStack:
    """Lock a store against other writers until the stack is closed."""
    path = store.with_name(store.name + ".lock")
    stack = ExitStack()
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(hold(path))
    except LockHeldError as error:
        raise StoreBusyError(
            f"{store} is being written by another build ({error}). "
            "Wait until it ends, or stop it: what it committed is kept."
        ) from error
    except (OSError, NotImplementedError) as error:  # the latter where a file system knows no locks
        raise StoreError(
            f"cannot make the lock file {path}: {error}. "
            "Choose a --store folder on a local disk that you may write to."
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
