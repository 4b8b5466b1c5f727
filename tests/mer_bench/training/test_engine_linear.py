"""Linear layers of stacked folds, as they run on a GPU, against torch's own; and compiled networks."""

import numpy as np
import pytest
import torch
from tests.mer_bench.training.stacked_parts import make, train
from torch import nn
from torch.func import functional_call, vmap

from mer_bench.training import stacked_linear
from mer_bench.training.engines.graphs import GraphNotes
from mer_bench.training.kernels.stacked_linear import StackedLinear
from mer_bench.training.layers import replace_layers


@pytest.fixture
def everywhere(monkeypatch):
    monkeypatch.setattr(stacked_linear, "DEVICES", ("cpu", "cuda"))


def stack(networks):
    names = [name for name, _ in networks[0].named_parameters()]
    return {
        name: torch.stack([n.get_parameter(name) for n in networks]).detach().requires_grad_()
        for name in names
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 4), (2, 3, 2, 4)])
def test_stacked_linear_agrees_with_torch_and_makes_gradients_in_the_weights_layout(everywhere, shape, bias):
    networks = [nn.Linear(4, 7, bias=bias) for _ in range(3)]
    parameters = stack(networks)
    x = torch.randn(3, *shape, requires_grad=True)
    template = StackedLinear(networks[0])
    out = vmap(lambda p, v: functional_call(template, p, (v,)))(parameters, x)
    upstream = torch.randn_like(out)
    found = torch.autograd.grad(out, [x, *parameters.values()], upstream)
    expected = torch.stack([n(v) for n, v in zip(networks, x, strict=True)])
    torch.testing.assert_close(out, expected)
    wanted = torch.autograd.grad(expected, [x, *[p for n in networks for p in n.parameters()]], upstream)
    torch.testing.assert_close(found[0], wanted[0])
    assert found[1].is_contiguous()
    each = len(parameters)
    for place, gradient in enumerate(found[1:]):
        torch.testing.assert_close(gradient, torch.stack(wanted[1 + place :: each]))


def test_gradients_in_float64(everywhere):
    layer = StackedLinear(nn.Linear(3, 2).double())
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v, w, b: functional_call(layer, {"weight": w, "bias": b}, (v,)), (x, layer.weight, layer.bias)
    )


def test_it_obeys_autocast(everywhere):
    layer = StackedLinear(nn.Linear(8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(torch.randn(3, 8))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_only_stacked_networks_get_it_and_parameters_keep_their_names():
    network = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 2)))
    before = list(network.state_dict())
    replace_layers(network, stacked=True)
    assert type(network[0]) is type(network[1][0]) is StackedLinear
    assert list(network.state_dict()) == before


def test_ahmsa_trains_alike_by_products(everywhere, monkeypatch):
    registration = pytest.importorskip("ahmsa_model.registration", reason="ahmsa-model is not installed")
    spec = registration.SPECS[0]
    given = {"spec": spec, "options": dict(spec.variants["tiny"]), "side": 28}
    products, watched = make(**given)
    train(products, watched, 1)
    monkeypatch.setattr(stacked_linear, "DEVICES", ("cuda",))
    plain, observed = make(**given)
    train(plain, observed, 1)
    np.testing.assert_allclose(products.history()[0], plain.history()[0], rtol=1e-4)


def test_a_network_that_cannot_be_compiled_runs_as_written_and_is_noted(monkeypatch):
    def compile_nothing(function, **options):
        def refuse(*arguments):
            raise RuntimeError("no compiler here\nmore")

        return refuse

    monkeypatch.setattr(torch, "compile", compile_nothing)
    notes = GraphNotes()
    compiled, _ = make(compiled=True, notes=notes)
    plain, _ = make()
    for trainer in (compiled, plain):
        trainer.epoch()
    np.testing.assert_array_equal(compiled.history()[0], plain.history()[0])
    (note,) = notes
    assert "could not be compiled (RuntimeError: no compiler here); it ran as written" in note


@pytest.mark.slow
def test_a_compiled_network_is_the_same_function(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_(f, backend="aot_eager", **options))
    notes = GraphNotes()
    compiled, _ = make(compiled=True, notes=notes)
    plain, _ = make()
    for trainer in (compiled, plain):
        trainer.epoch()
    np.testing.assert_allclose(compiled.history()[0], plain.history()[0], rtol=1e-5)
    assert not list(notes)
