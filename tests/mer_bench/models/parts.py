"""What the tests of networks share: maps, and a network beside its published form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def maps_of(count: int, channels: int = 3, size: int = 28, seed: int = 1) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)


def take(merged: nn.Module, own: nn.Module, start: int = 0) -> None:
    """Copy some rows of a merged layer's parameters, from `start` on, into a layer of its own."""
    for name, values in own.named_parameters():
        rows = getattr(merged, name).data[start : start + len(values)]
        values.data.copy_(rows.reshape(values.shape))


def by_channel(weight: Tensor, side: int) -> Tensor:
    """Order a linear layer's columns, which read row, column, channel, as channel, row, column."""
    return weight.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2).flatten(1)


def assert_agrees(network: nn.Module, published: nn.Module, maps: Tensor) -> None:
    """On channels-last maps the logits are those of the published form in float64; leaves gradients."""
    labels = torch.arange(len(maps)) % 3
    logits, expected = network(channels_last(maps)), published.double()(maps.double())
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-5)
    for values in (logits, expected):
        F.cross_entropy(values, labels).backward()


def assert_gradient(ours: nn.Parameter, *theirs: Tensor, tolerance: float = 1e-4) -> None:
    """A parameter's gradient is that of the parameters which it merges, one after another."""
    expected = torch.cat(theirs)
    assert ours.grad is not None
    assert (ours.grad.double() - expected).abs().max() < tolerance * expected.abs().max()
