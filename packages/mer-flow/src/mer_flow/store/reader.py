"""FlowStore: reading a store of onset-to-apex flow, lazily and in any number of processes."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mer_flow.samples import Sample, SampleTable, row_fault
from mer_flow.store import guard, schema
from mer_flow.store.encode import part_heads
from mer_flow.store.guard import DAMAGE
from mer_flow.store.schema import Failure, MapKind
from mer_flow.work.errors import StoreError
from mer_flow.work.files import size_of
from mer_flow.work.suggest import unknown

ROOT_ATTRIBUTES = ("schema_version", "created_with", "pipeline", "pipeline_hash")

#: One sample, a slice, or a sequence of sample indices in any order, repeats allowed.
Index = int | slice | Sequence[int] | np.ndarray


class FlowStore:
    """A store, open for reading.

    Cheap to make, to pickle and to send to spawned or forked processes: each process opens the file itself on
    first use. Nothing is ever written. A store that is rebuilt meanwhile goes on being read as it was when it
    was opened.

    Raises:
        StoreError: The file is missing, is not a store, or is of another schema version.
    """

    def __init__(self, path: Path | str):
        self.__setstate__({"path": Path(path)})
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path: Path = state["path"]
        self._file: h5py.File | None = None
        self._owner = 0
        self._about: dict[str, Any] = {}
        self._tables: dict[str, SampleTable] = {}
        self._fitting: set[tuple[str, str]] = set()

    def __enter__(self) -> FlowStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"FlowStore('{self.path}')"

    def close(self) -> None:
        """Close the file in this process; the next use opens it again."""
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
        return int(self._root("schema_version"))

    @property
    def created_with(self) -> str:
        """Name and version of the program that wrote the file."""
        return str(self._root("created_with"))

    @property
    def pipeline(self) -> dict[str, Any]:
        """Every parameter that the maps were made with."""
        content: dict[str, Any] = json.loads(self._root("pipeline"))
        return content

    @property
    def builds(self) -> list[dict[str, str]]:
        """Library versions of each build that differed, the one that began the store first."""
        return [self.pipeline.get("versions", {}), *guard.read_builds({"builds": self._root("builds")})]

    @property
    def pipeline_hash(self) -> str:
        """SHA-256 of the pipeline, in hex."""
        return str(self._root("pipeline_hash"))

    @property
    def map_kind(self) -> MapKind:
        """What the maps are: computed or imported, their size and what their values mean."""
        return MapKind.of(self.pipeline)

    @property
    def values(self) -> str:
        """`px`, or `minmax-255` where the maps came min-max scaled."""
        return self.map_kind.values

    @property
    def map_size(self) -> int:
        """Side of a map in pixels."""
        return self.map_kind.map_size

    def samples(self, database: str) -> SampleTable:
        """Return the sample table of one database, in the order of its arrays."""
        group = self.group(database)
        if database not in self._tables:
            with damage_explained(self.path, f"the samples of {database}"):
                rows = schema.read_table(group["samples"], Sample)
                if fault := next(filter(None, map(row_fault, rows)), ""):
                    raise ValueError(fault)
                self._tables[database] = SampleTable(rows)
        return self._tables[database]

    def table(self) -> SampleTable:
        """Return all samples, database after database."""
        return SampleTable(sample for database in self.databases for sample in self.samples(database))

    def has(self, database: str, what: str) -> bool:
        """Say whether any sample of a database carries one of `schema.INGREDIENTS`."""
        if what not in schema.INGREDIENTS:
            raise unknown("ingredient", what, schema.INGREDIENTS)
        return what in self.group(database)

    def flow(self, database: str) -> FlowMaps:
        """Return the maps of a database as a lazy array `(N, 3, S, S)`; indexing reads."""
        self.group(database)
        return FlowMaps(self, database)

    def read_flow(self, database: str, index: Index, channels: int = 3) -> np.ndarray:
        """Read maps; with 2 channels u and v alone.

        Returns:
            `(channels, S, S)` float32 for one index, else `(M, channels, S, S)`: u, v in px (+x right, +y
            down), strain.

        Raises:
            StoreError: A checksum is wrong.
        """
        return self._read(database, "flow", index)[..., :channels, :, :].astype(np.float32)

    def landmarks(self, database: str) -> np.ndarray:
        """Return `(N, 68, 2)` float32 x, y in px on the aligned apex; NaN for a sample without."""
        return self._small(database, "landmarks")

    def regions(self, database: str) -> np.ndarray:
        """Return `(N, 5, 2)` float32 x, y in px, ordered as `schema.REGIONS`; NaN for a sample without."""
        return self._small(database, "regions")

    def alignment(self, database: str) -> np.ndarray:
        """Return `(N, 2, 3)` float64, the similarity from image to face; NaN for a sample without."""
        return self._small(database, "alignment")

    def faces(self, database: str, index: Index) -> np.ndarray:
        """Read aligned onset and apex: uint8 `(2, S, S[, 3])`, a leading axis for several samples."""
        return self._read(database, "faces", index)

    def clips(self, database: str, index: Index) -> np.ndarray:
        """Read aligned clips in time order: uint8 `(K, S, S[, 3])`, a leading axis for several samples."""
        return self._read(database, "clips", index)

    def flow_sequence(self, database: str, index: Index) -> np.ndarray:
        """Read flow along clips, head motion removed.

        Between which frames is in `pipeline["keep"]["sequence"]`, the frames' numbers are in `notes`.

        Returns:
            `(K - 1, 2, S', S')` float32: u, v in px of the S' × S' map; a leading axis for several samples.
        """
        return self._read(database, "flow_sequence", index).astype(np.float32)

    def notes(self, database: str) -> list[dict[str, Any]]:
        """Return what was decided per sample: fallbacks, substituted frames, scores."""
        with damage_explained(self.path, f"the notes of {database}"):
            return [json.loads(text) for text in schema.read_text(self.group(database)["notes"])]

    def failures(self, database: str) -> tuple[Failure, ...]:
        """Return the samples that have no flow, and why."""
        with damage_explained(self.path, f"the failures of {database}"):
            return tuple(schema.read_table(self.group(database)["failures"], Failure))

    def content_digests(self, database: str) -> list[str]:
        """Return the SHA-256 of each sample's arrays, as computed when it was encoded."""
        with damage_explained(self.path, f"the digests of {database}"):
            return schema.read_text(self.group(database)["content_digest"])

    def digest(self, databases: Sequence[str] | None = None) -> str:
        """Return the SHA-256 of pipeline, samples and arrays, of some or all databases, in any layout."""
        content: list[Any] = [schema.SCHEMA_VERSION, self.pipeline_hash]
        for database in sorted(databases) if databases is not None else self.databases:
            rows = [asdict(row) for row in self.samples(database)]
            content.append([database, rows, self.content_digests(database)])
        return hashlib.sha256(schema.canonical_json(content).encode()).hexdigest()

    def group(self, database: str) -> h5py.Group:
        """Return the HDF5 group of a database."""
        file = self._open()
        if database not in file:
            raise unknown(f"database in {self.path}", database, file)
        with damage_explained(self.path, database):
            return file[database]

    def _open(self) -> h5py.File:
        # A forked child must not share its parent's handle.
        if self._file is None or self._owner != os.getpid():
            self._file, self._about = _open_checked(self.path)
            self._owner = os.getpid()
        return self._file

    def _root(self, name: str) -> Any:
        """Return a root attribute, as it was checked when the file was opened."""
        self._open()
        return self._about.get(name, "[]")

    def _dataset(self, database: str, what: str) -> h5py.Dataset:
        """Return an ingredient whose shape and type fit the maps."""
        dataset = self.group(database)[what]
        if (database, what) not in self._fitting:
            if expected := schema.misfit(what, dataset.shape[1:], str(dataset.dtype), self.map_size):
                raise ValueError(f"each is {dataset.dtype} {dataset.shape[1:]}, expected {expected}")
            self._fitting.add((database, what))
        return dataset

    def _lacking(self, database: str, what: str) -> StoreError:
        imported = "its maps were imported; " if self.map_kind.kind == "imported" else ""
        return StoreError(
            f"{self.path}: {database} holds no {what}; {imported}build with {schema.provided_by([what])}"
        )

    def _small(self, database: str, what: str) -> np.ndarray:
        if what in self.group(database):
            with damage_explained(self.path, f"{what} of {database}"):
                return np.asarray(self._dataset(database, what)[()])
        if len(self.samples(database)) == 0:
            return np.empty((0, *schema.SMALL[what][0]), schema.SMALL[what][1])
        raise self._lacking(database, what)

    def _read(self, database: str, what: str, index: Index) -> np.ndarray:
        if what not in self.group(database):
            if what == "flow" and not isinstance(index, int | np.integer):
                return np.empty((0, 3, self.map_size, self.map_size), np.float16)
            raise self._lacking(database, what)
        with damage_explained(self.path, f"{what} of {database}"):
            dataset = self._dataset(database, what)
            if isinstance(index, slice) and index.step in (None, 1):
                return np.asarray(dataset[index])
            count, shape = len(dataset), dataset.shape[1:]
        if isinstance(index, slice):
            index = range(count)[index]
        rows = [operator.index(row) for row in np.atleast_1d(index)]
        for row in rows:
            if not -count <= row < count:
                raise IndexError(f"sample {row} of {database}, which has {count}")
        with damage_explained(self.path, f"{what} of {database}"):
            if np.ndim(index) == 0:
                return np.asarray(dataset[rows[0] % count])
            values = np.empty((len(rows), *shape), dataset.dtype)
            for at, row in enumerate(rows):
                values[at] = dataset[row % count]
            return values


