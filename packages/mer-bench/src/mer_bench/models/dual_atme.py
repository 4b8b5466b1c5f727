"""Dual-ATME (Zhou et al., Entropy 2023, doi:10.3390/e25030460): the whole face beside chosen regions.

Each goes through Inception blocks and CBAM; both are joined for the classifier, and training also asks them
to point the same way.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.layers.flow_pictures import check_maps, rows
from mer_bench.models.layers.inception import CBAM, Inception, cosine_distance
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe

_CHANNELS = 3


class Branch(nn.Module):
    """Two Inception blocks, each followed by 2×2 max pooling: `(B, C, H, W)` to `(B, 48, H / 4, W / 4)`."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.first = Inception(in_channels, 6)
        self.second = Inception(24, 12)

    def forward(self, maps: Tensor) -> Tensor:
        """Run the branch."""
        return F.max_pool2d(self.second(F.max_pool2d(self.first(maps), 2)), 2)


class DualATME(nn.Module):
    """The network of the authors' code.

    Args:
        in_channels: 6: the whole face's u, v and strain, then the regions'; or 3: one map for both branches.
        hidden: Units of the hidden linear layer.
        dropout: Probability, after it.
        attend_regions: Whether the regions pass the attention too, by the same weights, as in the code; the
            paper leaves them out.
        contrast: Weight of the branches' cosine distance in the loss.
    """

    channels_last = True

    def __init__(
        self, num_classes: int = 3, in_channels: int = 6, map_size: int = 28,
        hidden: int = 1024, dropout: float = 0.5, attend_regions: bool = True, contrast: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__()
        if in_channels not in (_CHANNELS, 2 * _CHANNELS):
            raise UsageError(
                "dual-atme reads u, v and strain of the whole face and of its regions (6 channels, as "
                f"whole-28+regions-28), or one map for both (3); got {in_channels} channels"
            )
        check_maps("dual-atme", in_channels, map_size)
        self.attend_regions = attend_regions
        self.contrast = contrast
        self.whole = Branch(_CHANNELS)
        self.regions = Branch(_CHANNELS)
        self.attention = CBAM(48)
        self.fc = nn.Sequential(
            nn.Linear(2 * 48 * (map_size // 2 // 2) ** 2, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, maps: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Turn `(B, 3 or 6, H, W)` float32 maps in [0, 1] into `(B, classes)` logits.

        In training `contrast` times the branches' cosine distance, `(B,)`, comes with them.
        """
        maps = 2.0 * maps - 1.0
        whole = self.attention(self.whole(maps[:, :_CHANNELS]))
        regions = self.regions(maps[:, -_CHANNELS:])
        if self.attend_regions:
            regions = self.attention(regions)
        whole, regions = (rows(x).flatten(1) for x in (whole, regions))
        logits: Tensor = self.fc(torch.cat([whole, regions], dim=1))
        if not self.training:
            return logits
        return logits, self.contrast * cosine_distance(whole, regions)


AUTHORS = Recipe(
    name="authors", epochs=60, batch_size=128, optimizer="adam", lr=1e-3, loss="focal", focal_gamma=2.0
)

SPECS = (
    ModelSpec(
        name="dual-atme",
        title="Dual-ATME",
        build=DualATME,
        kind="network",
        views=("whole-28+regions-28:minmax", "whole-28:minmax"),
        recipes={"authors": AUTHORS},
        variants={"paper": {}, "small": {"hidden": 128}, "tiny": {"hidden": 4}},
        citation=(
            "H. Zhou, S. Huang, J. Li, S.-J. Wang: Dual-ATME: Dual-Branch Attention Network for "
            "Micro-Expression Recognition. Entropy 25(3), 460, 2023. doi:10.3390/e25030460"
        ),
        parameters=4_833_193,
        exactness="reconstructed",
        filled_in=(
            "The second input is a puzzle of regions chosen by hand, whose generator is not released; here "
            "it is regions-28, our layout of five regions.",
            "A store without regions gives whole-28 to both branches; they still have weights of their own, "
            "but see nothing that the other does not.",
            "The network is the code's, where regions pass the attention too; the paper takes it out there "
            "(options.attend_regions=no).",
            "The code's step schedule is made but never stepped, and its script asks for two settings that "
            "it does not have; the learning rate is constant here.",
            "Variants small and tiny, for a CPU, are ours: a narrower hidden layer.",
        ),
        selects_on_test=False,
        licence="The authors' code is public and has no licence file; the network is written anew.",
    ),
)
