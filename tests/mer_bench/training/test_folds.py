"""`run_folds`: blind to held-out samples, repeatable, failing by name, whichever engine trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.mer_bench.training.parts import (
    RECIPE,
    SIDE,
    Dropping,
    Kept,
    Normed,
    Poisoned,
    assert_same,
    data,
    job_of,
    run,
)

from mer_bench.errors import TrainingError, UsageError
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.recipe import Recipe
from mer_bench.training.device import resolve_device
from mer_bench.training.folds import check_job, engine_of
from mer_bench.training.job import TrainingData
from mer_bench.training.whole import train_whole

ENGINES = pytest.mark.parametrize("engine", ["local", "stacked"])


class Spy(Dropping):
    """Writes down the first pixel of every map that it sees in training."""

    seen: set[float]

    def forward(self, maps):
        if self.training:
            Spy.seen |= set(maps[:, 0, 0, 0].tolist())
        return super().forward(maps)


class Fussy(Normed):
    """Raises what no engine foresees, once it is trained."""

    def forward(self, maps):
        if self.training:
            raise KeyError("frobnicate")
        return super().forward(maps)


@ENGINES
def test_record_has_every_epoch_of_every_held_out_sample(engine):
    _, folds = data()
    record = run(job_of(Normed, engine=engine), folds[1:2])["s1"]
    assert record.logits.shape == (3, 5, 3) and record.logits.dtype == np.float32
    assert record.inner_logits.shape == (3, 3, 3)
    assert np.isfinite(record.logits).all()
    assert record.train_loss.shape == record.train_accuracy.shape == (3,)
    assert (record.test_index == folds[1].test).all() and (record.inner_index == folds[1].inner).all()
    assert not np.array_equal(record.logits[0], record.logits[2])
    assert (record.engine, record.device, record.seed, record.notes) == (engine, "cpu", 0, ())


def test_no_held_out_or_inner_sample_reaches_training():
    given, folds = data()
    Spy.seen = set()
    run(job_of(Spy), folds[1:2])
    assert Spy.seen == set(given.maps[folds[1].train, 0, 0, 0].tolist())


@ENGINES
def test_training_does_not_depend_on_held_out_maps(engine):
    given, folds = data()
    changed = given.maps.copy()
    changed[np.concatenate([folds[1].test, folds[1].inner])] *= -3.0
    job = job_of(Dropping, engine=engine)
    a, b = run(job, folds[1:2])["s1"], run(job, folds[1:2], maps=changed)["s1"]
    assert np.array_equal(a.train_loss, b.train_loss)
    assert not np.array_equal(a.logits, b.logits) and not np.array_equal(a.inner_logits, b.inner_logits)


def test_fold_is_independent_of_neighbours_order_and_global_generator():
    _, folds = data()
    together, alone = run(job_of(Dropping)), Kept()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    for fold in reversed(folds):
        run(job_of(Dropping), [fold], sink=alone)
    assert_same(alone, together)
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_and_folds_differ():
    _, folds = data()
    a, b = (run(replace(job_of(Dropping), seed=seed), folds[:2]) for seed in (0, 1))
    assert not np.array_equal(a["s0"].train_loss, b["s0"].train_loss)
    assert a["s0"].train_loss[0] != a["s1"].train_loss[0]


def test_a_network_learns_what_its_labels_say():
    given, folds = data()
    maps = given.maps * 0.1
    maps[np.arange(40), given.labels] += 1.0
    record = run(job_of(Normed, Recipe(epochs=30, batch_size=16, lr=0.01)), folds[1:2], maps=maps)["s1"]
    assert record.train_loss[-1] < 0.3 * record.train_loss[0]
    assert (record.logits[-1].argmax(1) == given.labels[folds[1].test]).mean() > 0.7


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "clip_norm": 0.5, "schedule": "cosine", "warmup_epochs": 1},
        {"optimizer": "adamw", "weight_decay": 0.1, "loss": "class-balanced", "label_smoothing": 0.1},
        {"loss": "logit-adjusted", "flip": 0.5, "shift": 1, "noise": 0.1},
        {"loss": "focal", "amp": "bf16", "shuffle": False},
    ],
)
def test_recipes_train_and_repeat(changes):
    _, folds = data()
    a, b = (run(job_of(Dropping, RECIPE.changed(**changes)), folds[:1]) for _ in range(2))
    assert_same(a, b)
    assert not np.array_equal(a["s0"].logits, run(job_of(Dropping), folds[:1])["s0"].logits)


def test_deterministic_is_set_and_put_back():
    class Asking(Normed):
        def forward(self, maps):
            assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
            return super().forward(maps)

    threads = torch.get_num_threads()
    assert run(job_of(Asking, deterministic=True), data()[1][:1])
    assert not torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == threads


@ENGINES
def test_progress_rises_to_the_end(engine):
    kept = run(job_of(Normed, engine=engine))
    assert kept.calls[-1] == (15, 15) and kept.calls == sorted(kept.calls) and len(kept.calls) > 5


@ENGINES
def test_diverged_fold_names_fold_epoch_and_remedy_and_others_go_on(engine):
    kept = Kept()
    with pytest.raises(TrainingError, match="3 of 5 folds failed") as caught:
        run(job_of(Poisoned, engine=engine), sink=kept)
    # What is poisoned of s0 and s1 is watched alone.
    assert set(kept) == {"s0", "s1"} and np.isfinite(kept["s0"].train_loss).all()
    assert "fold 's2', epoch 1: the training loss became nan" in str(caught.value)
    assert "lower lr" in str(caught.value)


@ENGINES
def test_what_a_sink_raises_ends_the_run(engine):
    class FullDisk(Kept):
        def fold(self, result):
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(job_of(Normed, engine=engine), sink=FullDisk())


def test_absent_class_is_noted_and_trains():
    given, folds = data()
    fold = replace(folds[0], train=folds[0].train[given.labels[folds[0].train] != 2])
    for loss in ("class-balanced", "logit-adjusted"):
        job = replace(job_of(Normed, RECIPE.changed(loss=loss)), classes=("a", "b", "c"))
        record = run(job, [fold])["s0"]
        assert "class 'c' has no training sample" in record.notes[0]
        assert np.isfinite(record.train_loss).all()


def test_the_engine_follows_from_the_device_unless_it_is_set(monkeypatch):
    assert engine_of(job_of(Normed)) == "local"
    assert engine_of(job_of(Normed, engine="stacked")) == "stacked"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert engine_of(job_of(Normed, device="auto")) == engine_of(job_of(Normed, device="cuda:0")) == "stacked"
    check_job(job_of(Normed, device="cuda", engine="local"))
    with pytest.raises(UsageError, match=r"processes on the CPU, not on cuda.*--workers 1"):
        check_job(job_of(Normed, device="cuda", engine="local", workers=2))


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (replace(job_of(Normed), recipe=None), "cannot be trained without a recipe"),
        (job_of(Normed, device="cuda:99"), "'cuda:99' is not there.*--device cpu"),
        (job_of(Normed, precision="tf32"), "needs a GPU from Ampere on, not cpu"),
        (job_of(Normed, RECIPE.changed(class_weights=(1, 2))), "2 weights, but there are 3 classes"),
        (replace(job_of(Normed, RECIPE.changed(flip=0.5)), view=""), "flip = 0"),
    ],
)
def test_requests_that_cannot_be_met(job, message):
    with pytest.raises(UsageError, match=message):
        check_job(job)
    with pytest.raises(UsageError, match=message):
        run(job)
    with pytest.raises(UsageError, match="is not one of auto, cpu"):
        resolve_device("gpu")


@ENGINES
def test_whatever_a_network_raises_names_its_fold(engine):
    with pytest.raises(TrainingError, match=r"fold 's\d'.*frobnicate"):
        run(job_of(Fussy, engine=engine), data()[1][:2])
    with pytest.raises(TrainingError, match=r"fold 's0'.*frobnicate"):
        run(job_of(Normed, options={"frobnicate": 1}, engine=engine), data()[1][:1])


def test_ststnet_trains_alike_in_both_engines():
    maps = np.random.default_rng(0).integers(0, 256, (40, 3, 28, 28)).astype(np.float32)
    recipe = STSTNET[0].recipes["authors"].changed(epochs=3, batch_size=16)
    one, many = (run(job_of(STSTNET[0], recipe, engine=e, chunk=3), maps=maps) for e in ("local", "stacked"))
    for name, record in one.items():
        np.testing.assert_allclose(many[name].logits, record.logits, rtol=1e-4, atol=1e-4)


def test_a_fold_s_network_that_is_kept_ends_where_its_record_does():
    given, folds = data()
    job = job_of(Dropping, Recipe(epochs=8, batch_size=16, lr=0.3, optimizer="sgd", momentum=0.9))
    trained, record = train_whole(job, given, fold=folds[2]), run(job, folds[2:3])["s2"]
    assert record.train_accuracy.max() > record.train_accuracy[-1]  # the best is not the last
    assert record.train_loss.min() < record.train_loss[-1]
    assert trained.train_accuracy == record.train_accuracy[-1]
    assert trained.train_loss == record.train_loss[-1]
    held_out = torch.from_numpy(given.maps[folds[2].test])
    np.testing.assert_array_equal(trained.network(held_out).detach().numpy(), record.logits[-1])


def test_a_network_is_trained_on_every_sample_and_kept():
    given, _ = data()
    calls = []
    job = job_of(Dropping, Recipe(epochs=5, batch_size=16, lr=0.01))
    trained, again = (train_whole(job, given, lambda *call: calls.append(call)) for _ in range(2))
    assert calls[:5] == [(k, 5) for k in range(1, 6)]
    assert not trained.network.training and 0 <= trained.train_accuracy <= 1
    x = torch.from_numpy(given.maps)
    assert torch.equal(trained.network(x), again.network(x)) and x.shape[-1] == SIDE
    with pytest.raises(TrainingError, match=r"'all samples', epoch 1: .* became nan"):
        train_whole(job_of(Poisoned), TrainingData(given.maps, given.labels))
