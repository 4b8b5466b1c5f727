"""RCN-A: the authors' function, its counts, and the class activation maps."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import assert_agrees, assert_gradient, by_channel, maps_of
from torch import nn

from mer_bench.models.rcn_a import RCNA, SPECS


class AsPublished(nn.Module):
    """The authors' way: channels first, one activation map per class in a loop."""

    def __init__(self, twin):
        super().__init__()
        self.conv, self.feed_forward, self.recurrent = map(
            copy.deepcopy, (twin.conv, twin.feed_forward, twin.recurrent)
        )
        self.fc = copy.deepcopy(twin.fc)
        self.side = twin.pool.output_size
        self.fc.weight.data = by_channel(twin.fc.weight.data, self.side)

    def forward(self, maps):
        x = F.max_pool2d(self.conv(maps), 2, 2)
        pooled = F.adaptive_avg_pool2d(x, self.side)
        cams = []
        for weights in self.fc.weight:
            cam = (weights.reshape(pooled.shape[1:]) * pooled).mean(1, keepdim=True)
            cam = cam - torch.min(torch.min(cam, 3, True)[0], 2, True)[0]
            cams.append(cam / torch.max(torch.max(cam, 3, True)[0], 2, True)[0])
        y = self.recurrent(x + self.feed_forward(x))
        y = self.recurrent(x + y)
        y = F.adaptive_avg_pool2d(F.max_pool2d(y, 2, 2), self.side)
        return self.fc((y * torch.cat(cams, 1).mean(1, keepdim=True)).flatten(1))


def test_counts_are_the_published_ones():
    counts = {
        name: sum(p.numel() for p in RCNA(**options).parameters())
        for name, options in SPECS[0].variants.items()
    }
    assert counts == {"readme": 15_331, "script": 55_747, "meb": 51_139}
    assert counts[SPECS[0].default_variant] == SPECS[0].parameters


@pytest.mark.parametrize("size, pool_size", [(28, 5), (28, 7), (60, 5)])
def test_function_and_gradients_are_the_authors(size, pool_size):
    torch.manual_seed(0)
    network = RCNA(map_size=size, pool_size=pool_size, dropout=0.0)
    nn.init.normal_(network.fc.weight, 0.0, 0.3)
    twin, maps = AsPublished(network), maps_of(12, size=size)
    assert_agrees(network, twin, maps)
    network.fc.weight.grad = by_channel(network.fc.weight.grad, pool_size)
    theirs = dict(twin.named_parameters())
    for name, parameter in network.named_parameters():
        # A bias before batch normalisation has no effect, so its gradient is rounding.
        if not name.endswith("0.bias"):
            assert_gradient(parameter, theirs[name].grad, tolerance=1e-3)
    network.eval()
    twin.eval()
    torch.testing.assert_close(network(maps).double(), twin(maps.double()), rtol=1e-4, atol=1e-5)


def test_the_recurrent_normalisation_sees_both_passes():
    network = RCNA()
    network(maps_of(4))
    assert int(network.recurrent[1].num_batches_tracked) == 2
    assert int(network.conv[1].num_batches_tracked) == 1


def test_a_map_without_any_contrast_gives_finite_logits_and_gradients():
    network = RCNA(dropout=0.0)
    nn.init.zeros_(network.fc.weight)
    logits = network(torch.zeros(2, 3, 28, 28))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
