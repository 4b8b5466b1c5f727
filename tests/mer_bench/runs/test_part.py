"""Shards of a run: every fold in one of them, and none written by two processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mer_bench.errors import RunError, UsageError
from mer_bench.models.majority import SPECS
from mer_bench.runs.directory import writing
from mer_bench.runs.part import Part, Shard
from mer_bench.runs.train import Prepared, execute


def test_shards_cover_every_fold_once(prepared_with: Callable[..., Prepared]) -> None:
    folds = prepared_with(SPECS[0]).folds.folds
    parts = [Part(shard=Shard(number, 5)).of((0, 1), folds) for number in range(1, 6)]
    for seed in (0, 1):
        names = [fold.name for part in parts for fold in part[seed]]
        assert sorted(names) == sorted(fold.name for fold in folds)
    sizes = [sum(map(len, part.values())) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "a/b", "1/3/5", "-1/3"])
def test_shards_ill_spelled(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard .*: expected NUMBER/COUNT from 1/COUNT on, as in 3/16"):
        Shard.parse(text)


def test_the_last_shard_completes_the_run(prepared_with: Callable[..., Prepared], tmp_path: Path) -> None:
    prepared = prepared_with(SPECS[0])
    first = execute(prepared, tmp_path, shard=Shard(1, 2))
    assert (first.trained, first.whole, first.status.complete) == (6, True, False)
    assert execute(prepared, tmp_path, shard=Shard(1, 2)).kept == 6
    assert execute(prepared, tmp_path, shard=Shard(2, 2)).status.complete


def test_who_may_write_beside_whom(prepared_with: Callable[..., Prepared], tmp_path: Path) -> None:
    manifest = prepared_with(SPECS[0]).manifest
    with writing(tmp_path, manifest, Shard(1, 3)) as run, writing(tmp_path, manifest, Shard(2, 3)):
        assert str(run.status().writer).count("(shard ") == 2
        for shard, holder in ((Shard(1, 3), "1/3"), (Shard(1, 4), "1/3"), (None, "1/3")):
            with (
                pytest.raises(RunError, match=rf"being written by pid \d+ on \S+ \(shard {holder}\); wait"),
                writing(tmp_path, manifest, shard),
            ):
                pass
    with (
        writing(tmp_path, manifest),
        pytest.raises(RunError, match=r"being written by pid \d+ on \S+; wait"),
        writing(tmp_path, manifest, Shard(1, 3)),
    ):
        pass
    with writing(tmp_path, manifest, Shard(1, 4)) as run:
        assert str(run.status().writer).endswith("(shard 1/4)")


def test_a_shard_leaves_what_another_is_writing(
    prepared_with: Callable[..., Prepared], tmp_path: Path
) -> None:
    manifest = prepared_with(SPECS[0]).manifest
    with writing(tmp_path, manifest, Shard(1, 2)) as run:
        half = run.record_path(0, "other").with_suffix(".npz.tmp")
        half.parent.mkdir(parents=True)
        half.write_bytes(b"")
        with writing(tmp_path, manifest, Shard(2, 2)):
            assert half.exists()
    with writing(tmp_path, manifest):
        assert not half.exists()
