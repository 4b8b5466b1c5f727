"""The fold engine, serial and in processes: blind to held-out samples, repeatable, failing by name."""

import errno
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mer_bench.errors import DataError, TrainingError, UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.engines.choice import choose_cpu_engine
from mer_bench.training.folds import fold_seed, resolve_device, run_folds
from mer_bench.training.plan import Plan
from mer_bench.training.samples import TrainingSamples, training_rows

RECIPE = Recipe(epochs=3, batch_size=16, lr=0.01)
SAMPLES, SIDE = 40, 6


class Small(nn.Module):
    """Convolution, BN, dropout: every layer whose randomness or statistics could leak between folds."""

    def __init__(self, num_classes, in_channels, map_size, dropout=0.5):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4 * (map_size - 2) ** 2, num_classes)

    def forward(self, maps):
        return self.fc(self.dropout(torch.relu(self.norm(self.conv(maps)))).flatten(1))


class Spy(Small):
    """Writes down the first pixel of every map that it sees in training."""

    seen: set

    def forward(self, maps):
        if self.training:
            Spy.seen |= set(maps[:, 0, 0, 0].tolist())
        return super().forward(maps)


class Suicidal(Small):
    """Kills its process in the fold that holds out sample 0."""

    def forward(self, maps):
        if not self.training and bool((maps[:, 0, 0, 0] == 0).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(maps)


class Exploding(Small):
    """Gives NaN once sample 0 is in training."""

    def forward(self, maps):
        logits = super().forward(maps)
        return logits * torch.where(
            (maps[:, 0, 0, 0] == 0).any() & torch.tensor(self.training), torch.nan, 1.0
        )


class Fussy(Small):
    """Raises what no engine foresees, once it is trained."""

    def forward(self, maps):
        if self.training:
            raise KeyError("frobnicate")
        return super().forward(maps)


def as_spec(build, recipe=RECIPE):
    return ModelSpec(
        "small", "Small", build, "network", ("whole-6:raw",), "none", "baseline",
        recipes={"r": recipe}, default_recipe="r",
    )  # fmt: skip


def data():
    """Sample k is named by its first pixel, k; five subjects, the last of unequal size."""
    generator = np.random.default_rng(0)
    maps = generator.standard_normal((SAMPLES, 3, SIDE, SIDE)).astype(np.float32)
    maps[:, 0, 0, 0] = np.arange(SAMPLES)
    labels = generator.integers(0, 3, SAMPLES).astype(np.int64)
    subjects = np.minimum(np.arange(SAMPLES) // 5, 4)
    folds = [Fold(f"s{k}", np.flatnonzero(subjects != k), np.flatnonzero(subjects == k)) for k in range(5)]
    return maps, labels, folds


def run(spec, folds=None, recipe=RECIPE, seed=0, engine="serial", options=None, maps=None, **more):
    given, labels, all_folds = data()
    records = {}
    run_folds(
        spec, options or {}, given if maps is None else maps, labels, 3, folds or all_folds, recipe,
        protocol="p", seed=seed, device="cpu", engine=engine,
        on_fold=lambda r: records.__setitem__(r.fold, r), **more,
    )  # fmt: skip
    return records


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("logits", "inner_logits", "train_loss", "train_accuracy", "test_index", "inner_index")
    )


def test_record_has_every_epoch_of_every_held_out_sample():
    _, _, folds = data()
    folds = [replace(folds[0], train=folds[0].train[5:], inner=folds[0].train[:5])]
    record = run(as_spec(Small), folds)["s0"]
    assert record.logits.shape == (3, 5, 3)
    assert record.inner_logits.shape == (3, 5, 3)
    assert record.logits.dtype == np.float32
    assert np.isfinite(record.logits).all()
    assert record.train_loss.shape == record.train_accuracy.shape == (3,)
    assert (record.test_index == folds[0].test).all()
    assert (record.inner_index == folds[0].inner).all()
    assert not np.array_equal(record.logits[0], record.logits[2])


def test_no_held_out_or_inner_sample_reaches_training():
    _, _, folds = data()
    fold = replace(folds[1], train=folds[1].train[4:], inner=folds[1].train[:4])
    Spy.seen = set()
    run(as_spec(Spy), [fold])
    assert Spy.seen == set(map(float, fold.train))


def test_training_of_a_fold_does_not_depend_on_its_held_out_maps():
    maps, _, folds = data()
    changed = maps.copy()
    changed[folds[0].test] *= -3.0
    a, b = run(as_spec(Small), folds[:1])["s0"], run(as_spec(Small), folds[:1], maps=changed)["s0"]
    assert np.array_equal(a.train_loss, b.train_loss)
    assert not np.array_equal(a.logits, b.logits)


def test_fold_is_independent_of_neighbours_order_and_global_generator():
    _, _, folds = data()
    together = run(as_spec(Small))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    for fold in reversed(folds):
        assert same(run(as_spec(Small), [fold])[fold.name], together[fold.name])
    assert torch.equal(before, torch.get_rng_state())


def test_two_processes_equal_serial_bit_for_bit_and_report_progress():
    serial = run(as_spec(Small))
    calls = []
    spread = run(as_spec(Small), engine="processes", workers=2, on_progress=lambda *c: calls.append(c))
    assert {r.engine for r in spread.values()} == {"processes"}
    assert all(same(spread[name], serial[name]) for name in serial)
    assert calls[-1] == (15, 15)
    assert calls == sorted(calls)


def test_ststnet_in_one_process_equals_serial():
    generator = np.random.default_rng(0)
    maps = generator.integers(0, 256, (SAMPLES, 3, 28, 28)).astype(np.float32)
    recipe = STSTNET[0].recipes["authors"].changed(epochs=2, batch_size=20)
    serial = run(STSTNET[0], recipe=recipe, maps=maps)
    spread = run(STSTNET[0], recipe=recipe, maps=maps, engine="processes", workers=1)
    assert all(same(spread[name], serial[name]) for name in serial)


def test_seeds_and_folds_differ():
    a, b = run(as_spec(Small), seed=0), run(as_spec(Small), seed=1)
    assert not np.array_equal(a["s0"].train_loss, b["s0"].train_loss)
    assert a["s0"].train_loss[0] != a["s1"].train_loss[0]
    assert fold_seed(0, "cde", "samm/006") != fold_seed(0, "loso", "samm/006")
    assert 0 <= fold_seed(0, "cde", "samm/006") < 2**63


def test_a_network_learns_what_its_labels_say():
    maps, labels, folds = data()
    maps = maps * 0.1
    maps[np.arange(SAMPLES), labels] += 1.0
    recipe = Recipe(epochs=30, batch_size=16, lr=0.01)
    record = run(as_spec(Small), folds[:1], recipe, options={"dropout": 0.0}, maps=maps)["s0"]
    assert record.train_loss[-1] < 0.3 * record.train_loss[0]
    assert (record.logits[-1].argmax(1) == labels[folds[0].test]).mean() > 0.7


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
    recipe = RECIPE.changed(**changes)
    _, _, folds = data()
    a, b = (run(as_spec(Small), folds[:1], recipe, view="whole-6:raw")["s0"] for _ in range(2))
    assert same(a, b)
    assert not np.array_equal(a.logits, run(as_spec(Small), folds[:1])["s0"].logits)


def test_deterministic_is_set_and_put_back():
    _, _, folds = data()
    run(STSTNET[0], folds[:1], maps=np.zeros((SAMPLES, 3, 28, 28), np.float32), deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()


def test_progress_is_sparing_and_reaches_the_end():
    calls = []
    run(as_spec(Small), on_progress=lambda *c: calls.append(c))
    assert calls[-1] == (15, 15)
    assert calls == sorted(calls)
    assert len(calls) < 15


def test_nan_in_a_map_is_named_before_training():
    maps, _, _ = data()
    maps[7, 1, 2, 3] = np.nan
    with pytest.raises(DataError, match="sample 7 "):
        run(as_spec(Small), maps=maps)


def test_folds_that_overlap_or_are_empty_are_refused():
    _, _, folds = data()
    for bad, words in (
        (replace(folds[0], train=np.arange(40)), "disjoint"),
        (replace(folds[0], train=np.empty(0, np.int64)), "no training samples"),
        (replace(folds[0], test=np.array([99])), "sample 99"),
    ):
        with pytest.raises(DataError, match=words):
            run(as_spec(Small), [bad])
    with pytest.raises(DataError, match="more than once"):
        run(as_spec(Small), [folds[0], folds[0]])


def test_diverged_fold_names_fold_epoch_and_remedy_and_others_go_on():
    records = {}
    maps, labels, folds = data()
    with pytest.raises(TrainingError, match="4 of 5 folds failed") as caught:
        run_folds(
            as_spec(Exploding), {}, maps, labels, 3, folds, RECIPE, protocol="p", seed=0, device="cpu",
            engine="serial", on_fold=lambda r: records.__setitem__(r.fold, r),
        )  # fmt: skip
    assert set(records) == {"s0"}
    assert "fold 's1', epoch 1: the training loss became nan" in str(caught.value)
    assert "lower lr" in str(caught.value)


def test_killed_worker_names_its_fold_and_others_are_delivered():
    records = {}
    maps, labels, folds = data()
    with pytest.raises(TrainingError, match=r"fold 's0'.*SIGKILL"):
        run_folds(
            as_spec(Suicidal), {}, maps, labels, 3, folds, RECIPE, protocol="p", seed=0, device="cpu",
            engine="processes", workers=1, on_fold=lambda r: records.__setitem__(r.fold, r),
        )  # fmt: skip
    assert set(records) == {"s1", "s2", "s3", "s4"}


def test_what_on_fold_raises_ends_the_run():
    maps, labels, folds = data()

    def full_disk(record):
        raise OSError("No space left on device")

    for engine in ("serial", "processes"):
        with pytest.raises(OSError, match="No space left"):
            run_folds(
                as_spec(Small), {}, maps, labels, 3, folds, RECIPE, protocol="p", seed=0, device="cpu",
                engine=engine, workers=1, on_fold=full_disk,
            )  # fmt: skip


def test_absent_class_is_noted_and_trains():
    _, labels, folds = data()
    fold = replace(folds[0], train=folds[0].train[labels[folds[0].train] != 2])
    for loss in ("class-balanced", "logit-adjusted"):
        record = run(as_spec(Small), [fold], RECIPE.changed(loss=loss))["s0"]
        assert "class 2 has no training sample" in record.notes[0]
        assert np.isfinite(record.train_loss).all()


def test_requests_that_cannot_be_met():
    with pytest.raises(UsageError, match="engine 'fast' is not one of"):
        run(as_spec(Small), engine="fast")
    with pytest.raises(UsageError, match="workers must be at least 1"):
        run(as_spec(Small), workers=0)
    with pytest.raises(UsageError, match="cannot be sent to another process"):
        run(as_spec(lambda **options: Small(**options)), engine="processes")
    with pytest.raises(UsageError, match="is not one of auto, cpu"):
        resolve_device("gpu")
    with pytest.raises(TrainingError, match=r"fold 's0'.*frobnicate"):
        run(as_spec(Small), data()[2][:1], options={"frobnicate": 1})


@pytest.mark.parametrize("engine", ["auto", "serial", "processes", "stacked"])
def test_whatever_a_network_raises_names_its_fold(engine):
    with pytest.raises(TrainingError, match=r"fold 's\d'.*frobnicate"):
        run(as_spec(Fussy), data()[2][:2], engine=engine, workers=1)


def test_maps_that_cannot_be_shared_with_processes_are_said_so(monkeypatch):
    def full(file, array):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(TrainingError, match=r"No space left.*TMPDIR"):
        run(as_spec(Small), engine="processes")


def test_auto_stays_serial_for_little_work_and_measures_otherwise(caplog):
    maps, labels, folds = data()
    plan = Plan(as_spec(Small), {}, 3, RECIPE, "p", 0, "cpu", None, False)
    assert choose_cpu_engine(plan, maps, labels, folds, workers=2) == "serial"
    long = replace(plan, recipe=RECIPE.changed(epochs=10**6))
    with caplog.at_level("INFO"):
        assert choose_cpu_engine(long, maps, labels, folds, workers=2) in ("processes", "stacked")
    assert "2 processes take" in caplog.text
    assert choose_cpu_engine(long, maps, labels, folds, workers=2, stacking=False) == "processes"


def test_without_shuffling_samples_come_class_by_class() -> None:
    labels = np.array([2, 0, 1, 0, 2, 1, 0])
    fold = Fold("a", np.array([0, 1, 2, 3, 5, 6]), np.array([4]))
    rows = training_rows(fold, labels)
    assert rows.tolist() == [1, 3, 6, 2, 5, 0]  # the stored order within a class
    samples = TrainingSamples.of_fold(
        np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1), labels, fold, 3, torch.device("cpu")
    )
    assert samples.maps.flatten().tolist() == rows.tolist()
    assert samples.labels.tolist() == labels[rows].tolist()
