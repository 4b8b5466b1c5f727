"""FlowStore: reading a store of onset-to-apex flow, lazily and in any number of processes."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from mer_flow.samples import Sample, SampleTable
from mer_flow.store.parts import Failure
from mer_flow.store.schema import (
    INGREDIENTS,
    PROVIDED_BY,
    SCHEMA_VERSION,
    SMALL,
    MapKind,
    canonical_json,
    read_samples,
    read_text,
)
from mer_flow.work.errors import StoreError
from mer_flow.work.suggest import unknown

__all__ = ["Failure", "FlowMaps", "FlowStore"]

#: What reading a damaged file may raise, besides this package's own errors.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)

ROOT_ATTRIBUTES = ("schema_version", "created_with", "pipeline", "pipeline_hash")


class FlowStore:
    """A store, open for reading.

    Cheap to make, to pickle and to send to spawned or forked processes: each process opens the file itself on
    first use. Nothing is ever written. A store that is rebuilt meanwhile goes on being read as it was when it
    was opened.

    Args:
        path: The HDF5 file.

    Raises:
        StoreError: The file is missing, is not a store, or is of another schema version.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._owner = 0
        self._tables: dict[str, SampleTable] = {}
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._file, self._owner, self._tables = None, 0, {}

    def __enter__(self) -> FlowStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FlowStore('{self.path}')"

    def close(self) -> None:
        """Closes the file in this process; the next use opens it again."""
        if self._file is not None and self._owner == os.getpid():
            self._file.close()
        self._file = None

    @property
    def databases(self) -> tuple[str, ...]:
        """The databases, sorted."""
        return tuple(sorted(self._open()))

    @property
    def schema_version(self) -> int:
        """Version of the schema that the file follows."""
        return int(self._open().attrs["schema_version"])

    @property
    def created_with(self) -> str:
        """Name and version of the program that wrote the file."""
        return str(self._open().attrs["created_with"])

    @property
    def pipeline(self) -> dict[str, Any]:
        """Every parameter that the maps were made with."""
        content: dict[str, Any] = json.loads(self._open().attrs["pipeline"])
        return content

    @property
    def pipeline_hash(self) -> str:
        """SHA-256 of the pipeline, in hex."""
        return str(self._open().attrs["pipeline_hash"])

    @property
    def map_kind(self) -> MapKind:
        """What the maps are: computed or imported, their size and what their values mean."""
        return MapKind.of(self.pipeline)

    @property
    def kind(self) -> str:
        """`computed` or `imported`."""
        return self.map_kind.kind

    @property
    def values(self) -> str:
        """`px`, or `minmax-255` where the maps came min-max scaled."""
        return self.map_kind.values

    @property
    def map_size(self) -> int:
        """Side of a map in pixels."""
        return self.map_kind.map_size

    def samples(self, database: str) -> SampleTable:
        """Returns the sample table of one database, in the order of its arrays.

        Raises:
            UsageError: The store does not hold this database.
        """
        group = self._group(database)
        if database not in self._tables:
            with damage_explained(self.path, f"the samples of {database}"):
                self._tables[database] = SampleTable(read_samples(group["samples"]))
        return self._tables[database]

    def table(self) -> SampleTable:
        """Returns all samples, database after database."""
        return SampleTable(sample for database in self.databases for sample in self.samples(database))

    def has(self, database: str, what: str) -> bool:
        """Says whether any sample of a database carries an ingredient.

        Args:
            database: The database.
            what: One of `flow`, `faces`, `clips`, `flow_sequence`, `landmarks`, `regions`, `alignment`.
        """
        if what not in INGREDIENTS:
            raise unknown("ingredient", what, INGREDIENTS)
        return what in self._group(database)

    def flow(self, database: str) -> FlowMaps:
        """Returns the maps of a database as a lazy array `(N, 3, S, S)`; indexing reads."""
        self._group(database)
        return FlowMaps(self, database)

    def read_flow(
        self, database: str, index: int | slice | Sequence[int] | np.ndarray, channels: int = 3
    ) -> np.ndarray:
        """Reads maps.

        Args:
            database: The database.
            index: One sample, a slice, or any sequence of sample indices (in any order, repeats allowed).
            channels: 3 for u, v and strain; 2 for u and v alone.

        Returns:
            `(channels, S, S)` float32 for one index, else `(M, channels, S, S)`: u, v in px (+x right, +y
            down), strain.

        Raises:
            StoreError: A checksum is wrong.
        """
        return self._read(database, "flow", index, slice(0, channels)).astype(np.float32)

    def landmarks(self, database: str) -> np.ndarray:
        """Returns `(N, 68, 2)` float32 x, y in px on the aligned apex; NaN for a sample without."""
        return self._small(database, "landmarks")

    def regions(self, database: str) -> np.ndarray:
        """Returns `(N, 5, 2)` float32 x, y in px, ordered as `schema.REGIONS`; NaN for a sample without."""
        return self._small(database, "regions")

    def alignment(self, database: str) -> np.ndarray:
        """Returns `(N, 2, 3)` float64, the similarity from image to face; NaN for a sample without."""
        return self._small(database, "alignment")

    def notes(self, database: str) -> list[dict[str, Any]]:
        """Returns what was decided per sample: fallbacks, substituted frames, scores."""
        with damage_explained(self.path, f"the notes of {database}"):
            return [json.loads(text) for text in read_text(self._group(database)["notes"])]

    def faces(self, database: str, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """Reads aligned onset and apex: uint8 `(2, S, S[, 3])`, a leading axis for several samples."""
        return self._read(database, "faces", index)

    def clips(self, database: str, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """Reads aligned clips in time order: uint8 `(K, S, S[, 3])`, a leading axis for several samples."""
        return self._read(database, "clips", index)

    def flow_sequence(self, database: str, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """Reads flow along clips, head motion removed.

        Between which frames is in `pipeline["keep"]["sequence"]`, the frames' numbers are in `notes`.

        Args:
            database: The database.
            index: As in `read_flow`.

        Returns:
            `(K - 1, 2, S', S')` float32: u, v in px of the S' × S' map; a leading axis for several samples.

        Raises:
            StoreError: The store holds none, or a checksum is wrong.
        """
        return self._read(database, "flow_sequence", index).astype(np.float32)

    def failures(self, database: str) -> tuple[Failure, ...]:
        """Returns the samples that have no flow, and why."""
        with damage_explained(self.path, f"the failures of {database}"):
            group = self._group(database)["failures"]
            columns = [read_text(group[name]) for name in ("sample_id", "stage", "reason", "row_digest")]
        return tuple(Failure(*row) for row in zip(*columns, strict=True))

    def content_digests(self, database: str) -> list[str]:
        """Returns the SHA-256 of each sample's arrays, as computed when it was encoded."""
        with damage_explained(self.path, f"the digests of {database}"):
            return read_text(self._group(database)["content_digest"])

    def digest(self, databases: Sequence[str] | None = None) -> str:
        """Returns the SHA-256 of pipeline, samples and arrays, whatever their compression and layout.

        Args:
            databases: Restrict to these; all unless given.
        """
        content: list[Any] = [SCHEMA_VERSION, self.pipeline_hash]
        for database in sorted(databases) if databases is not None else self.databases:
            rows: list[Sample] = list(self.samples(database))
            content.append([database, [asdict(row) for row in rows], self.content_digests(database)])
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def _open(self) -> h5py.File:
        if (
            self._file is None or self._owner != os.getpid()
        ):  # a forked child must not share its parent's handle
            self._file = open_checked(self.path)
            self._owner = os.getpid()
        return self._file

    def _group(self, database: str) -> h5py.Group:
        file = self._open()
        if database not in file:
            raise unknown(f"database in {self.path}", database, file)
        with damage_explained(self.path, database):
            return file[database]

    def _lacking(self, database: str, what: str) -> StoreError:
        remedy = f"build with {PROVIDED_BY[what]}"
        if self.kind == "imported":
            remedy = f"its maps were imported; {remedy}"
        return StoreError(f"{self.path}: {database} holds no {what}; {remedy}")

    def _small(self, database: str, what: str) -> np.ndarray:
        group = self._group(database)
        if what in group:
            with damage_explained(self.path, f"{what} of {database}"):
                return np.asarray(group[what][()])
        if len(self.samples(database)) == 0:
            shape, dtype = SMALL[what]
            return np.empty((0, *shape), dtype)
        raise self._lacking(database, what)

    def _read(
        self,
        database: str,
        what: str,
        index: int | slice | Sequence[int] | np.ndarray,
        channels: slice | None = None,
    ) -> np.ndarray:
        group = self._group(database)
        if what not in group:
            if what == "flow" and not isinstance(index, int | np.integer):
                return np.empty((0, 3, self.map_size, self.map_size), np.float16)[:, channels or slice(None)]
            raise self._lacking(database, what)
        with damage_explained(self.path, f"{what} of {database}"):
            dataset = group[what]
        inner = () if channels is None else (channels,)
        with damage_explained(self.path, f"{what} of {database}", (OSError,)):
            if isinstance(index, int | np.integer):
                return np.asarray(dataset[(_within(operator.index(index), len(dataset), database), *inner)])
            if isinstance(index, slice):
                if index.step in (None, 1):
                    return np.asarray(dataset[(index, *inner)])
                index = range(*index.indices(len(dataset)))
            wanted = [_within(operator.index(i), len(dataset), database) for i in index]
            shape = dataset[(slice(0, 0), *inner)].shape[1:]
            values = np.empty((len(wanted), *shape), dataset.dtype)
            for row, at in enumerate(wanted):
                values[row] = dataset[(at, *inner)]
            return values


class FlowMaps:
    """The maps of one database as a lazy array: `maps[3]`, `maps[2:9]`, `maps[[4, 1]]`, `len(maps)`.

    Args:
        store: Where to read.
        database: The database.
    """

    def __init__(self, store: FlowStore, database: str):
        self._store, self._database = store, database

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, 3, S, S)`."""
        side = self._store.map_size
        return len(self._store.samples(self._database)), 3, side, side

    @property
    def dtype(self) -> np.dtype:
        """What indexing returns, float32; a store may keep float16."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        return self._store.read_flow(self._database, index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)


@contextmanager
def damage_explained(path: Path, what: str, damage: tuple[type[Exception], ...] = DAMAGE) -> Iterator[None]:
    """Turns what h5py raises on a damaged file into one error that says what to do.

    Args:
        path: The store.
        what: What is read.
        damage: The exceptions that count.

    Raises:
        StoreError: The block raised one of them.
    """
    try:
        yield
    except damage as error:
        raise StoreError(
            f"{path}: reading {what} failed ({error}). Run `mer-flow verify {path}`; if it is damaged, "
            "delete it and build again."
        ) from error


def _within(index: int, length: int, database: str) -> int:
    if not -length <= index < length:
        raise IndexError(f"sample {index} of {database}, which has {length}")
    return index % length


def open_checked(path: Path) -> h5py.File:
    """Opens a store file, or says what is wrong with it.

    Raises:
        StoreError: The file is missing, is not HDF5, is not a store, or is of another schema version.
    """
    if not path.exists():
        unfinished = path.with_name(path.name + ".parts")
        if unfinished.is_dir():
            count = sum(1 for _ in unfinished.rglob("*.h5"))
            raise StoreError(
                f"{path} does not exist yet: an unfinished build has committed {count} sample(s). "
                "Run the same build again to finish it."
            )
        raise StoreError(
            f"no store at {path}. Build one with `mer-flow build`, or `mer-flow demo` without a database."
        )
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        reason = "a folder" if path.is_dir() else f"not a readable HDF5 file ({error})"
        raise StoreError(
            f"{path} is {reason}; expected a store written by `mer-flow build` or `mer-flow import`. "
            "If it was one, it is damaged: delete it and build again."
        ) from error
    missing = [name for name in ROOT_ATTRIBUTES if name not in file.attrs]
    if missing:
        file.close()
        raise StoreError(
            f"{path} is an HDF5 file but not a flow store: root attributes {missing} are missing."
        )
    version = int(file.attrs["schema_version"])
    if version != SCHEMA_VERSION:
        written = file.attrs["created_with"]
        file.close()
        remedy = "upgrade mer-flow" if version > SCHEMA_VERSION else "build it again"
        raise StoreError(
            f"{path} follows schema {version} (written by {written}), this mer-flow reads schema "
            f"{SCHEMA_VERSION}: {remedy}."
        )
    return file