def open_store(path: Path | str) -> FlowStore:
    """Open a store for reading.

    Args:
        path: The HDF5 file.

    Raises:
        StoreError: The file is missing, is not a store, or is of another schema version.
    """
    return FlowStore(path)


class FlowMaps:
    """The maps of one database as a lazy array: `maps[3]`, `maps[2:9]`, `maps[[4, 1]]`, `len(maps)`.

    A store may keep float16; indexing returns float32.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, store: FlowStore, database: str):
        self._store, self._database = store, database

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, 3, S, S)`."""
        side = self._store.map_size
        return len(self._store.samples(self._database)), 3, side, side

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> np.ndarray:
        return self._store.read_flow(self._database, index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)


def damage_explained(path: Path, what: str) -> AbstractContextManager[None]:
    """Turn what h5py raises on a damaged file into one error that says what to do."""
    remedy = f"Run `mer-flow verify {path}`; if it is damaged, delete it and build again."
    return schema.explained(f"{path}: reading {what} failed ({{}}). {remedy}", *DAMAGE)


def _open_checked(path: Path) -> tuple[h5py.File, dict[str, Any]]:
    """Open a store file and read its root attributes, or say what is wrong with it."""
    if not path.exists():
        if schema.parts_folder(path).is_dir():
            raise StoreError(
                f"{path} does not exist yet: an unfinished build has committed {unfinished(path)} sample(s). "
                "Run the same build again to finish it."
            )
        raise StoreError(
            f"no store at {path}. Build one with `mer-flow build`, or `mer-flow demo` without a database."
        )
    reason = "a folder" if path.is_dir() else "not a readable HDF5 file ({})"
    expected = "expected a store written by `mer-flow build` or `mer-flow import`"
    remedy = "If it was one, it is damaged: delete it and build again."
    with schema.explained(f"{path} is {reason}; {expected}. {remedy}", OSError):
        size_of(path)
        file = h5py.File(path, "r", locking=False)
    try:
        return file, _checked(path, file)
    except BaseException:
        file.close()
        raise


