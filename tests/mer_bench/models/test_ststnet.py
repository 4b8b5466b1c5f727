"""STSTNet as published: three streams, computed as one."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import assert_gradient, by_channel, take
from torch import nn

from mer_bench.models.ststnet import SPECS, STSTNet


class ThreeStreams(nn.Module):
    """The published form: three streams, each convolution, ReLU, BN, pooling, dropout."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, k, 3, padding=2) for k in (3, 5, 8))
        self.norms = nn.ModuleList(nn.BatchNorm2d(k) for k in (3, 5, 8))
        self.fc = nn.Linear(400, 3)

    def forward(self, x):
        streams = [
            F.max_pool2d(norm(F.relu(conv(x))), 3, 3, 1)
            for conv, norm in zip(self.convs, self.norms, strict=True)
        ]
        return self.fc(F.avg_pool2d(torch.cat(streams, 1), 2, 2).flatten(1))


def as_three_streams(network):
    twin, start = ThreeStreams(), 0
    for conv, norm in zip(twin.convs, twin.norms, strict=True):
        take(network.conv, conv, start)
        take(network.norm, norm, start)
        start += conv.out_channels
    twin.fc.load_state_dict(network.fc.state_dict())
    twin.fc.weight.data = by_channel(network.fc.weight.data, 5)
    return twin


def maps_with_ties(count):
    maps = torch.randint(0, 256, (count, 3, 28, 28), generator=torch.Generator().manual_seed(1)).float()
    # Flat patches, as real maps have: windows whose maximum occurs several times.
    maps[:, :, 4:16, 4:16] = 130.0
    return maps


def test_parameters_and_start_are_the_published_ones():
    assert sum(p.numel() for p in ThreeStreams().parameters()) == SPECS[0].parameters == 1683
    bound = 1 / math.sqrt(27)
    weights = torch.cat([STSTNet().conv.weight.detach().flatten() for _ in range(20)])
    assert weights.abs().max() <= bound
    # Uniform: the standard deviation is bound / sqrt(3).
    assert weights.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert STSTNet(padding=1)(torch.zeros(2, 3, 28, 28)).shape == (2, 3)


def test_dropout_comes_before_the_average_pooling():
    torch.manual_seed(0)
    network, zeros = STSTNet(dropout=0.5), []
    network.fc.register_forward_pre_hook(lambda _, given: zeros.append((given[0] == 0).float().mean()))
    network(torch.rand(64, 3, 28, 28))
    network.eval()(torch.rand(64, 3, 28, 28))
    # A mean of four is zero where all four were dropped; behind the pooling half of the means would be.
    assert zeros[0] - zeros[1] == pytest.approx(1 / 16, abs=0.01)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_one_convolution_equals_three_streams(layout):
    torch.manual_seed(0)
    # In float64: on maps of 0 to 255 torch's batch normalisation is good to a few thousandths in float32.
    network = STSTNet(dropout=0.0).double()
    twin = as_three_streams(network).double()
    maps, labels = maps_with_ties(50).double().contiguous(memory_format=layout), torch.arange(50) % 3
    for _ in range(2):
        logits, expected = network(maps), twin(maps)
        torch.testing.assert_close(logits, expected)
        network.zero_grad()
        twin.zero_grad()
        F.cross_entropy(logits, labels).backward()
        F.cross_entropy(expected, labels).backward()
    for ours, theirs in ((network.conv, twin.convs), (network.norm, twin.norms)):
        for name in ("weight", "bias"):
            assert_gradient(getattr(ours, name), *(getattr(layer, name).grad for layer in theirs))
    for name in ("running_mean", "running_var"):
        tracked = torch.cat([getattr(n, name) for n in twin.norms])
        torch.testing.assert_close(getattr(network.norm, name), tracked)
    torch.testing.assert_close(network.eval()(maps), twin.eval()(maps))
