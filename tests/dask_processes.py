"""A real Dask cluster of processes on 127.0.0.1, whose parts tests start and kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Cluster:
    """A scheduler and workers, each a process of its own; a worker has no nanny, so a kill ends it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self.start_scheduler(0)
        self.address = self.wait_for_address()

    def _start(self, command: str, *arguments: object) -> subprocess.Popen[bytes]:
        allowed = {
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),  # functions of the tests
        }
        log = (self.folder / "log.txt").open("ab")
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{command}", *map(str, arguments)],
            stdout=log, stderr=log, env=os.environ | allowed, cwd=self.folder,
        )  # fmt: skip

    def start_scheduler(self, port: int) -> subprocess.Popen[bytes]:
        self.file.unlink(missing_ok=True)
        return self._start(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            port,
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            self.file,
        )

    def wait_for_address(self) -> str:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                return str(json.loads(self.file.read_text())["address"])
            except (FileNotFoundError, ValueError):
                time.sleep(0.1)
        raise TimeoutError((self.folder / "log.txt").read_text())

    def restart_scheduler(self) -> None:
        port = int(self.address.rpartition(":")[2])
        self.scheduler.kill()
        self.scheduler.wait()
        self.scheduler = self.start_scheduler(port)
        self.wait_for_address()

    def add_worker(self, threads: int = 1, *arguments: object) -> subprocess.Popen[bytes]:
        more = (
            "--no-nanny",
            "--dashboard-address",
            "127.0.0.1:0",
            "--local-directory",
            self.folder,
            *arguments,
        )
        worker = self._start("worker", self.address, "--host", "127.0.0.1", "--nthreads", threads, *more)
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count: int) -> None:
        from distributed import Client

        with Client(self.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=60)

    def kill_workers(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL)
                worker.wait()
        self.workers.clear()

    def close(self) -> None:
        self.kill_workers()
        self.scheduler.kill()
        self.scheduler.wait()
