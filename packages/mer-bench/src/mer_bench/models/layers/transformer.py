"""A plain pre-norm vision-transformer block, shared by the networks that have one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention among tokens.

    A bias of the keys adds the same to every score of a query, so the softmax takes it away again; some code
    leaves it out (`key_bias`).
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, key_bias: bool = True) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UsageError(f"{heads} attention heads do not divide the width {width}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=key_bias)
        self.query_bias = None if key_bias else nn.Parameter(torch.zeros(width))
        self.value_bias = None if key_bias else nn.Parameter(torch.zeros(width))
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Mix `(B, N, width)` tokens."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        if self.query_bias is not None and self.value_bias is not None:
            query, value = query + self.query_bias, value + self.value_bias
        mixed = F.scaled_dot_product_attention(
            split_heads(query, self.heads), split_heads(key, self.heads), split_heads(value, self.heads)
        )
        return self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))


class DropPath(nn.Module):
    """Leaves a residual branch out for whole samples, scaled up elsewhere (arXiv 1603.09382)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(probability)

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of `(B, N, C)`."""
        if self.dropout.p == 0.0:
            return x
        return x * self.dropout(torch.ones_like(x[:, :1, :1]))


class Block(nn.Module):
    """Attention, then two layers with GELU between, each on LayerNorm of its input and added to it.

    Dropout comes after the attention's output and both layers; `drop_path` leaves out either branch.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        key_bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads, dropout, key_bias)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )
        self.drop_path1 = DropPath(drop_path)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(B, N, width)` tokens."""
        x = x + self.drop_path1(self.attention(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Turn `(B, N, C)` into `(B, heads, N, C / heads)`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def init_linear_layers(network: nn.Module) -> None:
    """Draw weights of linear layers as vision transformers do: normal, sd 0.02, cut at ±2; biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
