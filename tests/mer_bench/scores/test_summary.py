"""The figures of a run are those of its pooled record; an incomplete run has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import RunError, UsageError
from mer_bench.models.majority import SPECS as MAJORITY
from mer_bench.runs.directory import RunDirectory
from mer_bench.runs.train import Prepared
from mer_bench.scores.summary import summarise

Make = Callable[..., RunDirectory]


@pytest.fixture
def make_run(prepared_with: Callable[..., Prepared], with_records: Make, tmp_path: Path) -> Make:
    def build(**settings: object) -> RunDirectory:
        return with_records(prepared_with(MAJORITY[0], **settings), tmp_path)

    return build


def test_a_summary_is_the_pooled_record(make_run: Make) -> None:
    from sklearn.metrics import f1_score, recall_score

    run = make_run(seeds=(0, 1))
    found = summarise(run, draws=200)
    labels = run.column("labels")
    for place, seed in enumerate((0, 1)):
        predicted = np.empty_like(labels)
        for kept in run.records(seed):
            predicted[kept.test_index] = kept.logits[-1].argmax(1)
        figures = found.selections["last"]["Full"].figures
        options = {"labels": [0, 1, 2], "average": "macro", "zero_division": 0}
        assert figures["uf1"].per_seed[place] == pytest.approx(f1_score(labels, predicted, **options))
        assert figures["uar"].per_seed[place] == pytest.approx(recall_score(labels, predicted, **options))
    assert figures["uf1"].mean == pytest.approx(np.mean(figures["uf1"].per_seed))
    assert figures["uf1"].sd == pytest.approx(np.std(figures["uf1"].per_seed, ddof=1))
    assert figures["uf1"].low < figures["uf1"].mean < figures["uf1"].high
    assert found.selections["last"]["Full"].confusion.sum() == 2 * len(labels)


def test_the_training_accuracy_is_that_of_the_last_epoch(make_run: Make) -> None:
    run = make_run()
    fallen = np.array([0.5, 0.9, 0.4], np.float32)  # the best is not the last
    for kept in run.records(0):
        run.write(replace(kept, train_accuracy=fallen))
    assert summarise(run, draws=100).train_accuracy == pytest.approx(0.4)


def test_seeds_can_be_chosen(make_run: Make) -> None:
    run = make_run(seeds=(0, 1))
    found = summarise(run, (1,), draws=100)
    assert found.seeds == (1,)
    assert found.selections["last"]["Full"].figures["uf1"].sd is None
    with pytest.raises(UsageError, match=r"has seeds \[0, 1\], not \[7\]"):
        summarise(run, (7,))


def test_one_incomplete_seed_blocks_the_summary(make_run: Make) -> None:
    run = make_run(seeds=(0, 1))
    run.record_path(1, "smic/s01").unlink()
    with pytest.raises(RunError, match=r"seed 1: 1 of 12 missing: smic/s01\. Run the same"):
        summarise(run)
    assert summarise(run, (0,), draws=100).seeds == (0,)


def test_a_change_of_device_is_told(make_run: Make) -> None:
    run = make_run()
    assert not any("device" in note for note in summarise(run, draws=100).notes)
    first = run.records(0)[0]
    run.record_path(0, first.fold).unlink()
    run.write(replace(first, device="cuda (tf32)"))
    assert any(
        "(11 on cpu, 1 on cuda (tf32)), which agree" in note for note in summarise(run, draws=100).notes
    )


def test_json_is_plain(make_run: Make) -> None:
    found = summarise(make_run(seeds=(0, 1, 2), inner=True), draws=100)
    back = json.loads(json.dumps(found.to_json()))
    assert list(back["selections"]) == ["last", "tail", "inner", "oracle"]
    for selection in ("last", "oracle"):
        figure = back["selections"][selection]["Full"]["figures"]["uf1"]
        assert figure["mean"] == found.selections[selection]["Full"].figures["uf1"].mean
        assert figure["gap"] == found.gap(selection, "Full", "uf1")
        assert len(figure["per_seed"]) == 3
    assert (back["protocol"], back["scheme"], back["folds"], back["control"]) == ("cde", "megc3", 12, False)


def test_the_headline_comes_first_and_gaps_are_over_it(make_run: Make) -> None:
    found = summarise(make_run(seeds=(0, 1), headline="tail", tail_epochs=2), draws=100)
    assert list(found.selections) == ["tail", "last", "oracle"] == list(found.shown)
    assert found.chosen_epochs["tail"] == 2 and found.to_json()["headline"] == "tail"
    tail, oracle = (found.selections[name]["Full"].figures["uf1"].mean for name in ("tail", "oracle"))
    assert found.gap("oracle", "Full", "uf1") == oracle - tail and found.gap("tail", "Full", "uf1") == 0
