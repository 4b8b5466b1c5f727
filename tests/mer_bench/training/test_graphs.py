"""What a GPU needs of stacked training, tried on a CPU: steps wait for nothing and read only tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.mer_bench.training.parts import CPU, RECIPE, Normed, job_of, stacked, train
from torch.utils._python_dispatch import TorchDispatchMode

from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.training import graphs
from mer_bench.training.graphs import Graphs

VARIED = [
    {},
    {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup_epochs": 1},
    {"optimizer": "sgd", "schedule": "step", "step_epochs": 1, "clip_norm": 0.5},
    {"flip": 0.5, "shift": 1, "noise": 0.1, "loss": "focal"},
    {"balanced": True, "class_weights": (1.0, 2.0, 3.0), "shuffle": False},
    {"drop_last": True, "amp": "bf16"},
    {"mixup": 0.4, "mixup_by": "sample", "ema": 0.8, "flip_average": True, "prior": -0.5, "gain": 0.2},
    {"supcon": 0.3},
]


class NoWaiting(TorchDispatchMode):
    """Refuses every operation that makes the host wait for the device, or whose shape depends on values."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.REFUSED or name.startswith("unique"):
            raise AssertionError(f"{name} waits for the device")
        if name in ("_to_copy", "copy_"):
            places = [a.device for a in args if isinstance(a, torch.Tensor)]
            assert all(place == CPU for place in places)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", VARIED, ids=lambda c: "-".join(c) or "plain")
def test_an_epoch_and_its_observation_never_wait_and_are_the_same_as_without_graphs(changes):
    job = job_of(Normed, RECIPE.changed(**changes), {"dropout": 0.2})
    trainer, recorder = stacked(job, graphs=Graphs(on_device=True))
    train(trainer, recorder, 1)  # the optimiser's state is made by the first step
    with NoWaiting():
        train(trainer, recorder, 2)
    losses, accuracies = trainer.history()
    assert losses.shape == accuracies.shape == (3, 2)
    assert np.isfinite(losses).all() and (losses > 0).all()
    # The same steps as by Python's numbers, whose learning rates are float64: a last bit per step.
    plainly, watched = stacked(job)
    train(plainly, watched, 3)
    np.testing.assert_allclose(losses, plainly.history()[0], rtol=1e-5)
    for (ours, _), (theirs, _) in zip(recorder.logits(), watched.logits(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ststnet", "ahmsa"])
def test_the_networks_of_the_benchmarks_never_wait_for_the_device(name):
    if name == "ststnet":
        spec, options, side = STSTNET[0], {}, 12
    else:
        registration = pytest.importorskip("ahmsa_model.registration", reason="ahmsa-model is not installed")
        spec = registration.SPECS[0]
        options, side = dict(spec.variants["tiny"]), 28
    trainer, recorder = stacked(job_of(spec, RECIPE, options), side, Graphs(on_device=True))
    train(trainer, recorder, 1)
    with NoWaiting():
        train(trainer, recorder, 1)


def test_the_guard_against_waiting_sees_a_wait():
    with NoWaiting(), pytest.raises(AssertionError, match="_local_scalar_dense waits"):
        float(torch.ones(2).sum())


class FakeGraph:
    """Stands in for `torch.cuda.CUDAGraph`: replaying calls what was captured, on the captured argument."""

    replays = 0

    def replay(self):
        FakeGraph.replays += 1
        self.again()


@pytest.fixture
def recorded(monkeypatch):
    """CUDA's capture, played on a CPU: the function is not executed while captured, as on a GPU."""

    class Capture:
        def __init__(self, graph, pool, stream):
            self.graph = graph

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

    FakeGraph.replays = 0
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


def test_a_function_is_captured_once_warm_for_every_shape_and_replayed(recorded):
    total, calls = torch.zeros(()), []

    def add(argument):
        # What a graph would do again at each replay is what reads and writes tensors.
        def again():
            total.add_(argument.sum())

        again()
        if len(calls) % 3 == 2:
            total.sub_(argument.sum())  # capturing does not execute
        FakeGraph.again = staticmethod(again)
        calls.append(argument.shape)
        return total

    owner = Graphs(capture=True)
    replayed = owner.replayed(add, "sum")
    for value in range(1, 6):
        assert replayed(torch.full((2,), float(value))) is total
        assert float(total) == sum(2 * v for v in range(1, value + 1))
    assert (len(calls), FakeGraph.replays) == (3, 3)
    replayed(torch.ones(3))
    assert calls[-1] == (3,) and not owner.notes


def test_what_cannot_be_captured_runs_plainly_and_is_noted_once(recorded, caplog):
    calls = []

    def refuses(argument):
        calls.append(argument)
        if len(calls) == graphs._WARM_CALLS + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return argument * 2

    owner = Graphs(capture=True)
    replayed = owner.replayed(refuses, "training step")
    for value in range(5):
        assert float(replayed(torch.tensor([float(value)]))) == 2 * value
    (note,) = owner.notes
    assert "training step could not be captured" in note and "not permitted" in note and "more" not in note
    assert caplog.text.count("kernel by kernel") == 1


def test_memory_that_runs_out_in_capture_is_left_to_the_engine(recorded):
    def full(argument):
        if calls:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return argument

    calls = []
    replayed = Graphs(capture=True).replayed(full, "training step")
    for _ in range(graphs._WARM_CALLS):
        replayed(torch.ones(1))
    calls.append(1)
    with pytest.raises(RuntimeError, match="out of memory"):
        replayed(torch.ones(1))
