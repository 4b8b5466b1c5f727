"""RCN-A: the authors' function, its counts, and the class activation maps."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from mer_bench.errors import UsageError
from mer_bench.models.rcn_a import RCNA, SPECS


class AsPublished(nn.Module):
    """The authors' way: channels first, one activation map per class in a loop."""

    def __init__(self, twin):
        super().__init__()
        self.conv, self.feed_forward, self.recurrent = map(
            copy.deepcopy, (twin.conv, twin.feed_forward, twin.recurrent)
        )
        self.fc = copy.deepcopy(twin.fc)
        side = twin.pool.output_size
        self.side = side
        by_channel = twin.fc.weight.data.view(3, side, side, -1).permute(0, 3, 1, 2)
        self.fc.weight.data.copy_(by_channel.reshape(3, -1))

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


def some_maps(count, size=28):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


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
    twin = AsPublished(network).double()
    maps, labels = some_maps(12, size), torch.arange(12) % 3
    logits = network(maps.contiguous(memory_format=torch.channels_last))
    expected = twin(maps.double())
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-5)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    theirs = dict(twin.named_parameters())
    theirs["fc.weight"].grad = (
        theirs["fc.weight"].grad.view(3, -1, pool_size, pool_size).permute(0, 2, 3, 1).reshape(3, -1)
    )
    for name, parameter in network.named_parameters():
        # A bias before batch normalisation has no effect, so its gradient is rounding.
        if not name.endswith("0.bias"):
            other = theirs[name].grad
            assert (parameter.grad.double() - other).abs().max() < 1e-3 * other.abs().max(), name
    network.eval()
    twin.eval()
    torch.testing.assert_close(network(maps).double(), twin(maps.double()), rtol=1e-4, atol=1e-5)


def test_the_recurrent_normalisation_sees_both_passes():
    network = RCNA()
    network(some_maps(4))
    assert int(network.recurrent[1].num_batches_tracked) == 2
    assert int(network.conv[1].num_batches_tracked) == 1


def test_a_map_without_any_contrast_gives_finite_logits_and_gradients():
    network = RCNA(dropout=0.0)
    nn.init.zeros_(network.fc.weight)
    logits = network(torch.zeros(2, 3, 28, 28))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_stacked_networks_agree_with_each_alone():
    networks = [RCNA(width=8).eval() for _ in range(3)]
    maps = some_maps(4)
    stacked = vmap(lambda p, b: functional_call(networks[0], (p, b), (maps,)))(*stack_module_state(networks))
    torch.testing.assert_close(stacked, torch.stack([n(maps) for n in networks]), rtol=1e-5, atol=1e-6)


def test_too_small_a_map_is_refused():
    with pytest.raises(UsageError, match="8×8"):
        RCNA(map_size=7)
