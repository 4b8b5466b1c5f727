"""Linear layers through oneDNN: the same function as torch's, and only where it can serve."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from mer_bench.training.kernels.linear import FoldLinear, available, replace_linear
from mer_bench.training.layers import replace_layers

pytestmark = pytest.mark.skipif(not available(), reason="this torch has no oneDNN")


def a_network(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(300, 257, bias=bias), nn.ReLU(), nn.Linear(257, 300), nn.Linear(300, 3))


@pytest.mark.parametrize("shape", [(64, 300), (7, 5, 300), (3, 300), (1, 300)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_torchs(shape, bias):
    plain = a_network(bias).double()
    network = a_network(bias)
    replace_linear(network)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = inputs.clone().requires_grad_(), inputs.double().requires_grad_()
    out, expected = network(ours), plain(theirs)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    out.square().mean().backward()
    expected.square().mean().backward()
    for a, b in [(ours, theirs), *zip(network.parameters(), plain.parameters(), strict=True)]:
        assert (a.grad.double() - b.grad).abs().max() <= 1e-5 * b.grad.abs().max()


def test_only_wide_layers_are_replaced_and_their_parameters_stay():
    network = a_network()
    before = dict(network.named_parameters())
    replace_linear(network)
    assert [type(m) for m in network] == [FoldLinear, nn.ReLU, FoldLinear, nn.Linear]
    after = dict(network.named_parameters())
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    copy.deepcopy(network).load_state_dict(network.state_dict())


def test_the_engine_replaces_where_folds_are_not_stacked():
    alone, stacked = a_network(), a_network()
    replace_layers(alone, stacked=False)
    replace_layers(stacked, stacked=True)
    assert type(alone[0]) is FoldLinear and type(stacked[0]) is not FoldLinear


def test_it_gives_way_to_vmap_other_dtypes_and_autocast():
    network = a_network()
    plain = copy.deepcopy(network)
    replace_linear(network)
    maps = torch.randn(2, 64, 300)
    state = dict(network.named_parameters())
    mapped = vmap(lambda x: functional_call(network, state, (x,)))(maps)
    torch.testing.assert_close(mapped, plain(maps), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.double()(maps.double()), plain.double()(maps.double()))
    network.float()
    plain.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert network(maps).dtype == plain(maps).dtype == torch.bfloat16


def test_training_repeats_itself_bit_for_bit():
    states = []
    for _ in range(2):
        network = a_network()
        replace_linear(network)
        optimizer = torch.optim.Adam(network.parameters())
        for step in range(3):
            optimizer.zero_grad()
            inputs = torch.randn(40, 300, generator=torch.Generator().manual_seed(step))
            network(inputs).square().mean().backward()
            optimizer.step()
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
