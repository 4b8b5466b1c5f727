"""Builds and leaderboards on a real Dask cluster, and shards without one: the same digests as here."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.dask_processes import Cluster

from mer_bench.runs.directory import RunDirectory, runs_below
from mer_flow.store.reader import FlowStore
from mer_flow.synthetic import make_tree

pytest.importorskip("distributed", reason="needs the extra `cluster`")

Call = Callable[..., tuple[int, str, str]]

#: Small maps and a quick flow; everything else is the default path.
FAST = ("align.size=64", "regions.backend=dlib", "flow.scale_step=0.5", "flow.warps=2", "flow.epsilon=0.05")
#: Two models whose folds take long enough to be interrupted.
BOARD = ("majority", "ststnet", "--protocol", "kfold", "--k", 3, "--set", "epochs=40", "--device", "cpu")

#: What a queue would do with a job's script, at once and here.
SBATCH = """#!{python}
import subprocess, sys
script = [argument for argument in sys.argv[1:] if not argument.startswith("-")][-1]
log = open({log!r}, "ab")
job = subprocess.Popen(["bash", script], start_new_session=True, stdout=log, stderr=subprocess.STDOUT)
print(f"Submitted batch job {{job.pid}}")
"""
SCANCEL = """#!{python}
import os, signal, sys
for job in sys.argv[1:]:
    os.killpg(int(job), signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("dask"))
    for _ in range(2):
        started.add_worker()
    yield started
    started.close()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(
        tmp_path_factory.mktemp("tree") / "smic", "smic", subjects=3, clips_per_subject=3, seed=1
    )


@pytest.fixture(scope="module")
def store(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store built here, to compare with."""
    from mer_flow.config import load_config
    from mer_flow.databases.source import Source
    from mer_flow.extraction.build import BuildOptions, build_store

    path = tmp_path_factory.mktemp("store") / "here.h5"
    summary = build_store(Source("smic", tree), path, load_config(sets=FAST), options=BuildOptions(1))
    assert summary.built == 9
    return path


@pytest.fixture(scope="module")
def here(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the leaderboard trained here."""
    out = tmp_path_factory.mktemp("runs")
    assert process("run", *BOARD, "--store", store, "--out", out, "--workers", 1).wait() == 0
    return digests(out)


def process(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mer_bench.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def digests(out: Path) -> dict[str, str]:
    """SHA-256 over all that was recorded of each run, but for its times."""
    found = {}
    for run in map(RunDirectory, runs_below(out)):
        digest = hashlib.sha256()
        for result in (result for seed in run.seeds for result in run.records(seed)):
            for array in (result.test_index, result.logits, result.train_loss, result.train_accuracy):
                digest.update(array.tobytes())
        found[run.path.name] = digest.hexdigest()
    return found


def on(cluster: Cluster, wait: float = 60) -> tuple[object, ...]:
    return "--executor", "dask", "--scheduler", cluster.address, "--wait", wait


@pytest.mark.slow
def test_a_build_is_the_same_store(
    call: Call, cluster: Cluster, tree: Path, store: Path, tmp_path: Path
) -> None:
    config = tmp_path / "where.toml"
    config.write_text(f'executor = "dask"\nscheduler = "{cluster.address}"\nwait = 60\n')
    settings = [part for setting in FAST for part in ("--set", setting)]
    source = ("--db", "smic", "--root", tree)
    code, out, err = call(
        "mer-flow", "build", *source, "--store", tmp_path / "there.h5", "--config", config, *settings
    )
    assert code == 0 and "9 built" in out and f"dask: scheduler {cluster.address}, 2 workers" in err
    with FlowStore(tmp_path / "there.h5") as there, FlowStore(store) as same:
        assert there.digest() == same.digest()
    code, out, _ = call("mer-flow", "spot", *source, "--method", "midpoint", "--limit", 2, *on(cluster))
    assert code == 0 and out.count("midpoint") == 2


@pytest.mark.slow
def test_a_leaderboard_killed_and_resumed_is_the_same(
    call: Call, cluster: Cluster, store: Path, here: dict[str, str], tmp_path: Path
) -> None:
    run = ("run", *BOARD, "--store", store, "--out", tmp_path)
    driver = process(*run, *on(cluster))
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("*/records/*/*.npz"))) < 2:
        assert time.monotonic() < until and driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGSTOP)  # while another tries
    code, _, err = call("mer-bench", "run", "ststnet", *BOARD[2:], *run[-4:], *on(cluster))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert code == 1 and f"is being written by pid {driver.pid} on" in err
    cluster.workers[0].kill()
    cluster.add_worker()
    code, out, _ = call("mer-bench", *run, *on(cluster), "--json")
    outcomes = [model["outcome"] for model in json.loads(out)["models"]]
    assert code == 0 and sum(outcome["kept"] for outcome in outcomes) >= 2
    assert sum(outcome["kept"] + outcome["trained"] for outcome in outcomes) == 6
    assert digests(tmp_path) == here


