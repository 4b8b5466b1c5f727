"""Silence for native libraries that write to the process's standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def silence_glog() -> None:
    """Asks Google's native logging for errors only; it listens until it is first loaded."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Captured:
    """What was written to standard error meanwhile."""

    text: str = ""


@contextlib.contextmanager
def quiet_stderr() -> Iterator[Captured]:
    """Diverts file descriptor 2 while native code starts up.

    It concerns the whole process, so keep it short; what was written is handed back for error messages.
    Where there is no such descriptor, nothing is diverted.

    Returns:
        A context whose `text` is filled on leaving.
    """
    captured = Captured()
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError, ValueError):
        yield captured
        return
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield captured
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            log.seek(0)
            captured.text = log.read().decode("utf-8", "replace").strip()
