"""HTNet (Wang et al., Neurocomputing 2024, doi:10.1016/j.neucom.2024.128196, arXiv:2307.14637).

**Its attention sees one token.** Attention acts within blocks, and maps of 28×28 in patches of 7×7 make
blocks of one patch at every level. The softmax of one number is 1, so the module is the linear map
`output(value(x))`: queries and keys have no influence on any logit, whatever they are. Patches exchange
information in the two aggregations (3×3 convolution, LayerNorm, max pooling) and nowhere else. Nor has the
last level's positional embedding any influence: it adds one number to all channels of a patch, which every
LayerNorm after it takes away again. These parameters belong to the published network; they are kept, counted
and left out of the computation, and `HTNet.untrained_parameters()` names them. On larger maps blocks hold
more patches, and attention is attention.

Patches lie as (batch, row, column, channel), so that 1×1 convolutions are matrix products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.layers.transformer import split_heads
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe

_LEVELS = 3
_BLOCKS = 2 ** (_LEVELS - 1)


class BlockAttention(nn.Module):
    """Multi-head attention among the patches of a block; with one, queries and keys are not computed.

    Each head has `width // heads` channels, so the last `width % heads` are dropped inside.
    """

    def __init__(self, width: int, heads: int, patches: int) -> None:
        super().__init__()
        inner = width // heads * heads
        self.heads = heads
        self.alone = patches == 1
        self.query_key = nn.Linear(width, 2 * inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, N, C)` patches to `(B, N, C)`."""
        value = self.value(x)
        if not self.alone:
            query, key = self.query_key(x).chunk(2, dim=-1)
            mixed = F.scaled_dot_product_attention(
                split_heads(query, self.heads), split_heads(key, self.heads), split_heads(value, self.heads)
            )
            value = mixed.transpose(1, 2).flatten(2)
        return self.output(value)


class Block(nn.Module):
    """Attention, then two layers with GELU between, each on LayerNorm of its input and added to it."""

    def __init__(self, width: int, heads: int, patches: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = BlockAttention(width, heads, patches)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, N, C)` patches to `(B, N, C)`."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class Level(nn.Module):
    """One level: its grid of patches cut into blocks of `side`, each through the same transformer.

    After the last level LayerNorm follows with nothing between, so its positional embedding is idle.
    """

    def __init__(self, width: int, heads: int, depth: int, side: int, last: bool) -> None:
        super().__init__()
        self.side = side
        self.last = last
        # One number a patch, for all its channels.
        self.position = nn.Parameter(torch.randn(side**2))
        self.blocks = nn.ModuleList(Block(width, heads, side**2) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, G, G, C)` patches to `(B, G, G, C)`."""
        batch, grid, _, width = x.shape
        count = grid // self.side
        x = x.reshape(batch, count, self.side, count, self.side, width).transpose(2, 3)
        x = x.reshape(batch * count**2, self.side**2, width)
        if not self.last:
            x = x + self.position.unsqueeze(-1)
        for block in self.blocks:
            x = block(x)
        x = x.reshape(batch, count, count, self.side, self.side, width).transpose(2, 3)
        return x.reshape(batch, grid, grid, width)


class Aggregation(nn.Module):
    """3×3 convolution, LayerNorm over channels, then 3×3 max pooling with stride 2.

    The kernel is kept as a matrix over (channel, row, column). On CUDA, where `vmap` would make of a
    convolution a grouped one, and on a CPU for 2×2 patches of many channels, for which oneDNN has no good
    kernel, the convolution is one product over gathered neighbours.
    """

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.by_product = grid == 2 and width >= 256
        self.mix = nn.Linear(9 * width, 2 * width)
        self.norm = nn.LayerNorm(2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, G, G, C)` patches to `(B, G / 2, G / 2, 2 * C)`."""
        if x.is_cuda or self.by_product:
            padded = F.pad(x, (0, 0, 1, 1, 1, 1))
            x = self.mix(padded.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3))
        else:
            kernel = self.mix.weight.view(-1, x.shape[-1], 3, 3)
            x = F.conv2d(x.permute(0, 3, 1, 2), kernel, self.mix.bias, padding=1).permute(0, 2, 3, 1)
        return F.max_pool2d(self.norm(x).permute(0, 3, 1, 2), 3, 2, 1).permute(0, 2, 3, 1)


