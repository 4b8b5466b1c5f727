"""Normalisation and pooling as one, against torch's own two layers in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mer_bench.models.layers.norm_pool import norm_pool


def active_maps(count=5, side=14, dtype=torch.float32):
    """What leaves a ReLU, channels last: far from zero, with flat patches, in which maxima are tied."""
    maps = torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(1)) * 30 + 100
    maps[:, :, 4:9, 4:9] = 130.0
    return F.relu(maps).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


def a_norm():
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0, 1.5]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    return norm


def pooled(norm, maps):
    return F.max_pool2d(norm(maps), 3, 3, 1)


@pytest.mark.parametrize(("count", "side"), [(5, 14), (150, 30), (2, 7)])
def test_values_gradients_and_running_statistics_are_torchs(count, side):
    ours, theirs = a_norm(), a_norm().double()
    for _ in range(2):
        maps, exact = active_maps(count, side), active_maps(count, side, torch.float64)
        out, expected = norm_pool(ours, maps), pooled(theirs, exact)
        assert "NormPool" in type(out.grad_fn).__name__
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
        upstream = torch.randn_like(expected)
        (out * upstream).sum().backward()
        (expected * upstream).sum().backward()
        for a, b in ((maps, exact), (ours.weight, theirs.weight), (ours.bias, theirs.bias)):
            assert (a.grad - b.grad).abs().max() <= 1e-4 * b.grad.abs().max()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor.double(), theirs.state_dict()[name].double(), rtol=1e-5, atol=0)


def test_it_gives_way_where_it_cannot_serve():
    negative = a_norm()
    with torch.no_grad():
        negative.weight[3] = -0.7
    maps = active_maps()
    contiguous = maps.detach().contiguous().requires_grad_()
    for norm, given in ((negative, maps), (a_norm().eval(), maps), (a_norm(), contiguous)):
        out = norm_pool(norm, given)
        assert "NormPool" not in type(out.grad_fn).__name__
        torch.testing.assert_close(out, pooled(copy.deepcopy(norm), given), rtol=1e-4, atol=1e-4)


def test_two_passes_before_one_backward_do_not_disturb_each_other():
    norm, first, second = a_norm(), active_maps(), active_maps(3)
    (norm_pool(norm, first).square().sum() + norm_pool(norm, second).sum()).backward()
    alone = active_maps()
    norm_pool(a_norm(), alone).square().sum().backward()
    torch.testing.assert_close(first.grad, alone.grad)
