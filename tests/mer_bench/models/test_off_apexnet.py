"""OFF-ApexNet: two streams as published, computed as one."""

import torch
from tests.mer_bench.models.parts import assert_agrees, assert_gradient, by_channel, maps_of, take
from torch import nn

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
    linear = [m for m in network.classifier if isinstance(m, nn.Linear)]
    twin = TwoStreams(linear[0].out_features)
    for i, stream in enumerate(twin.streams):
        take(network.first, stream[0], i * 6)
        take(network.second, stream[2], i * 16)
    for own, other in zip(twin.dense[::2], linear, strict=True):
        take(other, own)
    twin.dense[0].weight.data = by_channel(linear[0].weight.data, 7)
    return twin


def test_streams_have_the_published_count_and_start():
    assert sum(p.numel() for p in TwoStreams(1024).parameters()) == SPECS[0].parameters == 2_664_475
    # Each group's convolution starts from its own fan-in, as two convolutions would.
    largest = OFFApexNet(hidden=4).second.weight.abs().max()
    assert 0.95 * 150**-0.5 < largest <= 150**-0.5


def test_one_grouped_convolution_equals_two_streams():
    torch.manual_seed(0)
    network = OFFApexNet(hidden=64, dropout=0.0)
    twin = as_two_streams(network)
    assert_agrees(network, twin, maps_of(20))
    for ours, place in ((network.first, 0), (network.second, 2)):
        assert_gradient(ours.weight, *(stream[place].weight.grad for stream in twin.streams))


def test_strain_is_not_read():
    network = OFFApexNet(hidden=16).eval()
    maps = maps_of(3)
    without = maps.clone()
    without[:, 2] = 0.0
    assert torch.equal(network(maps), network(without))
