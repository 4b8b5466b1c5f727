"""How long a leaderboard takes, by arithmetic and by what is done; what it keeps of its data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mer_bench.cli.run_many import others_note
from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered
from mer_bench.models.spelling import Entry
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.runs.data import BenchData, DataCache
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.estimate import (
    crowding,
    estimate_seconds,
    flops_per_sample,
    missing_folds,
    startup,
    timed_epoch,
)
from mer_bench.runs.many import Finished, Planned
from mer_bench.runs.train import Outcome, Prepared
from mer_bench.settings import Request, RunSettings


def test_the_estimate_is_the_arithmetic(prepared_with: Callable[..., Prepared]) -> None:
    from torch import nn

    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 3))
    assert flops_per_sample(linear, (3, 28, 28)) == 2 * 3 * 28 * 28 * 3
    one = prepared_with(STSTNET[0], {"epochs": 10})
    rate = 1e6
    seconds = estimate_seconds(one, 12, rate)
    assert seconds is not None and seconds > 0
    assert estimate_seconds(one, 0, rate) == 0
    # The load average may move between the two.
    twice = estimate_seconds(prepared_with(STSTNET[0], {"epochs": 20}), 12, rate)
    assert twice == pytest.approx(2 * seconds, rel=0.2)
    assert estimate_seconds(prepared_with(MAJORITY[0]), 12, rate) is None


def test_a_small_network_is_timed_and_not_reckoned(prepared_with: Callable[..., Prepared]) -> None:
    # By arithmetic at this rate only the share of the optimiser and Python would be left, 2 ms a step.
    one = prepared_with(STSTNET[0], {"epochs": 10})
    epoch = timed_epoch(one, epochs=3)
    assert epoch is not None and epoch > 0
    seconds = estimate_seconds(one, 12, 1e15)
    assert seconds is not None and seconds > 0
    assert seconds != pytest.approx(12 * 10 * 2e-3, rel=1e-6)


def test_what_an_epoch_takes_is_no_part_of_the_training(prepared_with: Callable[..., Prepared]) -> None:
    import torch

    one = prepared_with(STSTNET[0], {"epochs": 2})  # fewer than are timed
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert timed_epoch(one) is not None
    assert torch.equal(torch.rand(2), expected)  # the random stream is where it was


def test_workers_crowd_one_another_and_what_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mer_bench.runs.estimate.usable_cores", lambda: 2)
    for load, workers, expected in ((0, 1, 1), (0, 2, 1), (0, 4, 2), (2, 1, 1), (2, 2, 4 / 3), (6, 2, 8 / 7)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0, 0))
        assert crowding(workers) == pytest.approx(expected)
    assert [startup(workers) for workers in (1, 2, 6)] == [0, 20, 30]  # a load of 6 on two cores


def test_folds_that_are_done_or_beyond_the_limit_are_not_estimated(
    prepared_with: Callable[..., Prepared], with_records: Callable[..., RunDirectory], tmp_path: Path
) -> None:
    made = prepared_with(MAJORITY[0], seeds=(0, 1))
    assert missing_folds(made, tmp_path) == 2 * len(made.folds)
    assert missing_folds(made, tmp_path, limit=3) == 6
    run = with_records(made, tmp_path)
    run.record_path(1, made.folds.names[4]).unlink()
    assert missing_folds(made, tmp_path) == 1
    assert missing_folds(made, tmp_path, limit=3) == 0


def test_the_models_to_come_are_told_with_their_time(
    prepared_with: Callable[..., Prepared], with_records: Callable[..., RunDirectory], tmp_path: Path
) -> None:
    made = prepared_with(MAJORITY[0])
    run = with_records(made, tmp_path)

    def planned(seconds: float | None) -> Planned:
        registered = Registered(MAJORITY[0], "test 1.0")
        return Planned(
            Entry("majority"), registered, Request(RunSettings()), made.manifest, run.path, 0, seconds=seconds
        )

    # It took twice the estimate, so what is to come is taken to do so too.
    slow = Finished(planned(100.0), Outcome(run, run.status(), 12, 0, (), (), 200.0), ())
    assert others_note([planned(100.0), planned(50.0)], []) == "then 2 more models, 2 min 30 s"
    assert others_note([planned(50.0)], [slow]) == "then 1 more model, 1 min 40 s"
    assert others_note([planned(5.0), planned(None)], [slow]) == "then 2 more models"
    assert others_note([], [slow]) == ""


def test_a_cache_keeps_what_fits_and_always_the_last(bench_data: BenchData) -> None:
    reads = []

    def read(name: str) -> BenchData:
        return cache.read(name, lambda: reads.append(name) or bench_data)  # type: ignore[func-returns-value]

    cache = DataCache(limit=2 * bench_data.maps.nbytes)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert read(name) is bench_data
    assert reads == ["a", "b", "c", "b"]
    cache = DataCache(limit=0)
    read("a"), read("a")
    assert reads[4:] == ["a"]