class Tower(nn.Module):
    """The three levels and two aggregations, without a head.

    Args:
        normed: Whether LayerNorm follows with nothing between, so that the last level's positional embedding
            is idle.
    """

    def __init__(
        self, in_channels: int, map_size: int, patch_size: int, width: int, heads: int,
        blocks: tuple[int, int, int], normed: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        step = patch_size * _BLOCKS
        if map_size < step or map_size % step:
            raise UsageError(
                f"htnet with patches of {patch_size}×{patch_size} takes maps whose side is a multiple of "
                f"{step} ({step}, {2 * step} …), got {map_size}"
            )
        if not 1 <= heads <= width or min(blocks) < 0:
            raise UsageError(
                f"htnet of width {width} takes 1 to {width} heads and no negative number of blocks; got "
                f"{heads} heads and blocks {blocks}"
            )
        self.patch_size = patch_size
        grid = map_size // patch_size
        side = grid // _BLOCKS
        self.embedding = nn.Linear(in_channels * patch_size**2, width)
        self.levels = nn.ModuleList()
        self.aggregations = nn.ModuleList()
        for level, depth in enumerate(blocks):
            last = level == _LEVELS - 1
            self.levels.append(Level(width * 2**level, heads * 2**level, depth, side, last and normed))
            if not last:
                self.aggregations.append(Aggregation(width * 2**level, grid // 2**level))

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, C, H, W)` maps into `(B, G, G, 4 * width)` patches, of which maps of 28 px give one."""
        batch, channels, height, _ = maps.shape
        size = self.patch_size
        grid = height // size
        patches = maps.reshape(batch, channels, grid, size, grid, size).permute(0, 2, 4, 3, 5, 1)
        x: Tensor = self.levels[0](self.embedding(patches.reshape(batch, grid, grid, -1)))
        for aggregation, level in zip(self.aggregations, self.levels[1:], strict=True):
            x = level(aggregation(x))
        return x


def idle_parameters(network: nn.Module) -> set[str]:
    """Name the parameters of towers that nothing depends on, in no order.

    They are a positional embedding that LayerNorm takes away, and queries and keys of blocks of one patch.
    """
    idle: set[str] = set()
    for name, module in network.named_modules():
        if isinstance(module, Level) and module.last:
            idle.add(f"{name}.position")
        if isinstance(module, BlockAttention) and module.alone:
            idle.add(f"{name}.query_key.weight")
    return idle


class HTNet(Tower):
    """The network of the authors' code.

    Args:
        map_size: Height and width of the maps, a multiple of four patches; 28 as published.
        patch_size: Side of a patch, pixels.
        width: Channels of the first level; each further level has twice as many.
        heads: Heads of the first level; each further level has twice as many.
        blocks: Transformer blocks of each level, from the finest.
    """

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28,
        patch_size: int = 7, width: int = 256, heads: int = 3, blocks: tuple[int, int, int] = (2, 2, 8),
    ) -> None:  # fmt: skip
        super().__init__(in_channels, map_size, patch_size, width, heads, blocks, normed=True)
        self.norm = nn.LayerNorm(width * 2 ** (_LEVELS - 1))
        self.fc = nn.Linear(width * 2 ** (_LEVELS - 1), num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, C, H, W)` float32 maps, 0 to 255 as published, into `(B, classes)` logits."""
        return self.fc(self.norm(super().forward(maps)).mean((1, 2)))

    def untrained_parameters(self) -> tuple[str, ...]:
        """Name the parameters that no logit depends on, in the order of `named_parameters()`."""
        idle = idle_parameters(self)
        return tuple(name for name, _ in self.named_parameters() if name in idle)


AUTHORS = Recipe(name="authors", epochs=800, batch_size=256, optimizer="adam", lr=5e-5, shuffle=False)
SHUFFLED = AUTHORS.changed(name="shuffled", shuffle=True)

SPECS = (
    ModelSpec(
        name="htnet",
        title="HTNet",
        build=HTNet,
        kind="network",
        views=("htnet-28@as-published:minmax-255", "htnet-28:minmax-255", "whole-28:minmax-255"),
        recipes={"authors": AUTHORS, "shuffled": SHUFFLED},
        variants={
            "paper": {},
            "deeper": {"blocks": (2, 2, 10)},
            "dim64": {"width": 64},
            "small": {"width": 16, "heads": 1},
            "tiny": {"width": 8, "heads": 1, "blocks": (1, 1, 2)},
        },
        citation=(
            "Z. Wang, K. Zhang, W. Luo, R. Sankaranarayana: HTNet for Micro-Expression Recognition. "
            "Neurocomputing 602, 2024. doi:10.1016/j.neucom.2024.128196, arXiv:2307.14637"
        ),
        parameters=114_429_446,
        exactness="exact",
        filled_in=(
            "The authors' code has (2, 2, 8) blocks in one script and (2, 2, 10) in another; the paper "
            "says 8. Variant deeper is the other.",
            "Finding: with 28×28 maps every attention sees one patch, so queries and keys have no "
            "influence on any logit, nor has the last level's positional embedding. They are kept and "
            "counted, but neither computed nor trained; Adam with a gradient of zero would leave queries "
            "and keys as they are too.",
            "Recipe authors keeps their order of samples, class by class; shuffled differs in that alone.",
            "View as-published repeats their four 14×14 crops, whose rows and columns are exchanged; "
            "where a store holds no landmarks, whole maps are taken, in which a patch is no part of the "
            "face by name.",
            "Variants dim64, small and tiny are ours: the same network of 64, 16 and 8 channels. The "
            "published one takes 1.2e16 multiply-adds for the composite, which is work for a GPU; small "
            "is for a CPU.",
        ),
        selects_on_test=True,
        licence="github.com/wangzhifengharrison/HTNet states none; the network is written anew, no weights.",
    ),
)
