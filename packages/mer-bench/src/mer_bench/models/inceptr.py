"""IncepTR (Zhou et al., Multimedia Systems 2023, doi:10.1007/s00530-023-01164-0): Inception beside attention.

One branch looks at a map through Inception blocks and CBAM, the other through a vision transformer whose
patches are single pixels; training also asks both to point the same way at every place.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.layers.flow_pictures import resize, rows
from mer_bench.models.layers.inception import CBAM, Inception, cosine_distance
from mer_bench.models.layers.transformer import Block, SelfAttention, init_linear_layers, split_heads
from mer_bench.models.spec import ModelSpec, Options
from mer_bench.recipe import Recipe


class IncepTROptions(Options):
    """Options of IncepTR.

    Attributes:
        shrink: How many times smaller the maps are where the branches meet.
        width: Channels of a transformer token.
        depth: Transformer blocks.
        heads: Attention heads; a power of two.
        fused: Channels of either branch where they are compared and joined.
        hidden: Units of the hidden linear layer.
        dropout: Probability, after it.
        drop_path: Probability of leaving a branch out in the last transformer block; it rises from 0 in the
            first.
        head_drop: Probability of `HeadDropOut`.
        contrast: Weight of the branches' cosine distance in the loss.
    """

    shrink: int = 2
    width: int = 512
    depth: int = 3
    heads: int = 4
    fused: int = 256
    hidden: int = 1024
    dropout: float = 0.5
    drop_path: float = 0.3
    head_drop: float = 0.3
    contrast: float = 0.1


class HeadDropOut(nn.Module):
    """The dropping of heads as the authors' code has it: it drops a token.

    In a share of the samples, one of the first `heads` (a power of two) TOKENS has its query, key and value
    set to zero: the code means the heads' axis but indexes the one before it. Nothing is scaled up for it.
    """

    def __init__(self, probability: float, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # Bits of randomness come from dropout, so that they are the fold's own.
        self.meet = nn.Dropout(probability)
        self.choose = nn.Dropout(0.5)

    def forward(self, qkv: Tensor) -> Tensor:
        """Drop tokens of `(B, N, C)`, N at least `heads`; in evaluation the input itself."""
        if not self.training or self.meet.p == 0.0:
            return qkv
        met = self.meet(torch.ones_like(qkv[:, :1, 0])) == 0
        bits = self.choose(torch.ones_like(qkv[:, : self.heads.bit_length() - 1, 0])) == 0
        place = torch.arange(qkv.shape[1], device=qkv.device)
        chosen = place < self.heads
        for number in range(self.heads.bit_length() - 1):
            chosen = chosen & (bits[:, number : number + 1] == (place >> number & 1).bool())
        return qkv * (~(met & chosen)).to(qkv.dtype).unsqueeze(-1)


class HeadDropAttention(SelfAttention):
    """Self-attention whose queries, keys and values pass `HeadDropOut`."""

    def __init__(self, width: int, heads: int, head_drop: float) -> None:
        super().__init__(width, heads)
        self.head_drop = HeadDropOut(head_drop, heads)

    def forward(self, x: Tensor) -> Tensor:
        """Mix `(B, N, width)` tokens."""
        query, key, value = (split_heads(t, self.heads) for t in self.head_drop(self.qkv(x)).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.output(mixed.transpose(1, 2).flatten(2))


class PixelTransformer(nn.Module):
    """A pre-norm vision transformer on `side`² pixels, with learned positions and without a class token."""

    def __init__(self, in_channels: int, side: int, options: IncepTROptions) -> None:
        super().__init__()
        width, depth, heads = options.width, options.depth, options.heads
        self.embed = nn.Conv2d(in_channels, width, 1)
        self.positions = nn.Parameter(torch.empty(1, side**2, width))
        self.blocks = nn.Sequential()
        for number in range(depth):
            share = number / (depth - 1) if depth > 1 else 0.0
            block = Block(width, heads, 2.0, drop_path=options.drop_path * share)
            block.attention = HeadDropAttention(width, heads, options.head_drop)
            self.blocks.append(block)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        init_linear_layers(self)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, in_channels, side, side)` into `(B, width, side, side)`."""
        tokens = self.embed(maps).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.blocks(tokens)).transpose(1, 2).unflatten(2, maps.shape[-2:])


