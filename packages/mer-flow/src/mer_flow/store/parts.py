"""The parts folder: what a running or interrupted build has committed, one small file per sample."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py

from mer_flow.store.record import read_head
from mer_flow.store.schema import SCHEMA_VERSION, canonical_json
from mer_flow.work.errors import StoreError
from mer_flow.work.files import sync_folder, write_whole

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Part:
    """A committed sample that no store file holds yet."""

    sample_id: str
    row_digest: str
    path: Path


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that has no flow, and why.

    Attributes:
        sample_id: The sample.
        stage: Where it failed: `frames`, `face`, `flow` ...
        reason: The message, with its remedy.
        row_digest: Digest of the sheet row it was tried with; a changed row is tried again.
    """

    sample_id: str
    stage: str
    reason: str
    row_digest: str


class PartsFolder:
    """The folder `<store>.parts`.

    It holds `manifest.json`, then `<database>/<key>-<row>.h5` and `<database>/<key>.failed.json`.

    Every file is written under another name, synced and renamed, so that it exists whole or not at all. A
    failure is removed before the part that replaces it, never after, so that it cannot outlive the part and
    hide the sample.

    Args:
        store: Path of the store that the parts belong to.
    """

    def __init__(self, store: Path):
        self.path = store.with_name(store.name + ".parts")

    def manifest(self) -> dict[str, Any] | None:
        """Returns the pipeline that the parts were made with; None where there are none.

        Raises:
            StoreError: The manifest is of another schema or unreadable.
        """
        try:
            content = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            version, pipeline = content["schema_version"], content["pipeline"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.path / MANIFEST} is damaged ({error}). Delete {self.path} and build again."
            ) from error
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: made by a version of mer-flow with schema {version}, this one writes "
                f"{SCHEMA_VERSION}. Finish that build with the version that began it, or delete the folder."
            )
        return dict(pipeline)

    def start(self, pipeline: Mapping[str, Any]) -> None:
        """Makes the folder and its manifest where they are missing."""
        if self.manifest() is None:
            with explained("starting a build", self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                sync_folder(self.path.parent)
                text = canonical_json({"schema_version": SCHEMA_VERSION, "pipeline": pipeline})
                write_whole(self.path / MANIFEST, text.encode())

    def databases(self) -> list[str]:
        """Returns the databases with parts or failures."""
        if not self.path.is_dir():
            return []
        return sorted(folder.name for folder in self.path.iterdir() if folder.is_dir())

    def parts(self, database: str) -> dict[str, Part]:
        """Returns the committed parts of a database by `sample_id`."""
        found = {}
        for path in sorted((self.path / database).glob("*.h5")):
            try:
                with h5py.File(path, "r", locking=False) as image:
                    sample_id = read_head(image).sample.sample_id
            except OSError as error:
                raise StoreError(
                    f"{path} is damaged ({error}). Delete it; the same command computes that sample again."
                ) from error
            found[sample_id] = Part(sample_id, path.stem.rsplit("-", 1)[1], path)
        return found

    def failures(self, database: str) -> dict[str, Failure]:
        """Returns the recorded failures of a database by `sample_id`."""
        found = {}
        for path in sorted((self.path / database).glob("*.failed.json")):
            failure = Failure(**json.loads(path.read_text(encoding="utf-8")))
            found[failure.sample_id] = failure
        return found

    def commit(self, database: str, sample_id: str, row: str, payload: bytes) -> Part:
        """Commits an encoded sample; a part from a former sheet row is dropped first."""
        folder = self._folder(database)
        path = folder / f"{_key(sample_id)}-{row}.h5"
        with explained(f"committing {sample_id}", path):
            self._drop_parts(folder, sample_id, keep=path)
            write_whole(path, payload)
            (folder / f"{_key(sample_id)}.failed.json").unlink(missing_ok=True)
        return Part(sample_id, row, path)

    def fail(self, database: str, failure: Failure) -> None:
        """Records a failure."""
        folder = self._folder(database)
        path = folder / f"{_key(failure.sample_id)}.failed.json"
        with explained(f"recording the failure of {failure.sample_id}", path):
            self._drop_parts(folder, failure.sample_id)
            write_whole(path, canonical_json(asdict(failure)).encode())

    def size(self) -> int:
        """Returns the bytes of all files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def remove(self) -> None:
        """Removes the folder, the manifest last: what a kill leaves is assembled to the same bytes again."""
        for database in self.databases():
            folder = self.path / database
            for pattern in ("*.failed.json", "*"):
                for path in folder.glob(pattern):
                    path.unlink()
            folder.rmdir()
        for path in self.path.glob("*.tmp"):
            path.unlink()
        (self.path / MANIFEST).unlink(missing_ok=True)
        if self.path.is_dir():
            self.path.rmdir()

    def _folder(self, database: str) -> Path:
        folder = self.path / database
        if not folder.is_dir():
            with explained("making a folder", folder):
                folder.mkdir(parents=True)
                sync_folder(self.path)
        return folder

    @staticmethod
    def _drop_parts(folder: Path, sample_id: str, keep: Path | None = None) -> None:
        for path in folder.glob(f"{_key(sample_id)}-*.h5"):
            if path != keep:
                path.unlink()


def _key(sample_id: str) -> str:
    return hashlib.sha256(sample_id.encode()).hexdigest()[:16]


@contextmanager
def explained(what: str, path: Path) -> Iterator[None]:
    """Turns an operating system's error into one that says what to do; none of them loses a commit."""
    try:
        yield
    except OSError as error:
        kept = "Nothing committed is lost"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(
                f"the disk is full ({what}, {path}: {error.strerror}). {kept}: "
                "free space and run the same command again."
            ) from error
        raise StoreError(
            f"{what} failed at {path}: {error}. {kept}: mend the cause and run the same command again."
        ) from error
