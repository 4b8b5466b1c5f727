"""MMNet (Li et al., IJCAI 2022, arXiv 2201.05297): muscle motion, guided by where it is on the face.

The main branch reads the difference of apex and onset through blocks with continuous attention (CA): each
block's spatial attention is multiplied by the one before. The position branch, a small vision transformer,
reads the onset at 14×14 px. The structure follows the authors' code (github.com/muse1998/MMNet,
`CASME2_3.py`, `CA_block.py`, `PC_module.py`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.layers.frames import ColourNorm, reduced_size
from mer_bench.models.layers.transformer import Block, init_linear_layers
from mer_bench.models.spec import ModelSpec, Options
from mer_bench.recipe import Recipe

#: The main branch halves its maps four times.
STRIDE = 16


class CABlock(nn.Module):
    """A residual block whose output is weighted by a spatial attention that continues the last block's."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.attention = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False), nn.BatchNorm2d(1), nn.Sigmoid())
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor, last: Tensor | None) -> tuple[Tensor, Tensor]:
        """Transform and weigh `(B, channels, H, W)`; the attention, of one channel, comes with the result.

        `last` is the last block's attention, pooled to the size that leaves; None in the first block.
        """
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        out = F.relu(out + self.shortcut(x))
        attention = self.attention(torch.cat((out.mean(1, keepdim=True), out.amax(1, keepdim=True)), dim=1))
        if last is not None:
            attention = last * attention
        return out * attention, attention


class PositionBranch(nn.Module):
    """A vision transformer over `grid`² pixels of the onset, one token each; `drop_path` rises from zero."""

    def __init__(self, grid: int, width: int, depth: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.embedding = nn.Linear(3, width)
        self.positions = nn.Parameter(torch.zeros(1, grid**2, width))
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.Sequential(*(Block(width, heads, 2.0, drop_path=rate) for rate in rates))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        init_linear_layers(self.blocks)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn `(B, 3, grid, grid)` pixels into `(B, width, grid, grid)` features."""
        tokens = self.embedding(pixels.flatten(2).transpose(1, 2)) + self.positions
        return self.norm(self.blocks(tokens)).transpose(1, 2).unflatten(2, pixels.shape[-2:])


class MMNetOptions(Options):
    """Options of MMNet.

    Attributes:
        reduce_to: Frames larger than this are first reduced to it by area averaging; 0 keeps them.
        stem: Channels of the first convolution.
        widths: Channels of the four blocks.
        depth: Blocks of the position branch.
        heads: Of its attention; they must divide the last width.
        drop_path: Of the position branch: the probability in its last block.
    """

    reduce_to: int = 0
    stem: int = 180
    widths: tuple[int, int, int, int] = (128, 128, 256, 512)
    depth: int = 3
    heads: int = 4
    drop_path: float = 0.3


class MMNet(nn.Module):
    """The network of the authors' code, without the parts of it that nothing reads.

    It reads 6 channels, onset and apex in colour, as `faces-N@rgb` has them.
    """

    config = MMNetOptions

    def __init__(
        self, num_classes: int = 3, in_channels: int = 6, map_size: int = 224, **options: Any
    ) -> None:
        super().__init__()
        given = self.config(**options)
        stem, widths = given.stem, given.widths
        if in_channels != 6:
            raise UsageError(
                f"MMNet reads onset and apex in colour, 6 channels, as in faces-{map_size}@rgb; "
                f"these maps have {in_channels}. Build with `mer-flow build ... --keep-faces`"
            )
        size = reduced_size("MMNet", map_size, given.reduce_to, STRIDE)
        self.reduction = map_size // size
        grid = size // STRIDE
        self.colour = ColourNorm()
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.entry = nn.Sequential(
            nn.Conv2d(stem, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        channels = (widths[0], *widths)
        self.blocks = nn.ModuleList(
            CABlock(channels[i], channels[i + 1], 1 if i == 0 else 2) for i in range(4)
        )
        self.position = PositionBranch(grid, widths[-1], given.depth, given.heads, given.drop_path)
        self.fc = nn.Linear(widths[-1] * grid**2, num_classes)
        for module in (*self.entry.modules(), *self.blocks.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, 6, H, W)` float32, onset and apex in [0, 1], into `(B, classes)` logits."""
        if self.reduction > 1:
            maps = F.avg_pool2d(maps, self.reduction)
        onset, apex = (self.colour(frame) for frame in maps.chunk(2, dim=1))
        x = self.entry(self.stem(apex - onset))
        attention: Tensor | None = None
        for block in self.blocks:
            if attention is not None:
                attention = F.max_pool2d(attention, 3, stride=2, padding=1)
            x, attention = block(x, attention)
        # Bilinear reduction by 16, as torchvision's to 14×14, reads the four pixels amid each cell.
        near = [onset[:, :, i::STRIDE, j::STRIDE] for i in (7, 8) for j in (7, 8)]
        return self.fc((x + self.position(torch.stack(near).mean(0))).flatten(1))


AUTHORS = Recipe(
    name="authors", epochs=99, batch_size=24, optimizer="adamw", lr=8e-4, weight_decay=0.7,
    schedule="exponential", gamma=0.987, decay_epochs=50, flip=0.5, shift=4, rotate=4.0,
)  # fmt: skip

SPECS = (
    ModelSpec(
        name="mmnet",
        title="MMNet",
        build=MMNet,
        kind="network",
        views=("faces-224@rgb:scaled", "faces-112@rgb:scaled"),
        recipes={"authors": AUTHORS},
        variant_views={"small": ("faces-112@rgb:scaled",)},
        variants={
            "paper": {},
            "small": {"reduce_to": 112, "stem": 24, "widths": (16, 16, 32, 64), "depth": 1},
        },
        citation=(
            "H. Li, M. Sui, Z. Zhu, F. Zhao: MMNet: Muscle motion-guided network for micro-expression "
            "recognition. IJCAI 2022. arXiv 2201.05297"
        ),
        parameters=9_241_719,
        exactness="exact",
        filled_in=(
            "The code for three classes sets groups = 2 for a convolution of three channels, which PyTorch "
            "refuses; here groups = 1.",
            "Parts that the code builds and never reads (a second head, time and CLS tokens) are left out.",
            "The authors' last layer has five outputs for three classes too; here it has one per class.",
            "In training the authors take onset and apex from a few frames around the annotated ones; the "
            "store keeps one onset and one apex.",
            "Their rotation takes the nearest pixel and their random crop pads with zeros; here pixels are "
            "interpolated and edges repeated.",
            "The authors read CASME II's cropped release; here frames are the store's aligned faces.",
            "Variant small is ours, for a CPU.",
        ),
        selects_on_test=True,
        licence="The authors' repository (muse1998/MMNet) carries no licence; this is code of our own.",
    ),
)
