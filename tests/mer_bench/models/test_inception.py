"""The Inception block as separate branches, and CBAM by its formulas."""

from __future__ import annotations

import torch
from tests.mer_bench.models.parts import take
from torch import Tensor, nn

from mer_bench.models.layers.inception import CBAM, Inception, cosine_distance


class Branches(nn.Module):
    """The published form: each convolution with batch normalisation and ReLU of its own."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.direct = nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.narrow = self._reduced(channels, width, 3)
        self.wide = self._reduced(channels, width, 5)
        self.pooled = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()
        )

    @staticmethod
    def _reduced(channels: int, width: int, kernel: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, 6, 1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.direct(x), self.narrow(x), self.wide(x), self.pooled(x)], 1)


def as_branches(block: Inception, channels: int) -> Branches:
    twin, width = Branches(channels, block.width), block.width
    parts = [(block.pointwise, twin.direct[0], 0), (block.pointwise, twin.narrow[0], width),
             (block.pointwise, twin.wide[0], width + 6), (block.conv3x3, twin.narrow[3], 0),
             (block.conv5x5, twin.wide[3], 0), (block.pooled, twin.pooled[1], 0),
             (block.norm, twin.direct[1], 0), (block.norm, twin.narrow[4], width),
             (block.norm, twin.wide[4], 2 * width), (block.norm, twin.pooled[2], 3 * width),
             (block.reduced_norm, twin.narrow[1], 0), (block.reduced_norm, twin.wide[1], 6)]  # fmt: skip
    for ours, theirs, start in parts:
        take(ours, theirs, start)
    return twin


def test_the_merged_block_equals_separate_branches() -> None:
    torch.manual_seed(0)
    block = Inception(5, 7)
    for norm in (block.norm, block.reduced_norm):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.uniform_(norm.bias, -1.0, 1.0)
    twin = as_branches(block, 5)
    assert sum(p.numel() for p in block.parameters()) == sum(p.numel() for p in twin.parameters())
    x = torch.randn(4, 5, 9, 9, requires_grad=True)
    torch.testing.assert_close(block(x), twin(x))
    wanted = torch.randn(4, 28, 9, 9)
    ours, theirs = (torch.autograd.grad((m(x) * wanted).sum(), x)[0] for m in (block, twin))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block.eval()(x), twin.eval()(x))


def test_convolutions_start_as_separate_ones_do() -> None:
    torch.manual_seed(0)
    weights = torch.cat([Inception(24, 12).pointwise.weight.detach().flatten() for _ in range(20)])
    bound = 24**-0.5
    assert weights.abs().max() <= bound and abs(weights.std() - bound / 3**0.5) < 0.02 * bound


def test_cbam_weighs_channels_then_places() -> None:
    torch.manual_seed(0)
    attention, x = CBAM(32), torch.randn(2, 32, 7, 7)
    mlp, conv = attention.channel, attention.spatial
    gate = torch.sigmoid(mlp(x.flatten(2).mean(2)) + mlp(x.flatten(2).max(2).values))
    weighed = x * gate[:, :, None, None]
    places = torch.sigmoid(conv(torch.stack([weighed.mean(1), weighed.max(1).values], 1)))
    torch.testing.assert_close(attention(x), weighed * places)
    assert mlp[0].out_features == 2 and conv.kernel_size == (3, 3)


def test_cosine_distance() -> None:
    a = torch.randn(3, 8, 4, 4)
    torch.testing.assert_close(cosine_distance(a, 2 * a), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(cosine_distance(a, -a), torch.full((3,), 2.0))
    b = torch.randn(3, 8, 4, 4)
    dot = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    torch.testing.assert_close(cosine_distance(a, b), 1 - dot.mean((1, 2)))
    assert cosine_distance(a.flatten(1), b.flatten(1)).shape == (3,)
