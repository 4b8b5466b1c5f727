"""HTNet: the authors' function, and the finding that its attention sees one token."""

import pytest
import torch
import torch.nn.functional as F
from tests.mer_bench.models.parts import maps_of

from mer_bench.models.htnet import SPECS, HTNet

TINY = SPECS[0].variants["tiny"]


def norm(x, layer):
    """LayerNorm over the channels of a map, as the authors write it."""
    mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    weight, bias = layer.weight[:, None, None], layer.bias[:, None, None]
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def one_by_one(x, layer):
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def attend(x, module):
    """The authors' attention, queries and keys and all, over a block's patches."""
    q, k = one_by_one(x, module.query_key).chunk(2, 1)
    q, k, v = (t.unflatten(1, (module.heads, -1)).flatten(3) for t in (q, k, one_by_one(x, module.value)))
    scores = torch.einsum("bhdi,bhdj->bhij", q, k) * q.shape[2] ** -0.5
    mixed = torch.einsum("bhij,bhdj->bhdi", scores.softmax(-1), v)
    return one_by_one(mixed.flatten(1, 2).unflatten(2, x.shape[2:]), module.output)


def as_published(network, maps):
    """The forward pass of the authors' code, channels first, on the same weights."""
    size = network.patch_size
    x = F.unfold(maps, size, stride=size).unflatten(1, (maps.shape[1], size * size))
    x = x.transpose(1, 2).flatten(1, 2).unflatten(2, (maps.shape[2] // size, -1))
    x = one_by_one(x, network.embedding)
    for number, level in enumerate(network.levels):
        side, count = level.side, x.shape[2] // level.side
        x = x.unflatten(2, (count, side)).unflatten(4, (count, side)).permute(0, 2, 4, 1, 3, 5)
        x = x.flatten(0, 2) + level.position.view(side, side)
        for block in level.blocks:
            x = attend(norm(x, block.attention_norm), block.attention) + x
            expand, _, contract = block.feed_forward
            hidden = F.gelu(one_by_one(norm(x, block.feed_forward_norm), expand))
            x = one_by_one(hidden, contract) + x
        x = x.unflatten(0, (len(maps), count, count)).permute(0, 3, 1, 4, 2, 5).flatten(2, 3).flatten(3)
        if number < 2:
            aggregation = network.aggregations[number]
            kernel = aggregation.mix.weight.view(-1, x.shape[1], 3, 3)
            x = norm(F.conv2d(x, kernel, aggregation.mix.bias, padding=1), aggregation.norm)
            x = F.max_pool2d(x, 3, 2, 1)
    return F.linear(norm(x, network.norm).mean((2, 3)), network.fc.weight, network.fc.bias)


def draw_queries_and_keys(network):
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "query_key" in name:
                parameter.copy_(torch.randn_like(parameter) * 3)


@pytest.mark.parametrize("variant, expected", [("paper", 114_429_446), ("deeper", 139_582_982)])
def test_counts_are_the_published_ones(variant, expected):
    with torch.device("meta"):
        network = HTNet(**SPECS[0].variants[variant])
        assert network(torch.zeros(2, 3, 28, 28)).shape == (2, 3)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("size", [28, 56])
def test_function_and_gradients_are_the_authors(size):
    torch.manual_seed(0)
    network = HTNet(map_size=size, width=24, blocks=(1, 2, 1)).double()
    maps, labels = maps_of(6, size=size).double() * 255, torch.arange(6) % 3
    logits, expected = network(maps), as_published(network, maps)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    ours = torch.autograd.grad(F.cross_entropy(logits, labels), network.parameters(), allow_unused=True)
    theirs = torch.autograd.grad(F.cross_entropy(expected, labels), network.parameters())
    for own, other in zip(ours, theirs, strict=True):
        own = torch.zeros_like(other) if own is None else own
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-10)


def test_finding_queries_and_keys_change_no_logit_at_all():
    network, maps = HTNet(width=24, blocks=(1, 1, 2)).eval(), maps_of(4) * 255
    # Also where they are computed, as the authors do.
    before, published = network(maps), as_published(network, maps)
    draw_queries_and_keys(network)
    assert (network(maps) - before).abs().max().item() == 0.0
    assert (as_published(network, maps) - published).abs().max().item() == 0.0


def test_on_larger_maps_they_do():
    network, maps = HTNet(map_size=56, width=24, blocks=(1, 1, 1)).eval(), maps_of(4, size=56) * 255
    before = network(maps)
    draw_queries_and_keys(network)
    assert not torch.equal(network(maps), before)


def test_finding_patches_meet_only_in_the_aggregations():
    network = HTNet(**TINY).eval()
    maps = maps_of(1) * 255
    changed = maps.clone()
    changed[..., :7, :7] = 0.0
    patches = [torch.randn(1, 4, 4, 8)] * 2
    patches[1] = patches[0].clone()
    patches[1][:, 0, 0] = 0.0
    moved = (network.levels[0](patches[0]) - network.levels[0](patches[1])).abs().amax(-1)[0] > 0
    assert moved[0, 0] and int(moved.sum()) == 1
    assert not torch.equal(network(maps), network(changed))


@pytest.mark.parametrize("size, idle", [(28, 5), (56, 1)])
def test_the_parameters_without_a_gradient_are_named(size, idle):
    network = HTNet(map_size=size, **TINY)
    F.cross_entropy(network(maps_of(8, size=size) * 255), torch.arange(8) % 3).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert tuple(without) == network.untrained_parameters()
    assert len(without) == idle


def test_both_ways_to_aggregate_agree():
    network = HTNet(width=256, blocks=(0, 0, 0)).eval()
    second = network.aggregations[1]
    assert second.by_product and not network.aggregations[0].by_product
    x = torch.randn(3, 2, 2, 512)
    product = second(x)
    second.by_product = False
    torch.testing.assert_close(product, second(x), rtol=1e-4, atol=1e-4)


def test_the_small_variant_is_the_same_network():
    assert [len(level.blocks) for level in HTNet(**SPECS[0].variants["small"]).levels] == [2, 2, 8]
