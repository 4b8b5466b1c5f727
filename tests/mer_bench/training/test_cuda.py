"""Training on a GPU: every path that a CPU cannot try. Skipped without one.

A GPU sums in another order, and Adam makes whole steps of small differences: in float32, over the few steps
taken here, logits of size one stay within 1e-3 of a CPU's; TF32 and bfloat16 round to 10 and 7 bits, and stay
within 0.05 and 0.1.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from tests.mer_bench.training.parts import (
    RECIPE,
    Dropping,
    Kept,
    Normed,
    Poisoned,
    assert_agree,
    assert_same,
    data,
    job_of,
    run,
)
from torch import nn

from mer_bench.errors import TrainingError
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.training import graphs
from mer_bench.training.whole import train_whole

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

ON_CPU = {"rtol": 1e-3, "atol": 1e-3}


def on_gpu(*given, **more):
    return job_of(*given, **{"device": "cuda", "precision": "float32", **more})


def without_graphs(monkeypatch):
    """What follows runs kernel by kernel."""
    monkeypatch.setattr(graphs.Graphs, "replayed", lambda self, function, name: function)


VARIED = [
    {},
    {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup_epochs": 1, "clip_norm": 0.5},
    {"optimizer": "sgd", "schedule": "step", "step_epochs": 1, "balanced": True, "loss": "class-balanced"},
    {"flip": 0.5, "shift": 1, "noise": 0.1, "rotate": 4.0, "loss": "focal", "drop_last": True},
]


@pytest.mark.parametrize("changes", VARIED, ids=lambda c: "-".join(c) or "plain")
def test_stacked_folds_agree_with_folds_on_the_cpu_and_are_captured(changes):
    recipe = RECIPE.changed(epochs=6, **changes)
    there = run(on_gpu(Dropping, recipe))
    assert {(r.engine, r.device, r.notes) for r in there.values()} == {("stacked", "cuda", ())}
    assert_agree(there, run(job_of(Dropping, recipe)), **ON_CPU)


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_agree(chunk):
    assert_agree(run(on_gpu(Dropping, chunk=chunk)), run(on_gpu(Dropping)), **ON_CPU)


def test_one_fold_at_a_time_in_this_process_agrees():
    there = run(on_gpu(Dropping, engine="local"))
    assert {(r.engine, r.device) for r in there.values()} == {("local", "cuda")}
    assert_agree(there, run(job_of(Dropping)), **ON_CPU)


@pytest.mark.parametrize("name", ["ststnet", "ahmsa"])
def test_the_networks_of_the_benchmarks_agree_and_are_captured(name):
    spec, options = STSTNET[0], {}
    if name == "ahmsa":
        registration = pytest.importorskip("ahmsa_model.registration", reason="ahmsa-model is not installed")
        spec = registration.SPECS[0]
        options = dict(spec.variants["tiny"])
    maps = np.random.default_rng(0).uniform(-1, 1, (40, 3, 28, 28)).astype(np.float32)
    recipe = spec.recipes[spec.default_recipe].changed(epochs=6, batch_size=16)
    there = run(on_gpu(spec, recipe, options), maps=maps)
    assert all(r.notes == () for r in there.values())
    assert_agree(there, run(job_of(spec, recipe, options), maps=maps), rtol=1e-2, atol=1e-2)


def test_graphs_replay_the_steps_they_captured(monkeypatch):
    job = on_gpu(Dropping, RECIPE.changed(epochs=8, flip=0.5, noise=0.1), deterministic=True)
    captured = run(job)
    without_graphs(monkeypatch)
    assert_agree(captured, run(job), rtol=1e-5, atol=1e-5)


class Asking(Normed):
    """Waits for the device in training, which capture does not allow, and vmap does."""

    def forward(self, maps):
        if self.training:
            torch.cuda.synchronize()
        return super().forward(maps)


def test_a_step_that_cannot_be_captured_runs_plainly_and_is_noted():
    recipe = RECIPE.changed(epochs=6)
    there = run(on_gpu(Asking, recipe))
    assert all("could not be captured as a CUDA graph" in r.notes[0] for r in there.values())
    assert_agree(there, run(on_gpu(Normed, recipe)), **ON_CPU)


def test_tf32_is_used_noted_and_put_back():
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("the GPU does not know TF32")
    before = torch.backends.cuda.matmul.allow_tf32
    coarse, exact = run(on_gpu(Normed, precision="auto")), run(on_gpu(Normed))
    assert {r.device for r in coarse.values()} == {"cuda (tf32)"}
    assert torch.backends.cuda.matmul.allow_tf32 == before
    assert_agree(coarse, exact, rtol=0, atol=0.05)


def test_bfloat16_trains():
    half, exact = run(on_gpu(Normed, RECIPE.changed(amp="bf16"))), run(on_gpu(Normed))
    assert any(not np.array_equal(half[name].logits, exact[name].logits) for name in exact)
    assert_agree(half, exact, rtol=0, atol=0.1)


def test_deterministic_training_repeats_bit_for_bit():
    a, b = (run(on_gpu(Dropping, deterministic=True)) for _ in range(2))
    assert_same(a, b)


@pytest.mark.slow
def test_a_compiled_network_is_the_same_function():
    recipe = RECIPE.changed(epochs=6)
    compiled = run(on_gpu(Dropping, recipe, compile=True))
    assert all(r.notes == () for r in compiled.values())
    assert_agree(compiled, run(on_gpu(Dropping, recipe)), **ON_CPU)


class Wide(nn.Module):
    """Weights, gradients and moments of 350 MB."""

    def __init__(self, num_classes, in_channels, map_size):
        super().__init__()
        self.hidden = nn.Linear(in_channels * map_size**2, 200_000)
        self.head = nn.Linear(200_000, num_classes)

    def forward(self, maps):
        return self.head(torch.tanh(self.hidden(maps.flatten(1))))


def test_a_chunk_that_does_not_fit_is_halved():
    recipe = RECIPE.changed(epochs=2, batch_size=100, lr=1e-5)
    expected = run(on_gpu(Wide, recipe, chunk=1))
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1.3e9) / total)
    try:
        there = run(on_gpu(Wide, recipe, chunk=5))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("did not fit on cuda; the chunk was halved" in r.notes[-1] for r in there.values() if r.notes)
    assert_agree(there, expected, **ON_CPU)


def test_a_diverging_fold_leaves_its_neighbours_alone():
    kept = Kept()
    with pytest.raises(TrainingError, match=r"3 of 5 folds failed(.|\n)*'s2', epoch 1: .* became nan"):
        run(on_gpu(Poisoned), sink=kept)
    expected = run(on_gpu(Normed), data()[1][:2])
    assert set(kept) == {"s0", "s1"}
    for name, record in kept.items():
        np.testing.assert_allclose(record.train_loss, expected[name].train_loss, **ON_CPU)


def test_a_network_is_trained_on_every_sample():
    trained = train_whole(on_gpu(Dropping), data()[0])
    assert next(trained.network.parameters()).is_cuda
    on_cpu = train_whole(job_of(Dropping), data()[0])
    assert trained.train_loss == pytest.approx(on_cpu.train_loss, abs=1e-3)
