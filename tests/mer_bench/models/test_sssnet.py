"""SSSNet: MEB's network on maps of 64 px, and ours on maps of 28."""

import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import maps_of
from torch import nn

from mer_bench.models.sssnet import SPECS, SSSNet


def published(network: SSSNet, maps: torch.Tensor) -> torch.Tensor:
    """MEB's order of layers, in evaluation."""
    x = network.bn1(F.max_pool2d(F.relu(F.conv2d(maps, network.conv1.weight, network.conv1.bias)), 3, 3))
    x = network.bn2(F.max_pool2d(F.relu(F.conv2d(x, network.conv2.weight, network.conv2.bias)), 2, 2))
    assert x.shape[1:] == (64, 9, 9)
    return network.fc(F.relu(network.fc1(x.reshape(len(x), -1))))


def test_the_published_variant_is_mebs() -> None:
    network, maps = SSSNet(map_size=64, **SPECS[0].variants["published"]).eval(), maps_of(2, size=64)
    for norm in (network.bn1, network.bn2):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.weight, 0.5, 2.0)
    torch.testing.assert_close(network(maps), published(network, maps))
    assert (network.map_dropout.p, network.dropout.p) == (0.5, 0.5)
    assert sum(p.numel() for p in network.parameters()) == 1_349_251


def test_the_small_variant_reads_means_of_cells() -> None:
    torch.manual_seed(0)
    network, maps = SSSNet(map_size=28, **SPECS[0].variants["small"]).eval(), maps_of(2)
    cells = maps.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1))
    torch.testing.assert_close(network(maps), network(cells.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    assert network.fc1.in_features == 64 * 3 * 3
