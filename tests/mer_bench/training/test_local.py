"""Folds as tasks of an executor: the same bits in processes, progress, shared maps, and workers that die."""

from __future__ import annotations

import errno
import os
import signal
import tempfile

import numpy as np
import pytest
from tests.mer_bench.training.parts import RECIPE, Dropping, Kept, Normed, assert_same, data, job_of, run

from mer_bench.errors import TrainingError, UsageError
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_flow.work.executor import LocalProcesses


class Deadly(Normed):
    """Kills its process where sample 0 is in training, or is watched by a fold without."""

    def forward(self, maps):
        if bool((maps[:, 0, 0, 0] == 0).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(maps)


class Suicidal(Deadly):
    """Kills its process in fold s0 alone, whose held-out samples are the first three."""

    def forward(self, maps):
        return super().forward(maps) if not self.training and len(maps) == 3 else Normed.forward(self, maps)


@pytest.fixture(scope="module")
def processes():
    with LocalProcesses(2) as executor:
        yield executor


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where shared maps are put."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_processes_equal_this_one_bit_for_bit_and_report_progress(processes, temporary):
    maps = np.random.default_rng(0).integers(0, 256, (40, 3, 28, 28)).astype(np.float32)
    ststnet = job_of(STSTNET[0], STSTNET[0].recipes["authors"].changed(epochs=2, batch_size=20))
    for job, given in ((job_of(Dropping), None), (ststnet, maps)):
        here, spread = run(job, maps=given), run(job, maps=given, executor=processes)
        assert {r.engine for r in spread.values()} == {"local"}
        assert_same(spread, here)
        total = 5 * job.epochs
        assert spread.calls[-1] == (total, total) and spread.calls == sorted(spread.calls)
    assert not list(temporary.glob("mer-bench-*"))


def test_a_worker_that_dies_twice_fails_its_fold_alone(processes, temporary):
    kept = Kept()
    with pytest.raises(TrainingError, match=r"^fold 's0': its worker process was killed by SIGKILL, twice"):
        run(job_of(Suicidal), executor=processes, sink=kept)
    assert set(kept) == {"s1", "s2", "s3", "s4"} and kept.calls[-1] == (15, 15)
    assert not list(temporary.glob("mer-bench-*"))


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_run(processes):
    with pytest.raises(
        TrainingError, match=r"5 of 5 folds failed(.|\n)*given up, as workers had died over 3"
    ):
        run(job_of(Deadly), executor=processes)


def test_what_a_sink_raises_ends_the_run_and_leaves_no_file(processes, temporary):
    class FullDisk(Kept):
        def fold(self, result):
            assert list(temporary.glob("mer-bench-*"))
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(job_of(Normed), executor=processes, sink=FullDisk())
    assert not list(temporary.glob("mer-bench-*"))


def test_a_model_that_cannot_be_sent_is_refused_with_the_remedy(processes):
    job = job_of(lambda **options: Normed(**options))
    with pytest.raises(UsageError, match=r"cannot be sent to another process.*--workers 1"):
        run(job, executor=processes)
    assert run(job, data()[1][:1])


def test_maps_that_cannot_be_shared_are_said_so(processes, monkeypatch):
    def full(file, array):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(TrainingError, match=r"No space left.*TMPDIR.*--workers 1"):
        run(job_of(Normed), executor=processes)


def test_processes_are_made_and_ended_where_none_are_given():
    job = job_of(Normed, RECIPE.changed(epochs=1), workers=2)
    assert_same(run(job), run(job_of(Normed, RECIPE.changed(epochs=1))))
