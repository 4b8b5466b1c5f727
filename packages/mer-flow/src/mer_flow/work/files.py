"""Output files and folders that exist whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mer_flow.work.errors import LockHeldError, UsageError
from mer_flow.work.lock import hold, holder

#: What systems answer that cannot sync a folder.
_NO_FOLDER_SYNC = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)


def size_of(path: Path) -> int:
    """Return a file's size in bytes; refuse a pipe, a socket or a device, whose reading may never end.

    Raises:
        OSError: It is one, or there is nothing.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EINVAL, "a pipe, a socket or a device, expected a file", str(path))
    return found.st_size


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it exists whole or not at all, also after a power cut.

    Meanwhile `<name>.tmp` lies beside it; only a kill leaves that behind.

    Raises:
        OSError: The disk is full or the file cannot be written; a present file is kept.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


@contextmanager
def new_file(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path that becomes `out` when the block ends well, and vanishes when it does not.

    What a killed process left of it is removed first.

    Args:
        out: Missing folders above it are made.
        overwrite: Replace a present file.

    Raises:
        UsageError: `out` exists and is not to be replaced, is a folder, or another process writes it.
    """
    with _growing(out) as part:
        if out.is_dir() or (out.exists() and not overwrite):
            what = "is a folder" if out.is_dir() else "exists already"
            raise UsageError(f"{out} {what}. Name another file, or pass --overwrite to replace a file.")
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(out)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `out` when the block ends well, and vanishes when it does not.

    Missing folders above it are made; what a killed process left of it is removed first.

    Raises:
        UsageError: `out` exists and is not an empty folder, or another process writes it.
    """
    with _growing(out) as part:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(
                f"{out} exists and is not an empty folder. Name a new folder, or remove this one first."
            )
        part.mkdir()
        yield part
        if out.exists():
            out.rmdir()
        part.rename(out)


@contextmanager
def _growing(out: Path) -> Iterator[Path]:
    """Give the path beside `out` under which it grows, to one process at a time; nothing is left of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    with ExitStack() as held:
        try:
            held.enter_context(hold(out.with_name(f".{out.name}.lock")))
        except LockHeldError as error:
            raise UsageError(f"{out} is being written by {error}. Wait for it, or name another.") from error
        _remove(part)
        try:
            yield part
        except OSError as error:
            error.filename = error.filename or str(out)  # a failed write does not name its file
            raise
        finally:
            _remove(part)


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Give a folder in TMPDIR that vanishes after the block; those that killed processes left go first.

    Args:
        prefix: Of its name, which is the program's own, as in `mer-bench`.
    """
    home = Path(tempfile.gettempdir())
    for lock in home.glob(f"{prefix}-*.lock"):
        with suppress(OSError, LockHeldError):
            if lock.lstat().st_uid == os.getuid() and holder(lock) is None:
                with hold(lock):
                    _remove(lock.with_suffix(""))
    folder = home / f"{prefix}-{uuid.uuid4().hex}"
    with hold(folder.with_suffix(".lock")):  # first, so that no other process takes the folder for a leftover
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
