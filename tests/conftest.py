"""Fixtures shared by every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser import Browser, start

REPOSITORY = Path(__file__).resolve().parents[1]

# A shell starts what it puts in the background deaf to Ctrl-C; what tests start would be deaf, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("MER_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real inputs are absent: {folder} (set MER_SHARED_DATA to their folder)")
    return folder


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """Leaves this process one core, so that work is not spread: workers take longer to start than a task."""
    cores = os.sched_getaffinity(0)
    place = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(cores)[place % len(cores)]})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real headless Chromium, one for all tests; they are skipped where it is absent."""
    running = start()
    yield running
    running.driver.quit()
