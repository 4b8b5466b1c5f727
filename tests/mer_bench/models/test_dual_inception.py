"""Dual-Inception: the authors' graph, branch by branch, against the merged one."""

import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import assert_agrees, assert_gradient, by_channel, take
from torch import nn

from mer_bench.models.dual_inception import DualInception


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
        take(grouped, conv, stream * out)
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
        self.dense[0].weight.data = by_channel(ours.classifier[0].weight.data, side)

    def forward(self, maps):
        parts = [stream(maps[:, i : i + 1]).flatten(1) for i, stream in enumerate(self.streams)]
        return self.dense(torch.cat(parts, 1))


def maps_with_ties(count, size=28):
    generator = torch.Generator().manual_seed(1)
    # 8-bit values, as published maps have: windows whose maximum occurs more than once.
    return torch.randint(0, 256, (count, 3, size, size), generator=generator).float() / 255 - 0.3


def with_biases(network):
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, -0.3, 0.3)
    return network


@pytest.mark.parametrize("size", [28, 29])
def test_merged_streams_equal_the_authors(size):
    torch.manual_seed(0)
    network = with_biases(DualInception(map_size=size, hidden=32))
    twin = TwoStreams(network, size // 4)
    assert_agrees(network, twin, maps_with_ties(12, size))
    for place, block in enumerate((network.first, network.second)):
        for name in twin.streams[0][0].convs:
            for end in ("weight", "bias"):
                theirs = [getattr(stream[place].convs[name], end).grad for stream in twin.streams]
                assert_gradient(getattr(getattr(block, name), end), *theirs)


def test_layers_start_as_keras_draws_them():
    network = DualInception()
    # sqrt(6 / (fan in + fan out)) of one stream's 5×5 convolution, 6 channels to 6.
    bound = (6 / (25 * 12)) ** 0.5
    assert 0.95 * bound < network.first.five.weight.abs().max() <= bound
    assert not network.first.five.bias.any()