class IncepTR(nn.Module):
    """The network of the authors' code, on maps of 28×28 as published, or of another multiple of `shrink`."""

    config = IncepTROptions
    channels_last = True

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, map_size: int = 28, **options: Any
    ) -> None:
        super().__init__()
        given = self.config(**options)
        shrink, width, heads, fused = given.shrink, given.width, given.heads, given.fused
        # HeadDropOut draws among as many tokens as there are heads.
        if map_size % shrink or (map_size // shrink) ** 2 < heads:
            raise UsageError(
                f"inceptr takes maps whose height is a multiple of {shrink} and gives {heads} places or more "
                f"where it is {shrink} times smaller, got {map_size}"
            )
        if heads < 1 or heads & (heads - 1) or width % heads:
            raise UsageError(f"inceptr: heads must be a power of two that divides width {width}, got {heads}")
        self.contrast = given.contrast
        self.side = map_size // shrink
        self.local = nn.Sequential(
            Inception(in_channels, 6),
            Inception(24, 12),
            nn.MaxPool2d(shrink),
            CBAM(48),
            nn.Conv2d(48, fused, 1),
        )
        self.transformer = PixelTransformer(in_channels, self.side, given)
        self.project = nn.Conv2d(width, fused, 1)
        self.fc = nn.Sequential(
            nn.Linear(2 * fused * self.side**2, given.hidden),
            nn.ReLU(),
            nn.Dropout(given.dropout),
            nn.Linear(given.hidden, num_classes),
        )

    def forward(self, maps: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Turn `(B, C, H, W)` float32 maps into `(B, classes)` logits.

        In training `contrast` times the branches' cosine distance, `(B,)`, comes with them.
        """
        local = self.local(maps)
        distant = self.project(self.transformer(resize(maps, self.side)))
        logits: Tensor = self.fc(rows(torch.cat([distant, local], dim=1)).flatten(1))
        if not self.training:
            return logits
        return logits, self.contrast * cosine_distance(distant, local)


AUTHORS = Recipe(
    name="authors", epochs=30, batch_size=128, optimizer="adamw", lr=1e-3, weight_decay=0.01, shuffle=True
)

SPECS = (
    ModelSpec(
        name="inceptr",
        title="IncepTR",
        build=IncepTR,
        kind="network",
        views=("whole-28:minmax", "whole-28:scaled"),
        recipes={"authors": AUTHORS},
        variants={
            "paper": {},
            "small": {"shrink": 4, "width": 64, "depth": 2, "fused": 32, "hidden": 64},
            "tiny": {"shrink": 4, "width": 16, "depth": 1, "heads": 2, "fused": 4, "hidden": 8},
        },
        citation=(
            "H. Zhou, S. Huang, Y. Xu: Inceptr: micro-expression recognition integrating inception-CBAM and "
            "vision transformer. Multimedia Systems, 2023. doi:10.1007/s00530-023-01164-0"
        ),
        parameters=109_325_449,
        exactness="exact",
        filled_in=(
            "The authors' flow arrays are not released, and their script does not apply the normalisation "
            "that it defines; here u, v and strain come as whole-28:minmax, in [0, 1].",
            "HeadDropOut is kept as coded: it zeroes query, key and value of one of the first four tokens, "
            "where its description speaks of heads.",
            "Class token, classifier head and mask of their transformer have weights (3,590) but no part in "
            "the output; they are left out.",
            "Maps are halved for the transformer by the mean of 2×2 pixels, which is what bilinear resizing "
            "without smoothing gives; torchvision's default has changed since.",
            "The script repeats its run ten times with one seed; one run is trained per seed here.",
            "Variants small and tiny, for a CPU, are ours: 7×7 tokens in place of 14×14, narrower layers.",
        ),
        selects_on_test=False,
        licence="The authors' code is public and has no licence file; the network is written anew.",
    ),
)