def _checked(path: Path, file: h5py.File) -> dict[str, Any]:
    """Return the root attributes; refuse another schema, a damaged root and a file made to harm."""
    with _refused(path):
        about = guard.root_attributes(file, (*ROOT_ATTRIBUTES, "builds"))
    missing = [name for name in ROOT_ATTRIBUTES if name not in about]
    if missing:
        raise StoreError(f"{path} is an HDF5 file but not a flow store: it lacks the attributes {missing}.")
    version = about["schema_version"]
    if version != schema.SCHEMA_VERSION:
        newer = isinstance(version, int | np.integer) and version > schema.SCHEMA_VERSION
        raise StoreError(
            f"{path} follows schema {version} (written by {about['created_with']}), this mer-flow reads "
            f"schema {schema.SCHEMA_VERSION}: {'upgrade mer-flow' if newer else 'build it again'}."
        )
    with _refused(path):
        guard.read_pipeline(about)
        guard.read_builds(about)
        guard.check_objects(file)
    return about


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Name the file that the guard refuses, or that is too damaged to be looked at."""
    remedy = "It is damaged or was not written by mer-flow; delete it and build or fetch it again."
    with schema.explained(f"{path} is refused: {{}}. {remedy}", StoreError, *DAMAGE):
        yield


def unfinished(store: Path) -> int:
    """Return how many samples an unfinished build beside a store has committed."""
    return sum("sample" in head for _, head in part_heads(store))
