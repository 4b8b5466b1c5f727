"""What a GPU needs of the stacked engine, tried on a CPU: steps wait for nothing and read only tensors."""

import numpy as np
import pytest
import torch
from tests.mer_bench.training.stacked_parts import CPU, RECIPE, make, train
from torch.utils._python_dispatch import TorchDispatchMode

from mer_bench.errors import UsageError
from mer_bench.models.ststnet import SPECS as STSTNET
from mer_bench.training import graphs
from mer_bench.training.engines.graphs import GraphNotes, Replayed
from mer_bench.training.optim import build_optimizer, set_learning_rate
from mer_bench.training.precision import matrix_precision, resolve_precision
from mer_bench.training.seeding import stream_key

VARIED = [
    {},
    {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup_epochs": 1},
    {"optimizer": "sgd", "schedule": "step", "step_epochs": 1, "clip_norm": 0.5},
    {"flip": 0.5, "shift": 1, "noise": 0.1, "loss": "focal"},
    {"balanced": True, "class_weights": (1.0, 2.0, 3.0), "shuffle": False},
    {"drop_last": True, "amp": "bf16"},
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
def test_an_epoch_and_its_observation_never_wait_for_the_device(changes):
    trainer, observer = make(RECIPE.changed(**changes))
    train(trainer, observer, 1)  # the optimiser's state is made by the first step
    with NoWaiting():
        train(trainer, observer, 2)
    losses, accuracies = trainer.history()
    assert losses.shape == accuracies.shape == (3, 2)
    assert np.isfinite(losses).all() and (losses > 0).all()


@pytest.mark.parametrize("name", ["ststnet", "ahmsa"])
def test_the_networks_of_the_benchmarks_never_wait_for_the_device(name):
    if name == "ststnet":
        spec, options, side = STSTNET[0], {}, 12
    else:
        registration = pytest.importorskip("ahmsa_model.registration", reason="ahmsa-model is not installed")
        spec = registration.SPECS[0]
        options, side = dict(spec.variants["tiny"]), 28
    trainer, observer = make(spec=spec, options=options, side=side)
    train(trainer, observer, 1)
    with NoWaiting():
        train(trainer, observer, 1)


def test_the_guard_against_waiting_sees_a_wait():
    with NoWaiting(), pytest.raises(AssertionError, match="_local_scalar_dense waits"):
        float(torch.ones(2).sum())


@pytest.mark.parametrize("changes", VARIED, ids=lambda c: "-".join(c) or "plain")
def test_counters_on_the_device_train_as_counters_on_the_host_do(changes):
    """Learning rates are float32 there and float64 here: a last bit per step."""
    recipe = RECIPE.changed(**changes)
    (there, watched), (here, observed) = make(recipe), make(recipe)
    here._on_device = False
    here._optimizer = build_optimizer(recipe, list(here.network.trainable().values()))
    train(there, watched, 4)
    train(here, observed, 4)
    for a, b in zip(there.network.parameters.values(), here.network.parameters.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(there.history()[0], here.history()[0], rtol=1e-5)
    for a, b in zip(watched.logits(), observed.logits(), strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_capturable_optimiser_equals_a_plain_one(optimizer):
    recipe = RECIPE.changed(optimizer=optimizer, weight_decay=0.01)
    start = torch.randn(37, 5, generator=torch.Generator().manual_seed(0))
    ends = []
    for capturable in (False, True):
        parameter = start.clone().requires_grad_()
        groups = [{"params": [parameter], "lr_scale": 0.5}]
        chosen = build_optimizer(recipe, groups, capturable)
        for step in range(20):
            rate = 1e-3 * (step + 1)
            set_learning_rate(chosen, torch.tensor(rate) if capturable else rate)
            parameter.grad = torch.sin(parameter.detach() * step)
            chosen.step()
        ends.append(parameter.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)


def test_a_key_counted_on_the_device_is_the_key_of_its_value():
    seeds = torch.tensor([7, 2**62 + 5, 1])
    for step in (0, 1, 799, 2**40):
        assert torch.equal(stream_key(seeds, 4, 3, step), stream_key(seeds, 4, 3, torch.tensor(step)))


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

    notes = GraphNotes()
    replayed = Replayed(add, "sum", notes, enabled=True)
    for value in range(1, 6):
        assert replayed(torch.full((2,), float(value))) is total
        assert float(total) == sum(2 * v for v in range(1, value + 1))
    assert (len(calls), FakeGraph.replays) == (3, 3)
    replayed(torch.ones(3))
    assert calls[-1] == (3,) and not list(notes)


def test_what_cannot_be_captured_runs_plainly_and_is_noted_once(recorded, caplog):
    calls = []

    def refuses(argument):
        calls.append(argument)
        if len(calls) == graphs._WARM_CALLS + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return argument * 2

    notes = GraphNotes()
    replayed = Replayed(refuses, "training step", notes, enabled=True)
    for value in range(5):
        assert float(replayed(torch.tensor([float(value)]))) == 2 * value
    (note,) = notes
    assert "training step could not be captured" in note and "not permitted" in note and "more" not in note
    assert caplog.text.count("kernel by kernel") == 1


def test_memory_that_runs_out_in_capture_is_left_to_the_engine(recorded):
    def full(argument):
        if calls:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return argument

    calls = []
    replayed = Replayed(full, "training step", GraphNotes(), enabled=True)
    for _ in range(graphs._WARM_CALLS):
        replayed(torch.ones(1))
    calls.append(1)
    with pytest.raises(RuntimeError, match="out of memory"):
        replayed(torch.ones(1))


def test_precision_is_resolved_applied_and_put_back(monkeypatch):
    assert resolve_precision("auto", "cpu") == resolve_precision("float32", "cpu") == "float32"
    with pytest.raises(UsageError, match="needs a GPU from Ampere on, not cpu"):
        resolve_precision("tf32", "cpu")
    with pytest.raises(UsageError, match="not one of auto, float32, tf32"):
        resolve_precision("half", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert resolve_precision("auto", "cuda") == "tf32"
    assert resolve_precision("float32", "cuda") == "float32"
    before = torch.backends.cuda.matmul.allow_tf32
    with matrix_precision("tf32", "cuda"):
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert resolve_precision("auto", "cuda") == "float32"
