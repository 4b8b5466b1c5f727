"""Calls on a real Dask cluster: workers and schedulers that die, values that are lost, strangers refused."""

from __future__ import annotations

import asyncio
import functools
import operator
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from tests.dask_processes import Cluster

from mer_flow.work.cluster import OnDask, dask_executor
from mer_flow.work.errors import ClusterError, MissingDependencyError, UsageError, WorkerError
from mer_flow.work.executor import TaskReturnedError, run_all
from mer_flow.work.where import Needs, Where

pytest.importorskip("distributed", reason="needs the extra `cluster`")
NEEDS = Needs.of(("python", "mer-flow", "numpy"))


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(dask: Cluster) -> Cluster:
    """The module's cluster with at least two workers."""
    dask.workers = [worker for worker in dask.workers if worker.poll() is None]
    for _ in range(2 - len(dask.workers)):
        dask.add_worker()
    dask.wait_for_workers(2)
    return dask


def where(cluster: Cluster, wait: float = 40.0) -> Where:
    return Where(executor="dask", scheduler=cluster.address, wait=wait)


def results(executor: OnDask, function: Callable, tasks: list) -> dict:
    return {task: future.result() for task, future in run_all(executor, function, tasks)}


def test_results_are_those_of_the_calls(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    with dask_executor(where(cluster), NEEDS) as executor:
        assert results(executor, operator.neg, list(range(50))) == {i: -i for i in range(50)}
        with pytest.raises(ZeroDivisionError):
            results(executor, functools.partial(operator.floordiv, 1), [0])
    assert (
        f"dask: scheduler {cluster.address}, 2 workers, dashboard http://127.0.0.1:"
        in capsys.readouterr().err
    )


def test_the_task_that_kills_workers_is_told_from_its_neighbours(cluster: Cluster) -> None:
    stop = threading.Event()

    def replace() -> None:  # as a nanny or a queue would
        while not stop.wait(0.3):
            alive = [worker for worker in cluster.workers if worker.poll() is None]
            if len(alive) < 2:
                cluster.add_worker()

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        calls = [functools.partial(operator.neg, i) for i in range(6)]
        calls.insert(2, functools.partial(os._exit, 3))
        with dask_executor(where(cluster), NEEDS) as executor:
            found = dict(run_all(executor, _call, calls))
    finally:
        stop.set()
        thread.join()
    deadly = calls.pop(2)
    with pytest.raises(WorkerError, match=r"was lost, and so were 1 it was tried on again, twice"):
        found[deadly].result()
    assert [found[call].result() for call in calls] == [0, -1, -2, -3, -4, -5]


_call = operator.methodcaller("__call__")


def test_a_late_worker_takes_over_from_a_killed_one(cluster: Cluster) -> None:
    with dask_executor(where(cluster), NEEDS) as executor:
        running = run_all(executor, functools.partial(_after, 0.1), range(30))
        done = [next(running)[1].result() for _ in range(3)]
        cluster.workers[0].kill()
        cluster.add_worker()
        done += [future.result() for _, future in running]
    assert sorted(done) == [-i for i in reversed(range(30))]


def _after(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return -value


def test_shared_values_are_sent_once_and_again_after_a_loss(cluster: Cluster) -> None:
    maps = np.arange(12.0).reshape(3, 4)
    with dask_executor(where(cluster), NEEDS) as executor:
        shared = executor.share(maps)
        assert executor.share(maps.copy()) == shared != executor.share(maps + 1)
        row_sum = functools.partial(_row_sum, shared)
        assert results(executor, row_sum, [0, 1, 2]) == {0: 6.0, 1: 22.0, 2: 38.0}
        cluster.kill_workers()  # with all copies
        cluster.add_worker()
        assert results(executor, row_sum, [2, 1]) == {2: 38.0, 1: 22.0}


def _row_sum(maps: np.ndarray, row: int) -> float:
    return float(maps[row].sum())


def test_a_restarted_scheduler_is_found_again(cluster: Cluster) -> None:
    with dask_executor(where(cluster), NEEDS) as executor:
        shared = executor.share(np.ones((2, 3)))
        running = run_all(executor, functools.partial(_slow_sum, shared), range(12))
        done = [next(running)[1].result() for _ in range(2)]
        cluster.kill_workers()
        cluster.restart_scheduler()
        cluster.add_worker()
        done += [future.result() for _, future in running]
    assert sorted(done) == [6 + i for i in range(12)]


def test_a_result_that_is_lost_on_its_way_does_not_hang_the_run(cluster: Cluster) -> None:
    from distributed.client import FutureCancelledError

    class Gone:  # Dask's future of a finished task, whose scheduler goes before the result is fetched
        status = "finished"

        async def _result(self, raiseit: bool) -> None:
            raise FutureCancelledError("key", "scheduler-connection-lost")

    with dask_executor(where(cluster), NEEDS) as executor:
        future: Future[int] = Future()
        asyncio.run(executor._settle(Gone(), future))
        with pytest.raises(TaskReturnedError, match="lost on its way"):
            future.result(timeout=5)


def _slow_sum(values: np.ndarray, more: int) -> int:
    time.sleep(0.1)
    return int(values.sum()) + more


def test_a_late_worker_that_does_not_fit_is_sent_away(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with dask_executor(where(cluster), NEEDS) as executor:
        running = run_all(executor, functools.partial(_after, 0.1), range(999))
        stranger = cluster.add_worker(threads=3)
        while stranger.poll() is None:  # it ends when it is refused
            assert next(running)[1].result() is not None
        running.close()
    assert "refused: on" in (said := capsys.readouterr().err)
    assert "it has 3 threads, and torch's state is a process's; start it with --nthreads 1" in said


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (Needs((("numpy", "0.9"),)), r"worker tcp://\S+ on \S+: it has numpy \S+, the driver 0.9; install"),
        (Needs((("no-such-package", "1.0"),)), "it has no-such-package none, the driver 1.0"),
        (
            Needs.of((), Path("/no/clips")),
            f"on {socket.gethostname()}: it does not see /no/clips; name a path",
        ),
    ],
)
def test_workers_that_do_not_fit_are_refused_by_name(cluster: Cluster, needs: Needs, message: str) -> None:
    with pytest.raises(UsageError, match=message), dask_executor(where(cluster), needs):
        pass


def test_what_cannot_be_pickled_is_said_so(cluster: Cluster) -> None:
    with (
        dask_executor(where(cluster), NEEDS) as executor,
        pytest.raises(UsageError, match="a task cannot be sent to another machine"),
    ):
        executor.submit(lambda: None)


def test_a_worker_without_the_module_is_named(cluster: Cluster, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "only_here.py").write_text("def double(x): return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    with (
        dask_executor(where(cluster), NEEDS) as executor,
        pytest.raises(ClusterError, match=r"cannot load a task \(ModuleNotFoundError.*only_here.*plug-ins"),
    ):
        results(executor, only_here.double, [1])


def test_no_worker_and_no_scheduler_are_one_line_each(tmp_path: Path) -> None:
    empty = Cluster(tmp_path)
    try:
        with pytest.raises(ClusterError, match=r"has no worker within 0\.5 s; start workers with"):
            dask_executor(where(empty, 0.5), NEEDS).__enter__()
        empty.add_worker()
        with dask_executor(where(empty, 15), NEEDS) as executor:
            executor._where = executor._where.changed(wait=1.0)
            executor._client._timeout = 1.0
            running = run_all(executor, functools.partial(_after, 0.2), range(50))
            next(running)
            empty.close()
            with pytest.raises(ClusterError, match="was lost and did not come back within 1 s"):
                list(running)
    finally:
        empty.close()
    with pytest.raises(ClusterError, match=f"{empty.address} does not answer within 0.5 s"):
        dask_executor(where(empty, 0.5), NEEDS).__enter__()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheduler": "http://127.0.0.1:8786"}, "--scheduler http.*write it as the scheduler prints it"),
        ({"scheduler": "tcp://a:1", "cluster": "slurm"}, "give either --scheduler"),
        ({"cluster": "slrum"}, "unknown cluster 'slrum'; did you mean 'slurm'"),
        ({"executor": "local", "scheduler": "tcp://a:1"}, "--scheduler needs --executor dask"),
        ({"cluster_options": "x.toml"}, "needs the --cluster of a queue"),
        ({"wait": 0}, "wait must be above 0"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dask_executor(Where(**{"executor": "dask", **settings}), NEEDS).__enter__()


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .*mer-flow\[cluster\]'"):
        dask_executor(Where(executor="dask"), NEEDS).__enter__()
