"""Stacked folds agree with folds trained alone, whatever stands beside them.

Tolerance: both run the same float32 arithmetic with sums in another order; over the few steps taken here
logits of size one stay within 1e-4. No layer before a batch normalisation has a bias: its gradient is zero
but for rounding, which Adam scales up to whole steps.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mer_bench.errors import TrainingError
from mer_bench.models.spec import ModelSpec
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.protocols.folds import Fold
from mer_bench.recipe import Recipe
from mer_bench.training.engines.stacked import chunks_of, fold_capacity
from mer_bench.training.folds import run_folds
from mer_bench.training.layers import FoldDropout, MaskedBatchNorm
from mer_bench.training.plan import Plan
from mer_bench.training.stacked_network import StackedNetwork, activation_bytes
from mer_bench.training.stacked_samples import StackedSamples
from mer_bench.training.stacked_trainer import StackedTrainer

RECIPE = Recipe(epochs=3, batch_size=16, lr=0.003)
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


class Normed(nn.Module):
    """BN on maps and on features, with and without momentum, dropout as asked."""

    def __init__(self, num_classes, in_channels, map_size, dropout=0.0):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 5, 3, bias=False), nn.BatchNorm2d(5, momentum=None), nn.ReLU(),
            nn.Dropout2d(dropout), nn.Flatten(), nn.Linear(5 * (map_size - 2) ** 2, 8, bias=False),
            nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, num_classes),
        )  # fmt: skip

    def forward(self, maps):
        return self.body(maps)


class Branching(Normed):
    """Python control flow on values, which vmap cannot follow."""

    def forward(self, maps):
        logits = super().forward(maps)
        return logits if float(logits.sum()) > 0 else -logits


class ExplodesOnZero(Normed):
    def forward(self, maps):
        poisoned = (maps[:, 0, 0, 0] == 0).any()
        return super().forward(maps) * torch.where(poisoned, torch.nan, 1.0)


def as_spec(build):
    return ModelSpec(
        "normed", "Normed", build, "network", ("whole-6:raw",), "none", "baseline",
        recipes={"r": RECIPE}, default_recipe="r",
    )  # fmt: skip


def data(side=6):
    """Subjects of 3, 5, 9, 1 and 22 samples: trainings of unequal length, and unequal steps per epoch."""
    generator = np.random.default_rng(0)
    subjects = np.repeat(np.arange(5), [3, 5, 9, 1, 22])
    maps = generator.standard_normal((40, 3, side, side)).astype(np.float32)
    maps[:, 0, 0, 0] = np.arange(40) / 10
    labels = generator.integers(0, 3, 40).astype(np.int64)
    folds = [Fold(f"s{k}", np.flatnonzero(subjects != k), np.flatnonzero(subjects == k)) for k in range(5)]
    folds[1] = replace(folds[1], train=folds[1].train[3:], inner=folds[1].train[:3])
    return maps, labels, folds


def run(spec, engine, recipe=RECIPE, options=None, maps=None, folds=None, **more):
    given, labels, all_folds = data()
    records = {}
    run_folds(
        spec, options or {}, given if maps is None else maps, labels, 3, folds or all_folds, recipe,
        protocol="p", seed=0, device="cpu", engine=engine, view="whole-6:raw",
        on_fold=lambda r: records.__setitem__(r.fold, r), **more,
    )  # fmt: skip
    return records


def assert_agree(a, b):
    assert a.keys() == b.keys()
    for name in a:
        for field in ("logits", "inner_logits", "train_loss"):
            np.testing.assert_allclose(getattr(a[name], field), getattr(b[name], field), **TOLERANCE)
        assert np.array_equal(a[name].test_index, b[name].test_index)
        np.testing.assert_allclose(a[name].train_accuracy, b[name].train_accuracy, atol=0.05)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_stacked_agrees_with_one_at_a_time_for_a_net_with_batch_norm(chunk):
    stacked = run(as_spec(Normed), "stacked", chunk=chunk)
    assert {r.engine for r in stacked.values()} == {"stacked"}
    assert_agree(stacked, run(as_spec(Normed), "serial"))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "clip_norm": 0.3, "schedule": "step", "step_epochs": 1, "warmup_epochs": 1},
        {"optimizer": "adamw", "weight_decay": 0.1, "loss": "class-balanced", "flip": 0.5, "shift": 1},
        {"loss": "logit-adjusted", "label_smoothing": 0.1, "noise": 0.1},
        {"loss": "focal", "shuffle": False},
    ],
)
def test_every_part_of_a_recipe_is_per_fold(changes):
    recipe = RECIPE.changed(**changes)
    assert_agree(run(as_spec(Normed), "stacked", recipe), run(as_spec(Normed), "serial", recipe))


def test_dropout_draws_the_same_masks_stacked_as_alone():
    options = {"dropout": 0.3}
    dropped = run(as_spec(Normed), "stacked", options=options)
    assert_agree(dropped, run(as_spec(Normed), "serial", options=options))
    assert not np.allclose(dropped["s0"].logits, run(as_spec(Normed), "stacked")["s0"].logits, atol=1e-2)


def test_ststnet_stacked_agrees_with_its_fused_serial_form():
    maps = np.random.default_rng(0).integers(0, 256, (40, 3, 28, 28)).astype(np.float32)
    recipe = STSTNET[0].recipes["authors"].changed(epochs=3, batch_size=16)
    stacked = run(STSTNET[0], "stacked", recipe, maps=maps, chunk=3)
    assert_agree(stacked, run(STSTNET[0], "serial", recipe, maps=maps))


def test_small_ahmsa_stacked_agrees():
    registration = pytest.importorskip("ahmsa_model.registration", reason="ahmsa-model is not installed")
    spec = registration.SPECS[0]
    maps = np.random.default_rng(0).uniform(-1, 1, (40, 3, 28, 28)).astype(np.float32)
    recipe = spec.recipes[spec.default_recipe].changed(epochs=2, batch_size=16)
    _, _, folds = data()
    options = dict(spec.variants["tiny"])
    stacked = run(spec, "stacked", recipe, options, maps, folds[:3])
    assert_agree(stacked, run(spec, "serial", recipe, options, maps, folds[:3]))


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_trains(amp):
    records = run(as_spec(Normed), "stacked", RECIPE.changed(amp=amp))
    exact = run(as_spec(Normed), "stacked")
    for name, record in records.items():
        assert not np.array_equal(record.train_loss, exact[name].train_loss)
        np.testing.assert_allclose(record.train_loss, exact[name].train_loss, rtol=0.1)


def test_loss_scaling_skips_the_overflowing_fold_alone():
    maps, labels, folds = data()
    recipe = RECIPE.changed(amp="fp16")
    plan = Plan(as_spec(Normed), {}, 3, recipe, "p", 0, "cpu", None, False)
    network = StackedNetwork(plan, [1, 2], (3, 6, 6), torch.device("cpu"))
    samples = StackedSamples(torch.from_numpy(maps), torch.from_numpy(labels), folds[2:4], 3)
    trainer = StackedTrainer(network, samples, recipe, None)
    rows = torch.arange(16).expand(2, 16)
    trainer.step(rows)
    trainer._scale = torch.tensor([3e38, 1024.0])
    before = {name: p.detach().clone() for name, p in network.parameters.items()}
    trainer.step(rows)
    weight = network.parameters["body.0.weight"].detach()
    assert torch.equal(weight[0], before["body.0.weight"][0])
    assert not torch.equal(weight[1], before["body.0.weight"][1])
    assert trainer._scale.tolist() == [pytest.approx(1.5e38), 1024.0]


def test_diverged_fold_leaves_its_neighbours_alone():
    maps, labels, folds = data()
    records = {}
    with pytest.raises(TrainingError, match=r"'s2', epoch 1: the training loss became nan"):
        run_folds(
            as_spec(ExplodesOnZero), {}, maps, labels, 3, [folds[0], folds[2]], RECIPE, protocol="p", seed=0,
            device="cpu", engine="stacked", on_fold=lambda r: records.__setitem__(r.fold, r),
        )  # fmt: skip
    # Fold s0 holds sample 0 out, so only its observation is poisoned, not its training.
    assert set(records) == {"s0"}
    assert np.isfinite(records["s0"].train_loss).all()


def test_network_that_vmap_cannot_take_is_refused_with_the_remedy():
    with pytest.raises(TrainingError, match="engine 'serial' or 'processes'"):
        run(as_spec(Branching), "stacked")


def test_chunks_keep_steps_equal_and_sizes_even():
    _, _, folds = data()
    chunks = chunks_of(folds, Recipe(batch_size=16), limit=3)
    assert sorted(f.name for c in chunks for f in c) == sorted(f.name for f in folds)
    for chunk in chunks:
        assert len({-(-len(f.train) // 16) for f in chunk}) == 1
    assert [len(c) for c in chunks_of(folds[:4], Recipe(batch_size=100), 3)] == [2, 2]


def test_positions_lead_to_training_samples_alone():
    maps, labels, folds = data()
    samples = StackedSamples(torch.from_numpy(maps), torch.from_numpy(labels), folds, 3)
    picked, _, weights = samples.pick(torch.arange(samples.padded).expand(5, -1))
    for place, fold in enumerate(folds):
        real = picked[place, weights[place] > 0, 0, 0, 0]
        np.testing.assert_allclose(np.sort(real.numpy()), np.sort(maps[fold.train, 0, 0, 0]))
        everything = set(picked[place, :, 0, 0, 0].tolist())
        assert everything == set(maps[fold.train, 0, 0, 0].tolist())


def test_masked_batch_norm_ignores_padding_and_equals_torch_without():
    x = torch.randn(10, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 + 1
    ours, theirs = MaskedBatchNorm(nn.BatchNorm2d(4)), nn.BatchNorm2d(4)
    ours.row_weight = torch.tensor([1.0] * 7 + [0.0] * 3)
    padded = x.clone()
    padded[7:] = 1e6
    torch.testing.assert_close(ours(padded)[:7], theirs(x[:7]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-5, atol=1e-5)


def test_fold_dropout_keeps_its_share_and_scale_and_draws_anew_per_call():
    layer = FoldDropout(0.3)
    x = torch.ones(200, 16, 10, 10)
    out = layer(x)
    assert (out == 0).float().mean() == pytest.approx(0.3, abs=0.005)
    assert out.mean() == pytest.approx(1.0, abs=0.01)
    assert not torch.equal(out, layer(x))
    assert layer.eval()(x) is x
    unpacked = FoldDropout(0.3, stacked=True)
    assert torch.equal(unpacked(x), out)
    channels = FoldDropout(0.5, per_channel=True)(x)
    assert set((channels == 0).flatten(2).float().mean(2).unique().tolist()) == {0.0, 1.0}


def test_memory_estimate_counts_what_backward_keeps():
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 50), nn.Tanh(), nn.Linear(50, 3))
    # Kept per sample: the flattened map (a view of the input) and the hidden layer after tanh.
    assert activation_bytes(network, (3, 6, 6), torch.device("cpu")) == 4 * (108 + 50)
    maps, _, _ = data()
    plan = Plan(as_spec(Normed), {}, 3, RECIPE, "p", 0, "cpu", None, False)
    small = fold_capacity(plan, torch.from_numpy(maps), 39)
    large = fold_capacity(replace(plan, recipe=RECIPE.changed(batch_size=1)), torch.from_numpy(maps), 39)
    assert 1 <= small < large


def test_a_chunk_that_does_not_fit_is_halved_and_a_fold_that_does_not_is_named(monkeypatch, caplog):
    def full_above(limit):
        def build(self, plan, seeds, *rest):
            if len(seeds) > limit:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            original(self, plan, seeds, *rest)

        return build

    original = StackedNetwork.__init__
    expected = run(as_spec(Normed), "stacked")
    monkeypatch.setattr(StackedNetwork, "__init__", full_above(1))
    assert_agree(run(as_spec(Normed), "stacked", chunk=5), expected)
    assert "halving the chunk" in caplog.text
    monkeypatch.setattr(StackedNetwork, "__init__", full_above(0))
    with pytest.raises(TrainingError, match=r"cannot hold even one fold.*lower batch_size"):
        run(as_spec(Normed), "stacked")
