"""The layers against formulas written out again, plainly, from the paper."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ahmsa_model import AHMSAConfig
from ahmsa_model.layers import (
    AdaptiveDownsampling,
    ChannelAttention,
    FeedForward,
    MultiScaleAttentionBlock,
    PatchEmbedding,
    SpatialAttention,
)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def image_of(x, grid):
    return x.transpose(1, 2).reshape(len(x), -1, grid, grid)


def test_patch_embedding_is_a_strided_convolution():
    layer = PatchEmbedding(3, 7, 10)
    maps = torch.randn(2, 3, 28, 28)
    weight = layer.projection.weight.view(10, 3, 7, 7)
    expected = F.conv2d(maps, weight, layer.projection.bias, stride=7)
    close(image_of(layer(maps), 4), expected)


@pytest.mark.parametrize("grid", [1, 2, 4])
@pytest.mark.parametrize("shared", [True, False])
def test_channel_attention_with_convolutions_and_pools(grid, shared):
    layer = ChannelAttention(24, 4, shared, grid**2)
    x = torch.randn(3, grid**2, 24)
    image = image_of(x, grid)

    def two_layers(network, pooled):
        first, second = network[0].weight[..., None, None], network[2].weight[..., None, None]
        return F.conv2d(F.relu(F.conv2d(pooled, first)), second)

    mean = two_layers(layer.network, F.adaptive_avg_pool2d(image, 1))
    largest = two_layers(layer.network if shared else layer.max_network, F.adaptive_max_pool2d(image, 1))
    close(image_of(layer(x), grid), torch.sigmoid(mean + largest) * image)


def plain_attention(layer, x, heads, alone=False):
    """Equation 4, one sample, one head, one patch at a time."""
    inner = layer.value.out_features
    query, key = layer.query_key.weight[:inner], layer.query_key.weight[inner:]
    width = inner // heads
    rows = []
    for sample in x:
        out = torch.zeros(len(sample), inner)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            q, k, v = sample @ query[part].T, sample @ key[part].T, sample @ layer.value.weight[part].T
            for i in range(len(sample)):
                seen = [i] if alone else range(len(sample))
                scores = torch.stack([q[i] @ k[j] / math.sqrt(width) for j in seen])
                weights = scores.exp() / scores.exp().sum()
                out[i, part] = sum(weight * v[j] for weight, j in zip(weights, seen, strict=True))
        rows.append(out @ layer.output.weight.T + layer.output.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("patches, alone", [(4, False), (1, True), (4, True)])
def test_spatial_attention_is_equation_4(patches, alone):
    layer = SpatialAttention(16, heads=3, head_width=5, dropout=0.0, alone=alone)
    x = torch.randn(2, patches, 16)
    close(layer(x), plain_attention(layer, x, 3, alone))


def test_attention_of_a_lone_patch_equals_attention_among_one_patch():
    alone = SpatialAttention(16, heads=2, head_width=8, dropout=0.0, alone=True)
    among = SpatialAttention(16, heads=2, head_width=8, dropout=0.0, alone=False)
    among.load_state_dict(alone.state_dict())
    x = torch.randn(5, 1, 16)
    close(alone(x), among(x))


def test_feed_forward_is_two_convolutions_with_gelu():
    layer = FeedForward(8, 4, dropout=0.0)
    x = torch.randn(2, 4, 8)
    hidden = F.conv2d(image_of(x, 2), layer.expand.weight[..., None, None], layer.expand.bias)
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    close(
        image_of(layer(x), 2), F.conv2d(hidden, layer.contract.weight[..., None, None], layer.contract.bias)
    )


@pytest.mark.parametrize("residual", [True, False])
def test_block_stacks_channel_spatial_feed_forward(residual):
    config = AHMSAConfig(width=8, heads=2, channel_reduction=2, residual=residual)
    block = MultiScaleAttentionBlock(config, 0)
    for norm in (block.channel_norm, block.spatial_norm, block.feed_forward_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = expected = torch.randn(3, 16, 8)
    for norm, module in (
        (block.channel_norm, block.channel),
        (block.spatial_norm, block.spatial),
        (block.feed_forward_norm, block.feed_forward),
    ):
        mean = expected.mean(-1, keepdim=True)
        variance = ((expected - mean) ** 2).mean(-1, keepdim=True)
        change = module(norm.weight * (expected - mean) / torch.sqrt(variance + 1e-5) + norm.bias)
        expected = expected + change if residual else change
    close(block(x), expected)


@pytest.mark.parametrize("grid, scale", [(4, 2), (2, 2), (9, 3), (3, 3)])
def test_downsampling_is_equation_2(grid, scale):
    layer = AdaptiveDownsampling(6, 10, grid, scale, 1e-5)
    nn.init.normal_(layer.norm.weight)
    x = torch.randn(2, grid**2, 6)
    y = layer.convolution(image_of(x, grid))
    y = layer.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    close(image_of(layer(x), grid // scale), F.adaptive_max_pool2d(y, grid // scale))


@pytest.mark.parametrize("grid, scale", [(4, 2), (2, 2), (9, 3)])
def test_the_cuda_form_equals_the_cpu_form_with_its_gradients(grid, scale):
    layer = AdaptiveDownsampling(6, 10, grid, scale, 1e-5)
    x = torch.randn(2, grid**2, 6, requires_grad=True)
    target = torch.randn(2, (grid // scale) ** 2, 10)
    results = []
    for form in (layer.as_convolution, layer.as_products):
        y = form(x)
        results.append((y, *torch.autograd.grad(((y - target) ** 2).sum(), (x, *layer.parameters()))))
    for one, other in zip(*results, strict=True):
        close(one, other)
