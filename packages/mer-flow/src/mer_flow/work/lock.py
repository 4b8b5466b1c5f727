"""One writer per store: an advisory lock that the kernel drops when its holder dies."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType

from mer_flow.work.errors import StoreBusyError, StoreError

try:
    import fcntl
except ImportError:  # Windows: stores are read there, not written
    fcntl = None  # type: ignore[assignment]


class StoreLock:
    """An exclusive `flock` on `<store>.lock`.

    The lock belongs to the process, not to the file's existence: after `kill -9` it is free at once. The file
    is removed on release.

    Args:
        store: Path of the store that is protected.
    """

    def __init__(self, store: Path):
        self.store = store
        self.path = store.with_name(store.name + ".lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock without waiting.

        Raises:
            StoreBusyError: Another process holds it.
            StoreError: The lock file cannot be made.
        """
        if fcntl is None:
            raise StoreError(
                f"{self.store}: writing a store needs POSIX file locks (Linux, macOS); "
                "reading works everywhere"
            )
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise StoreError(
                    f"cannot make the lock file {self.path}: {error.strerror}. "
                    "Choose a --store folder that you may write to."
                ) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "unknown process"
                os.close(descriptor)
                raise StoreBusyError(
                    f"{self.store} is being written by another build ({holder}). "
                    "Wait until it ends, or stop it: what it committed is kept."
                ) from error
            except OSError as error:
                os.close(descriptor)
                raise StoreError(
                    f"{self.path}: this file system offers no locks ({error.strerror}). Use a local folder."
                ) from error
            if self._is_current(descriptor):
                break
            os.close(descriptor)  # the former holder removed the file between our open and our lock
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Frees the lock and removes its file."""
        if self._descriptor is None:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def __enter__(self) -> StoreLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
