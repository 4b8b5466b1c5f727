"""OFF-ApexNet: two streams as published, computed as one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from mer_bench.errors import UsageError
from mer_bench.models.off_apexnet import SPECS, OFFApexNet


class TwoStreams(nn.Module):
    """The published form: u and v each through convolutions of their own."""

    def __init__(self, hidden):
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(1, 6, 5, padding=2),
                nn.MaxPool2d(2),
                nn.Conv2d(6, 16, 5, padding=2),
                nn.MaxPool2d(2),
            )
            for _ in range(2)
        )
        self.dense = nn.Sequential(
            nn.Linear(1568, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3)
        )

    def forward(self, maps):
        parts = [stream(maps[:, i : i + 1]).flatten(1) for i, stream in enumerate(self.streams)]
        return self.dense(torch.cat(parts, 1))


def as_two_streams(network):
    hidden = network.classifier[0].out_features
    twin = TwoStreams(hidden)
    for i, stream in enumerate(twin.streams):
        for own, other, width in ((stream[0], network.first, 6), (stream[2], network.second, 16)):
            own.weight.data.copy_(other.weight.data[i * width : (i + 1) * width])
            own.bias.data.copy_(other.bias.data[i * width : (i + 1) * width])
    linear = [m for m in network.classifier if isinstance(m, nn.Linear)]
    for own, other in zip([twin.dense[0], twin.dense[2], twin.dense[4]], linear, strict=True):
        own.weight.data.copy_(other.weight.data)
        own.bias.data.copy_(other.bias.data)
    # Ours reads row, column, channel; theirs channel, row, column.
    first = linear[0].weight.data.view(hidden, 7, 7, 32).permute(0, 3, 1, 2)
    twin.dense[0].weight.data.copy_(first.reshape(hidden, 1568))
    return twin


def some_maps(count):
    return torch.rand(count, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def test_count_is_the_published_one():
    network = OFFApexNet()
    assert sum(p.numel() for p in network.parameters()) == SPECS[0].parameters == 2_664_475
    twin = TwoStreams(1024)
    assert sum(p.numel() for p in twin.parameters()) == 2_664_475
    # Each group's convolution starts from its own fan-in, as two convolutions would.
    assert network.second.weight.abs().max() <= 150**-0.5
    assert network.second.weight.abs().max() > 0.95 * 150**-0.5


def test_one_grouped_convolution_equals_two_streams():
    torch.manual_seed(0)
    network = OFFApexNet(hidden=64, dropout=0.0)
    twin = as_two_streams(network).double()
    maps, labels = some_maps(20), torch.arange(20) % 3
    logits = network(maps.contiguous(memory_format=torch.channels_last))
    expected = twin(maps.double())
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-5)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    for ours, place in ((network.first, 0), (network.second, 2)):
        theirs = torch.cat([stream[place].weight.grad for stream in twin.streams])
        assert (ours.weight.grad.double() - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_strain_is_not_read():
    network = OFFApexNet(hidden=16).eval()
    maps = some_maps(3)
    without = maps.clone()
    without[:, 2] = 0.0
    assert torch.equal(network(maps), network(without))


def test_stacked_networks_agree_with_each_alone():
    networks = [OFFApexNet(hidden=16).eval() for _ in range(3)]
    maps = some_maps(4)
    stacked = vmap(lambda p, b: functional_call(networks[0], (p, b), (maps,)))(*stack_module_state(networks))
    torch.testing.assert_close(stacked, torch.stack([n(maps) for n in networks]), rtol=1e-5, atol=1e-6)


def test_maps_it_cannot_read_are_refused():
    with pytest.raises(UsageError, match="u and v"):
        OFFApexNet(in_channels=1)
    with pytest.raises(UsageError, match="4×4"):
        OFFApexNet(map_size=3)
