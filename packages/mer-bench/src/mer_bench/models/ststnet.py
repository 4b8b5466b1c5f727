"""STSTNet (Liong et al., FG 2019, doi:10.1109/FG.2019.8756567): three shallow streams of 3, 5 and 8 kernels.

The streams read the same maps through kernels of one size, so they are one convolution with 16 kernels: the
same function, the same parameters and, the fan-in being equal, the same distribution at the start.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.layers.flow_pictures import rows
from mer_bench.models.layers.norm_pool import norm_pool
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe


class STSTNet(nn.Module):
    """The network of the authors' PyTorch code.

    Args:
        streams: Kernels of each stream.
        dropout: Probability, before the average pooling.
        padding: Of the convolution; 2 in the authors' code (30×30 activations). The paper's "same" is 1; both
            pool to 10×10.
    """

    channels_last = True

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28,
        streams: tuple[int, ...] = (3, 5, 8), dropout: float = 0.5, padding: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        smallest = max(6 - 2 * padding, 1)
        if map_size < smallest:
            raise UsageError(
                f"STSTNet with padding {padding} takes maps of at least {smallest} px, got {map_size}; "
                "read whole-28"
            )
        kernels = sum(streams)
        self.padding = padding
        self.conv = nn.Conv2d(in_channels, kernels, kernel_size=3)
        self.norm = nn.BatchNorm2d(kernels)
        self.dropout = nn.Dropout(dropout)
        pooled = (map_size + 2 * padding - 2 + 2 - 3) // 3 + 1
        self.fc = nn.Linear(kernels * (pooled // 2) ** 2, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, C, H, W)` float32 maps into `(B, classes)` logits."""
        # On maps padded beforehand a CPU convolves nearly twice as fast.
        padded = F.pad(rows(maps), (0, 0, *(self.padding,) * 4)).permute(0, 3, 1, 2)
        pooled = norm_pool(self.norm, F.relu(self.conv(padded), inplace=True))
        features = F.avg_pool2d(self.dropout(pooled), kernel_size=2, stride=2)
        return self.fc(rows(features).flatten(1))


# Their DataLoader does not shuffle: the first of an epoch's two batches holds almost nothing but negatives.
AUTHORS = Recipe(name="authors", epochs=800, batch_size=256, optimizer="adam", lr=5e-5, shuffle=False)
SHUFFLED = AUTHORS.changed(name="shuffled", shuffle=True)

SPECS = (
    ModelSpec(
        name="ststnet",
        title="STSTNet",
        build=STSTNet,
        kind="network",
        views=("whole-28:minmax-255", "whole-28:scaled"),
        recipes={
            "authors": AUTHORS,
            "shuffled": SHUFFLED,
            "paper": SHUFFLED.changed(name="paper", epochs=500),
        },
        citation=(
            "S.-T. Liong, Y. S. Gan, J. See, H.-Q. Khor, Y.-C. Huang: Shallow Triple Stream "
            "Three-dimensional CNN (STSTNet) for Micro-expression Recognition. IEEE FG 2019. "
            "doi:10.1109/FG.2019.8756567"
        ),
        parameters=1683,
        exactness="exact",
        filled_in=(
            "The paper pads its convolutions to 28×28 and trains 500 epochs in MATLAB; "
            "the network is the authors' PyTorch code, which pads to 30×30 and trains 800 (recipe authors). "
            "Recipe authors keeps their order of samples, class by class; shuffled differs in that alone.",
            "Recipe paper is shuffled, 500 epochs; what MATLAB shuffles is not stated.",
        ),
        selects_on_test=False,
        licence="github.com/christy1206/STSTNet states none; the network is written anew, no weights.",
    ),
)
