"""Finished runs with logits drawn by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.models.registry import Registered
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import prepare_data
from mer_bench.settings import Request, RunSettings
from mer_bench.training.result import FoldResult


@pytest.fixture
def finished(
    bench_data: BenchData, record: Callable[..., FoldResult], tmp_path: Path
) -> Callable[..., RunDirectory]:
    """Writes a run: `finished("a", skill=1.0, seeds=(0, 1), epochs=3)`; more skill is right more often."""

    def build(
        name: str, skill: float = 0.0, epochs: int = 1, data: BenchData = bench_data, **settings: object
    ) -> RunDirectory:
        run = RunSettings(**{"model": name, "protocol": "cde", **settings})  # type: ignore[arg-type]
        spec = replace(MAJORITY[0], name=name, title=name.upper())
        prepared = prepare_data(Registered(spec, "test 1.0"), Request(run), data)
        directory = RunDirectory.create_or_resume(tmp_path / "runs", prepared.manifest)
        truth = np.eye(3)[prepared.data.population.labels]
        ids = prepared.data.population.sample_ids
        for seed in run.seeds:
            for fold in prepared.folds.folds:
                rngs = [np.random.default_rng([seed, *map(ord, f"{name} {ids[i]}")]) for i in fold.test]
                logits = np.stack([rng.normal(size=(epochs, 3)) for rng in rngs], axis=1)
                logits = (logits + skill * truth[fold.test]).astype(np.float32)
                kept = record(
                    fold.name, fold.test, [[0] * len(fold.test)] * epochs, fold.inner,
                    [[0] * len(fold.inner)] * epochs, seed,
                )  # fmt: skip
                directory.write(replace(kept, logits=logits))
        return directory

    return build