@pytest.mark.slow
def test_a_run_that_cannot_be_written_leaves_the_others(
    call: Call, cluster: Cluster, store: Path, here: dict[str, str], tmp_path: Path
) -> None:
    broken = next(name for name in here if name.startswith("majority"))
    (tmp_path / broken).mkdir()
    (tmp_path / broken / "records").write_text("where a folder should be")
    code, _, err = call("mer-bench", "run", *BOARD, "--store", store, "--out", tmp_path, *on(cluster))
    assert code == 1 and f"failed: majority: cannot write {tmp_path / broken}/records" in err
    name = next(name for name in here if name.startswith("ststnet"))
    assert RunDirectory(tmp_path / name).status().complete


@pytest.mark.slow
def test_stacked_folds_ask_for_the_resource_gpu(
    call: Call, cluster: Cluster, store: Path, tmp_path: Path
) -> None:
    cluster.add_worker(1, "--resources", "GPU=1")
    cluster.wait_for_workers(3)
    run = ("run", "ststnet", *BOARD[2:], "--store", store, "--engine", "stacked", "--chunk", 2)
    code, out, _ = call("mer-bench", *run, "--out", tmp_path, *on(cluster), "--json")
    assert code == 0 and json.loads(out)["trained"] == 3
    (found,) = runs_below(tmp_path)
    assert {result.engine for result in RunDirectory(found).records(0)} == {"stacked"}


@pytest.mark.slow
def test_shards_share_a_run(store: Path, here: dict[str, str], tmp_path: Path) -> None:
    run = ("run", *BOARD, "--store", store, "--out", tmp_path, "--workers", 1, "--shard")
    shards = [process(*run, f"{number}/3") for number in (1, 2, 3)]
    assert [shard.wait() for shard in shards] == [0, 0, 0], [shard.communicate()[1] for shard in shards]
    assert digests(tmp_path) == here
    assert not list(tmp_path.glob("*/.lock*"))


@pytest.mark.slow
def test_a_queue_starts_the_workers(
    call: Call, store: Path, here: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue", reason="needs the extra `cluster`")
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(python=sys.executable, log=str(tmp_path / "log.txt")))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    options = tmp_path / "slurm.toml"
    options.write_text(
        'cores = 1\nmemory = "2GB"\njobs = 2\nwalltime = "00:10:00"\nlog_directory = "logs"\n'
        f'local_directory = "{tmp_path}"\nworker_extra_args = ["--host", "127.0.0.1"]\n'
        '[scheduler_options]\nhost = "127.0.0.1"\ndashboard_address = "127.0.0.1:0"\n'
    )
    monkeypatch.chdir(tmp_path)
    slurm = ("--executor", "dask", "--cluster", "slurm", "--cluster-options", options)
    code, _, err = call("mer-bench", "run", *BOARD, "--store", store, "--out", tmp_path / "runs", *slurm)
    assert code == 0 and "dask: scheduler tcp://127.0.0.1:" in err, (tmp_path / "log.txt").read_text()
    assert digests(tmp_path / "runs") == here
