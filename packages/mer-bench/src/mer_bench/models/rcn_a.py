"""RCN-A (Xia et al., IEEE TIP 2020, doi:10.1109/TIP.2020.3018222): recurrence, and class activation maps.

The recurrent convolution applies one 3×3 kernel twice; the attention has no parameter of its own, it is read
off the classifier's weights. On a CPU the maps lie channels-last: the convolutions then need no reordering
and a step takes two thirds of the time. Features therefore reach the classifier as row, column, channel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.models.layers.flow_pictures import check_maps, rows
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe


class RCNA(nn.Module):
    """The network of the authors' code, model version 3.

    Args:
        width: Channels F of every convolution; 32 in the authors' README, 64 by default in their script.
        pool_size: Side p of the pooled features; 5 in the README, 7 by default in the script.
        dropout: Probability, after each of the two poolings.
    """

    channels_last = True

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28,
        width: int = 32, pool_size: int = 5, dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        check_maps("rcn-a", in_channels, map_size, smallest=8)
        self.conv = _convolution(in_channels, width, kernel_size=5, padding=0)
        self.feed_forward = _convolution(width, width, kernel_size=1, padding=0)
        self.recurrent = _convolution(width, width, kernel_size=3, padding=1)
        self.conv_dropout = nn.Dropout(dropout)
        self.recurrent_dropout = nn.Dropout(dropout)
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        self.fc = nn.Linear(width * pool_size**2, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, 0.0, 0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, C, H, W)` float32 maps into `(B, classes)` logits."""
        x = self.conv_dropout(F.max_pool2d(self.conv(maps), 2))
        y = self.feed_forward(x)
        y = self.recurrent(x + y)
        y = self.recurrent(x + y)
        y = self.recurrent_dropout(F.max_pool2d(y, 2))
        features = rows(self.pool(y))
        attention = self._attention(rows(self.pool(x)))
        return self.fc((features * attention).flatten(1))

    def _attention(self, features: Tensor) -> Tensor:
        """Average the classes' activation maps of `(B, p, p, F)`, each in [0, 1]: `(B, p, p, 1)`."""
        weights = self.fc.weight.view(-1, *features.shape[1:])
        maps = (features.unsqueeze(1) * weights).mean(-1)
        maps = maps - maps.amin((2, 3), keepdim=True)
        # The authors divide by the maximum as it is: a map of one value all over would give NaN.
        largest = maps.amax((2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
        return (maps / largest).mean(1).unsqueeze(-1)


def _convolution(in_channels: int, width: int, kernel_size: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, kernel_size, padding=padding), nn.BatchNorm2d(width), nn.ReLU()
    )


README = Recipe(name="readme", epochs=20, batch_size=64, optimizer="sgd", lr=5e-4, momentum=0.9)
SCRIPT = README.changed(name="script", epochs=100)
MEB = README.changed(name="meb", epochs=500, batch_size=32, lr=1e-4, weight_decay=5e-4)

SPECS = (
    ModelSpec(
        name="rcn-a",
        title="RCN-A",
        build=RCNA,
        kind="network",
        views=("whole-60:minmax", "whole-28:minmax"),
        recipes={"readme": README, "script": SCRIPT, "meb": MEB},
        variants={
            "readme": {"width": 32, "pool_size": 5},
            "script": {"width": 64, "pool_size": 7},
            "meb": {"width": 64, "pool_size": 5},
        },
        citation=(
            "Z. Xia, W. Peng, H.-Q. Khor, X. Feng, G. Zhao: Revealing the Invisible With Model and Data "
            "Shrinking for Composite-Database Micro-Expression Recognition. IEEE Transactions on Image "
            "Processing 29, 2020. doi:10.1109/TIP.2020.3018222"
        ),
        parameters=15_331,
        exactness="exact",
        filled_in=(
            "Variant and recipe readme are the authors' command line (F 32, p 5, 20 epochs), script their "
            "script's defaults (F 64, p 7, 100 epochs), meb those of github.com/tvaranka/meb (F 64, p 5, 500 "
            "epochs, batch 32); which gave the published figures is not said.",
            "The authors' script makes a step schedule and never steps it, so the learning rate is constant.",
            "Their code takes maps of any size; 60×60 is what meb feeds it. Where the store's maps are 28×28 "
            "already, those are taken: pooling then averages 6×6 features to 5×5 instead of 14×14.",
            "Maps are in [0, 1] as their ToTensor makes them; that the images were stretched to 0-255 one by "
            "one beforehand is taken from STSTNet's published maps.",
            "A class activation map of one value all over, which would divide by zero, counts as 0.",
        ),
        selects_on_test=False,
        licence="github.com/xiazhaoqiang/ParameterFreeRCNs-MicroExpressionRec states none; no weights.",
    ),
)
