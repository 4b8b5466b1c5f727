"""Dual-Inception (Zhou et al., FG 2019, doi:10.1109/FG.2019.8756579): u and v through two Inception blocks.

Both streams have the same shape, so each pair of convolutions is one convolution with two groups. Three more
identities save time on a CPU and leave the function as it is: maps lie channels-last; max pooling commutes
with ReLU, which then runs on the pooled quarter; and a linear function of one number has its maximum over a
window where the number has its largest or its smallest value there, so the two branches of the first block
that are 1×1 convolutions alone are computed on pooled maps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.models.layers.flow_pictures import check_maps, rows
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe

_STREAMS = 2
_FIRST, _SECOND = 6, 16


class InceptionBlock(nn.Module):
    """An Inception block of each stream, with the 2×2 max pooling that follows it.

    Four branches: a 1×1 convolution; 1×1 then 3×3; 1×1 then 5×5; 3×3 max pooling then 1×1. ReLU after each
    convolution. Channels are those of one stream.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.one = _convolution(in_channels, width, 1)
        self.before_three = _convolution(in_channels, width, 1)
        self.three = _convolution(width, width, 3)
        self.before_five = _convolution(in_channels, width, 1)
        self.five = _convolution(width, width, 5)
        self.after_pool = _convolution(in_channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Turn `(B, streams * in_channels, H, W)` into `(B, streams * 4 * width, H // 2, W // 2)`."""
        one, after_pool = self._pointwise(x)
        three = F.max_pool2d(self.three(F.relu(self.before_three(x))), 2)
        five = F.max_pool2d(self.five(F.relu(self.before_five(x))), 2)
        branches = [_by_stream(branch) for branch in (one, three, five, after_pool)]
        joined = F.relu(torch.cat(branches, dim=-1))
        return joined.flatten(-2).permute(0, 3, 1, 2)

    def _pointwise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the branches without a wider kernel, pooled, before ReLU."""
        if x.shape[1] == _STREAMS:
            return _largest_image(x, self.one), _largest_image(_pool_around(x), self.after_pool)
        around = F.max_pool2d(x, 3, stride=1, padding=1)
        return F.max_pool2d(self.one(x), 2), F.max_pool2d(self.after_pool(around), 2)


class DualInception(nn.Module):
    """The network of the authors' code, on one channel of u and one of v; strain is not read."""

    channels_last = True

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28, hidden: int = 1024
    ) -> None:
        super().__init__()
        check_maps("dual-inception", in_channels, map_size, streams=_STREAMS)
        self.first = InceptionBlock(1, _FIRST)
        self.second = InceptionBlock(4 * _FIRST, _SECOND)
        self.classifier = nn.Sequential(
            nn.Linear(_STREAMS * 4 * _SECOND * (map_size // 4) ** 2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _draw_glorot(module, _STREAMS)
            elif isinstance(module, nn.Linear):
                _draw_glorot(module, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, C, H, W)` float32 maps, u and v first, into `(B, classes)` logits."""
        x = self.second(self.first(maps[:, :_STREAMS]))
        return self.classifier(rows(x).flatten(1))


def _convolution(in_channels: int, width: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(
        _STREAMS * in_channels, _STREAMS * width, kernel_size, padding=kernel_size // 2, groups=_STREAMS
    )


def _by_stream(x: Tensor) -> Tensor:
    """View `(B, streams * C, H, W)` as `(B, H, W, streams, C)`."""
    return rows(x).unflatten(-1, (_STREAMS, -1))


def _pool_pairs(x: Tensor) -> Tensor:
    """Take maxima over 2×2 windows; few channels make torch's own pooling slow."""
    height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    x = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
    return torch.maximum(x[..., 0::2], x[..., 1::2])


def _pool_around(x: Tensor) -> Tensor:
    """Take maxima over each pixel's 3×3 neighbourhood."""
    x = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
    x = torch.maximum(torch.maximum(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])
    return torch.maximum(torch.maximum(x[..., :-2], x[..., 1:-1]), x[..., 2:])


def _largest_image(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Take the largest values, over 2×2 windows, of a 1×1 convolution of one channel a stream.

    Where a weight is positive it is that of the largest input, else that of the smallest.
    """
    ends = torch.stack((_pool_pairs(x), -_pool_pairs(-x)), dim=2).flatten(1, 2)
    weight = torch.cat((conv.weight.clamp(min=0.0), conv.weight.clamp(max=0.0)), dim=1)
    # Channels last in memory, in words that vmap knows.
    ends = ends.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return F.conv2d(ends, weight, conv.bias, groups=_STREAMS)


def _draw_glorot(module: nn.Conv2d | nn.Linear, groups: int) -> None:
    """Draw a layer as Keras does, each stream's by itself."""
    area = module.weight[0][0].numel()
    ends = area * (module.weight.shape[1] + module.weight.shape[0] // groups)
    nn.init.uniform_(module.weight, -((6.0 / ends) ** 0.5), (6.0 / ends) ** 0.5)
    assert module.bias is not None
    nn.init.zeros_(module.bias)


AUTHORS = Recipe(name="authors", epochs=40, batch_size=3, optimizer="adam", lr=1e-4)
SHORT = AUTHORS.changed(name="short", epochs=5)
OFF_TANET = Recipe(name="off-tanet", epochs=500, batch_size=64, optimizer="adam", lr=1e-3)

SPECS = (
    ModelSpec(
        name="dual-inception",
        title="Dual-Inception",
        build=DualInception,
        kind="network",
        views=("whole-28:minmax",),
        recipes={"authors": AUTHORS, "short": SHORT, "off-tanet": OFF_TANET},
        citation=(
            "L. Zhou, Q. Mao, L. Xue: Dual-Inception Network for Cross-Database Micro-Expression "
            "Recognition. IEEE FG 2019. doi:10.1109/FG.2019.8756579"
        ),
        parameters=6_449_867,
        exactness="exact",
        filled_in=(
            "The authors' Keras code reads u and v as images of three equal channels; a 1×1 convolution "
            "of equal channels is one of a single channel, which is what this network has (96 weights "
            "fewer), drawn as Keras draws one of a single channel.",
            "Recipe authors is their code's Adam, batch of 3 and 40 epochs. They train on the other two "
            "databases alone and keep the epoch that is best on the held-out subject's own database "
            "without that subject; here all other subjects are trained on and the last epoch counts.",
            "With batches of 3 the composite is 4.0e5 steps, and memory bounds them: each passes the 6.4 "
            "M weights 3 times through products and 7 times through Adam, 1.0e14 bytes in all.",
            "Recipe short is authors for 5 of its 40 epochs, ours, for a CPU.",
            "Their class_weight 'auto' has no effect in the Keras they name, so the loss is plain.",
            "Recipe off-tanet is that of the re-implementation in Off-TANet (PRICAI 2021); its network "
            "leaves out the ReLU after the branch of one 1×1 convolution, here kept as the authors have it.",
            "They read the frame midway between onset and offset in place of the apex, and flow as 8-bit "
            "images over 255; how those were scaled is not said. Maps stretched to [0, 1] are taken.",
        ),
        selects_on_test=False,
        licence="github.com/xly135846/MEGC2019 is MIT; the network is written anew.",
    ),
)
