"""Dual-Inception: the authors' graph, branch by branch, against the merged one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from mer_bench.errors import UsageError
from mer_bench.models.dual_inception import SPECS, DualInception


class Inception(nn.Module):
    """One stream's block as the authors draw it: convolve, rectify, join, pool."""

    def __init__(self, ours, stream):
        super().__init__()
        self.convs = {
            name: self.part(getattr(ours, name), stream)
            for name in ("one", "before_three", "three", "before_five", "five", "after_pool")
        }
        for name, conv in self.convs.items():
            self.add_module(name, conv)

    @staticmethod
    def part(grouped, stream):
        out = grouped.out_channels // 2
        conv = nn.Conv2d(grouped.in_channels // 2, out, grouped.kernel_size, padding=grouped.padding)
        conv.weight.data.copy_(grouped.weight.data[stream * out : (stream + 1) * out])
        conv.bias.data.copy_(grouped.bias.data[stream * out : (stream + 1) * out])
        return conv

    def forward(self, x):
        c = self.convs
        one = F.relu(c["one"](x))
        three = F.relu(c["three"](F.relu(c["before_three"](x))))
        five = F.relu(c["five"](F.relu(c["before_five"](x))))
        pooled = F.relu(c["after_pool"](F.max_pool2d(x, 3, stride=1, padding=1)))
        return F.max_pool2d(torch.cat([one, three, five, pooled], 1), 2)


class TwoStreams(nn.Module):
    def __init__(self, ours, side):
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(Inception(ours.first, s), Inception(ours.second, s)) for s in range(2)
        )
        hidden = ours.classifier[0].out_features
        self.dense = nn.Sequential(nn.Linear(128 * side**2, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        self.dense.load_state_dict(ours.classifier.state_dict())
        by_channel = ours.classifier[0].weight.data.view(hidden, side, side, 128).permute(0, 3, 1, 2)
        self.dense[0].weight.data.copy_(by_channel.reshape(hidden, -1))

    def forward(self, maps):
        parts = [stream(maps[:, i : i + 1]).flatten(1) for i, stream in enumerate(self.streams)]
        return self.dense(torch.cat(parts, 1))


def some_maps(count, size=28):
    generator = torch.Generator().manual_seed(1)
    # 8-bit values, as published maps have: windows whose maximum occurs more than once.
    return torch.randint(0, 256, (count, 3, size, size), generator=generator).float() / 255 - 0.3


def with_biases(network):
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, -0.3, 0.3)
    return network


def test_count_is_the_published_one():
    assert sum(p.numel() for p in DualInception().parameters()) == SPECS[0].parameters == 6_449_867


@pytest.mark.parametrize("size", [28, 29])
def test_merged_streams_equal_the_authors(size):
    torch.manual_seed(0)
    network = with_biases(DualInception(map_size=size, hidden=32))
    twin = TwoStreams(network, size // 4).double()
    maps, labels = some_maps(12, size), torch.arange(12) % 3
    logits = network(maps.contiguous(memory_format=torch.channels_last))
    expected = twin(maps.double())
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-5)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    for place, block in enumerate((network.first, network.second)):
        for name in twin.streams[0][0].convs:
            for end in ("weight", "bias"):
                theirs = torch.cat([getattr(s[place].convs[name], end).grad for s in twin.streams])
                ours = getattr(getattr(block, name), end).grad
                assert (ours.double() - theirs).abs().max() < 1e-4 * theirs.abs().max(), (name, end)


def test_layers_start_as_keras_draws_them():
    network = DualInception()
    # sqrt(6 / (fan in + fan out)) of one stream's 5×5 convolution, 6 channels to 6.
    bound = (6 / (25 * 12)) ** 0.5
    assert 0.95 * bound < network.first.five.weight.abs().max() <= bound
    assert not network.first.five.bias.any()


def test_stacked_networks_agree_with_each_alone():
    networks = [with_biases(DualInception(hidden=16)).eval() for _ in range(3)]
    maps = some_maps(4)
    stacked = vmap(lambda p, b: functional_call(networks[0], (p, b), (maps,)))(*stack_module_state(networks))
    torch.testing.assert_close(stacked, torch.stack([n(maps) for n in networks]), rtol=1e-5, atol=1e-5)


def test_maps_it_cannot_read_are_refused():
    with pytest.raises(UsageError, match="u and v"):
        DualInception(in_channels=1)
    with pytest.raises(UsageError, match="4×4"):
        DualInception(map_size=3)
