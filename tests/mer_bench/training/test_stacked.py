"""Stacked folds agree with folds trained alone, whatever stands beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.mer_bench.training.parts import (
    CPU,
    RECIPE,
    TOLERANCE,
    Normed,
    assert_agree,
    data,
    job_of,
    run,
    stacked,
)
from torch import nn

from mer_bench.errors import TrainingError
from mer_bench.recipe import Recipe
from mer_bench.training.engines.memory import activation_bytes, fold_capacity
from mer_bench.training.engines.stacked import chunks_of
from mer_bench.training.networks import StackedNetworks


class Branching(Normed):
    """Python control flow on values, which vmap cannot follow."""

    def forward(self, maps):
        logits = super().forward(maps)
        return logits if float(logits.sum()) > 0 else -logits


def both(*given, **more):
    """The records of both engines."""
    return tuple(run(job_of(*given, engine=engine, **more)) for engine in ("stacked", "local"))


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_folds_agree_in_chunks_of_any_size(chunk):
    assert_agree(*both(Normed, chunk=chunk))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "clip_norm": 0.3, "schedule": "step", "step_epochs": 1, "warmup_epochs": 1},
        {"optimizer": "adamw", "weight_decay": 0.1, "loss": "class-balanced", "flip": 0.5, "shift": 1},
        {"loss": "logit-adjusted", "label_smoothing": 0.1, "noise": 0.1},
        {"loss": "focal", "shuffle": False},
        {"batch_size": 17, "balanced": True},  # one sample is left over in fold s0
    ],
)
def test_every_part_of_a_recipe_is_per_fold(changes):
    assert_agree(*both(Normed, RECIPE.changed(**changes)))


def test_dropout_draws_the_same_masks_stacked_as_alone():
    dropped, alone = both(Normed, RECIPE, {"dropout": 0.3})
    assert_agree(dropped, alone)
    assert not np.allclose(dropped["s0"].logits, run(job_of(Normed))["s0"].logits, atol=1e-2)


def test_small_ahmsa_agrees():
    registration = pytest.importorskip("ahmsa_model.registration", reason="ahmsa-model is not installed")
    spec = registration.SPECS[0]
    maps = np.random.default_rng(0).uniform(-1, 1, (40, 3, 28, 28)).astype(np.float32)
    recipe = spec.recipes[spec.default_recipe].changed(epochs=2, batch_size=16)
    jobs = [job_of(spec, recipe, dict(spec.variants["tiny"]), engine=e) for e in ("stacked", "local")]
    assert_agree(*(run(job, data()[1][:3], maps) for job in jobs))


def test_half_precision_trains():
    (half, _), (exact, _) = both(Normed, RECIPE.changed(amp="bf16")), both(Normed)
    for name, record in half.items():
        assert not np.array_equal(record.train_loss, exact[name].train_loss)
        np.testing.assert_allclose(record.train_loss, exact[name].train_loss, rtol=0.1)


def test_network_that_vmap_cannot_take_is_refused_with_the_remedy():
    with pytest.raises(TrainingError, match=r"under vmap.*engine 'local'"):
        run(job_of(Branching, engine="stacked"))


def test_chunks_keep_steps_equal_and_sizes_even():
    _, folds = data()
    chunks = chunks_of(folds, Recipe(batch_size=16), limit=3)
    assert sorted(f.name for c in chunks for f in c) == sorted(f.name for f in folds)
    for chunk in chunks:
        assert len({-(-len(f.train) // 16) for f in chunk}) == 1
    assert [len(c) for c in chunks_of(folds[:4], Recipe(batch_size=100), 3)] == [2, 2]


def test_memory_estimate_counts_what_backward_keeps():
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 50), nn.Tanh(), nn.Linear(50, 3))
    # Kept per sample: the flattened map (a view of the input) and the hidden layer after tanh.
    assert activation_bytes(network, (3, 6, 6), CPU) == 4 * (108 + 50)
    given, _ = data()
    small, large = (fold_capacity(job_of(Normed, RECIPE.changed(batch_size=b)), given, 39) for b in (16, 1))
    assert 1 <= small < large


def test_a_chunk_that_does_not_fit_is_halved_and_a_fold_that_does_not_is_named(monkeypatch, caplog):
    def full_above(limit):
        def build(self, job, seeds, *rest):
            if len(seeds) > limit:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            original(self, job, seeds, *rest)

        return build

    original = StackedNetworks.__init__
    expected = run(job_of(Normed))
    monkeypatch.setattr(StackedNetworks, "__init__", full_above(1))
    halved = run(job_of(Normed, engine="stacked", chunk=5))
    assert_agree(halved, expected)
    assert "halving the chunk" in caplog.text
    assert any("did not fit on cpu; the chunk was halved" in r.notes[-1] for r in halved.values() if r.notes)
    monkeypatch.setattr(StackedNetworks, "__init__", full_above(0))
    with pytest.raises(TrainingError, match=r"cannot hold even one fold.*lower batch_size"):
        run(job_of(Normed, engine="stacked"))


def test_a_network_that_cannot_be_compiled_runs_as_written_and_is_noted(monkeypatch):
    def compile_nothing(function, **options):
        def refuse(*arguments):
            raise RuntimeError("no compiler here\nmore")

        return refuse

    monkeypatch.setattr(torch, "compile", compile_nothing)
    compiled = run(job_of(Normed, engine="stacked", compile=True))
    plain = run(job_of(Normed, engine="stacked"))
    for name, record in compiled.items():
        np.testing.assert_array_equal(record.logits, plain[name].logits)
        (note,) = record.notes
        assert "could not be compiled (RuntimeError: no compiler here); it ran as written" in note


@pytest.mark.slow
def test_a_compiled_network_is_the_same_function(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_(f, backend="aot_eager", **options))
    (compiled, _), (plain, _) = (stacked(job_of(Normed, compile=c)) for c in (True, False))
    for trainer in (compiled, plain):
        trainer.epoch()
    np.testing.assert_allclose(compiled.history()[0], plain.history()[0], rtol=1e-5)
    assert not compiled.networks._graphs.notes


def test_a_fold_alone_in_its_chunk_agrees_too():
    _, folds = data()
    alone = run(replace(job_of(Normed, engine="stacked", chunk=1)), folds[3:4])
    np.testing.assert_allclose(alone["s3"].logits, run(job_of(Normed))["s3"].logits, **TOLERANCE)
