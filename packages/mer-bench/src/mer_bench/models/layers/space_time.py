"""The layers of HSTA (arXiv 2405.03202): tubelets, attention within and between two branches of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.models.layers.transformer import Block, split_heads


class TubeletEmbedding(nn.Module):
    """Cuts frames into tubelets and projects each; equals a `Conv3d` whose stride is its kernel.

    A tubelet is `depth` frames of `patch` px. A border that holds no whole patch, at the right and the
    bottom, is not read.
    """

    def __init__(self, channels: int, depth: int, patch: int, width: int) -> None:
        super().__init__()
        self.depth = depth
        self.patch = patch
        self.projection = nn.Linear(channels * depth * patch**2, width)

    def forward(self, frames: Tensor) -> Tensor:
        """Embed `(B, T, C, H, W)` frames as `(B, N, width)` tokens, by time, then row, then column."""
        batch, count, channels, height, width = frames.shape
        rows, columns = height // self.patch, width // self.patch
        frames = frames[..., : rows * self.patch, : columns * self.patch]
        cut = frames.reshape(
            batch, count // self.depth, self.depth, channels, rows, self.patch, columns, self.patch
        )
        # Channel, frame, row, column within a tubelet: the order of a Conv3d's weight.
        cut = cut.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(1, 3)
        return self.projection(cut)


class CrossAttention(nn.Module):
    """The first token's attention to all tokens, itself included; it is added to its input."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Change the first of `(B, N, width)` tokens, `(B, 1, width)`."""
        normed = self.norm(tokens)
        query = split_heads(self.query(normed[:, :1]), self.heads)
        key, value = split_heads(self.key(normed), self.heads), split_heads(self.value(normed), self.heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return tokens[:, :1] + self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))


class Exchange(nn.Module):
    """One direction of the crossmodal attention: a CLS token visits the other branch and comes back."""

    def __init__(self, width: int, other: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.there = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.GELU(), nn.Linear(width, other))
        self.attention = CrossAttention(other, heads, dropout)
        self.back = nn.Sequential(nn.LayerNorm(other, eps=1e-6), nn.GELU(), nn.Linear(other, width))

    def forward(self, own: Tensor, visited: Tensor) -> Tensor:
        """Replace the CLS token of `own`, `(B, N, width)`, by what it meets in `visited`, `(B, M, other)`."""
        guest = self.attention(torch.cat((self.there(own[:, :1]), visited[:, 1:]), dim=1))
        return torch.cat((self.back(guest), own[:, 1:]), dim=1)


class Stage(nn.Module):
    """One HSTA stage: attention within both branches (USTA), then between them (CSTA).

    Widths and depths are those of S and V; `drop_path` is the probability for each of the deeper's blocks.
    """

    def __init__(
        self,
        widths: tuple[int, int],
        depths: tuple[int, int],
        heads: int,
        dropout: float,
        drop_path: Sequence[float],
    ) -> None:
        super().__init__()
        self.special, self.clip = (
            nn.Sequential(
                *(Block(width, heads, 4.0, dropout, drop_path[i], key_bias=False) for i in range(depth))
            )
            for width, depth in zip(widths, depths, strict=True)
        )
        self.special_exchange = Exchange(widths[0], widths[1], heads, dropout)
        self.clip_exchange = Exchange(widths[1], widths[0], heads, dropout)

    def forward(self, special: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Transform both branches' tokens; both exchanges see them as the blocks left them."""
        special, clip = self.special(special), self.clip(clip)
        return self.special_exchange(special, clip), self.clip_exchange(clip, special)


def position_table(count: int, width: int) -> Tensor:
    """Return the fixed sine and cosine table of Vaswani et al., `(count, width)`: arXiv 1706.03762, §3.5.

    >>> position_table(2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    channel = torch.arange(width, dtype=torch.float64)
    rate = 10000 ** (-2 * (channel // 2) / width)
    angle = torch.arange(count, dtype=torch.float64)[:, None] * rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()
