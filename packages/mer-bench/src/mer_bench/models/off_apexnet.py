"""OFF-ApexNet (Gan et al., SPIC 2019, doi:10.1016/j.image.2019.02.005): two shallow streams, for u and for v.

The two streams have the same shape, so each pair of convolutions is one convolution with two groups: the same
function, the same parameters and the same distribution at the start. With maps channels-last an epoch takes
three quarters of the plain form's time. What remains is mostly the products of the wide linear layers.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.models.layers.flow_pictures import check_maps, rows
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe

_STREAMS = 2


class OFFApexNet(nn.Module):
    """The network of a public re-implementation (the code of Off-TANet, PRICAI 2021).

    It reads the first two channels, u and v, and leaves strain alone. Two linear layers are `hidden` wide,
    with dropout after each.
    """

    channels_last = True

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28,
        hidden: int = 1024, dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        check_maps("off-apexnet", in_channels, map_size, streams=_STREAMS)
        self.first = nn.Conv2d(_STREAMS, _STREAMS * 6, 5, padding=2, groups=_STREAMS)
        self.second = nn.Conv2d(_STREAMS * 6, _STREAMS * 16, 5, padding=2, groups=_STREAMS)
        self.classifier = nn.Sequential(
            nn.Linear(_STREAMS * 16 * (map_size // 4) ** 2, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, C, H, W)` float32 maps, u and v first, into `(B, classes)` logits."""
        x = F.max_pool2d(self.first(maps[:, :_STREAMS]), 2)
        x = F.max_pool2d(self.second(x), 2)
        return self.classifier(rows(x).flatten(1))


PAPER = Recipe(name="paper", epochs=3000, batch_size=64, optimizer="adam", lr=1e-4)
# Ours, for a CPU: a fifteenth of the published epochs, everything else alike.
SHORT = PAPER.changed(name="short", epochs=200)

SPECS = (
    ModelSpec(
        name="off-apexnet",
        title="OFF-ApexNet",
        build=OFFApexNet,
        kind="network",
        views=("whole-28:raw", "whole-28:minmax"),
        recipes={"paper": PAPER, "short": SHORT},
        citation=(
            "Y. S. Gan, S.-T. Liong, W.-C. Yau, Y.-C. Huang, L.-K. Tan: OFF-ApexNet on Micro-expression "
            "Recognition System. Signal Processing: Image Communication 74, 2019. "
            "doi:10.1016/j.image.2019.02.005"
        ),
        parameters=2_664_475,
        exactness="exact",
        filled_in=(
            "The authors' code is not at hand; the network is that of the re-implementation in Off-TANet "
            "(PRICAI 2021), which has no activation after its convolutions. A published table gives 2.77 M "
            "parameters, this network has 2.66 M.",
            "Learning rate and 3000 epochs are published; the batch of 64 is Off-TANet's.",
            "Off-TANet feeds flow in pixels of the 28×28 map. Where a store keeps stretched maps only, those "
            "are taken in [0, 1]: the zero of u and v and the magnitude are lost.",
            "Recipe short is ours: 200 epochs in place of 3000, for a CPU. At 3000 the arithmetic bounds the "
            "composite: 1.0e15 multiply-adds over 68 folds are 80 minutes on two cores at 105 a nanosecond, "
            "and Adam's 1.1e14 bytes 17 more at 50 a nanosecond.",
        ),
        selects_on_test=None,
        licence="No code of the authors found; the network is written anew.",
    ),
)
