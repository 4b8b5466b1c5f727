"""The parts of AHMSA-Net, on patches laid out as (batch, patches, channels).

A 1×1 convolution over patches is a linear layer over the last axis: the same function, the same weights, the
same initialisation. Channels last make it one matrix product, LayerNorm contiguous, and a stack of folds a
batched product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ahmsa_model.config import AHMSAConfig


class PatchEmbedding(nn.Module):
    """Cuts the map into square patches and projects each; equals a convolution with stride `patch_size`."""

    def __init__(self, in_channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Linear(in_channels * patch_size**2, width)

    def forward(self, maps: Tensor) -> Tensor:
        """Embed `(B, C, H, W)` maps as `(B, N, width)` patches, row by row."""
        batch, channels, height, width = maps.shape
        side = self.patch_size
        patches = maps.reshape(batch, channels, height // side, side, width // side, side)
        # Channel, row, column within a patch: the order of a Conv2d weight.
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)
        return self.projection(patches)


class ChannelAttention(nn.Module):
    """Weights each channel by what all patches hold of it (paper §3.4).

    `sigmoid(M(mean over patches) + M(max over patches)) * x`, M two layers with ReLU between, without bias as
    in CBAM; `shared`: one M for both, or one each. Of one patch, mean and max are the same vector.
    """

    def __init__(self, width: int, reduction: int, shared: bool, patches: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.one_patch = patches == 1
        self.network = _two_layers(width, hidden)
        self.max_network = None if shared else _two_layers(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels of `(B, N, C)` patches."""
        if self.max_network is None:
            if self.one_patch:
                return x * torch.sigmoid(2 * self.network(x))
            pooled = torch.stack((x.mean(dim=1), x.amax(dim=1)), dim=1)
            return x * torch.sigmoid(self.network(pooled).sum(dim=1, keepdim=True))
        mean, largest = x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
        return x * torch.sigmoid(self.network(mean) + self.max_network(largest))


class SpatialAttention(nn.Module):
    """Multi-head scaled dot-product attention between patches (paper eq. 4).

    Where a patch attends to itself alone, the softmax of one number is 1 and the module is the linear map of
    values and output: Q and K are then left out of the computation, but kept as parameters, so that a
    network's size and checkpoint do not depend on it. Their gradient is zero whatever the data (plain
    autograd leaves it None).
    """

    def __init__(self, width: int, heads: int, head_width: int, dropout: float, alone: bool) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.alone = alone
        self.query_key = nn.Linear(width, 2 * inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Mix each of `(B, N, C)` patches from the patches it attends to."""
        value = self.value(x)
        if not self.alone:
            query, key = self.query_key(x).chunk(2, dim=-1)
            mixed = F.scaled_dot_product_attention(self._split(query), self._split(key), self._split(value))
            value = mixed.transpose(1, 2).flatten(2)
        return self.dropout(self.output(value))

    def weights(self, x: Tensor) -> Tensor:
        """Return how much each of `(B, N, C)` patches attends to each: `(B, heads, N, N)`, rows sum to 1."""
        if self.alone:
            return torch.eye(x.shape[1], device=x.device).expand(len(x), self.heads, -1, -1)
        query, key = (self._split(part) for part in self.query_key(x).chunk(2, dim=-1))
        return torch.softmax(query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5, dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two layers with GELU between, on every patch alike (paper §3.4); dropout after each."""

    def __init__(self, width: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, width * expansion)
        self.contract = nn.Linear(width * expansion, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, N, C)` patches to `(B, N, C)`."""
        return self.dropout(self.contract(self.dropout(F.gelu(self.expand(x)))))


class MultiScaleAttentionBlock(nn.Module):
    """Channel attention (or none), spatial attention, feed-forward: each on LayerNorm of its input (§3.4)."""

    def __init__(self, config: AHMSAConfig, level: int) -> None:
        super().__init__()
        width, patches = config.widths[level], config.grids[level] ** 2
        self.residual = config.residual
        self.channel_norm = self.channel = None
        if config.channel_attention != "none":
            self.channel_norm = nn.LayerNorm(width, eps=config.norm_eps)
            shared = config.channel_attention == "shared"
            self.channel = ChannelAttention(width, config.channel_reduction, shared, patches)
        self.spatial_norm = nn.LayerNorm(width, eps=config.norm_eps)
        alone = patches == 1 or config.attention == "block"
        self.spatial = SpatialAttention(
            width, config.level_heads[level], config.head_width, config.dropout, alone
        )
        self.feed_forward_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.feed_forward = FeedForward(width, config.feed_forward_expansion, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, N, C)` patches to `(B, N, C)`."""
        if self.channel is not None and self.channel_norm is not None:
            x = self._join(x, self.channel(self.channel_norm(x)))
        x = self._join(x, self.spatial(self.spatial_norm(x)))
        return self._join(x, self.feed_forward(self.feed_forward_norm(x)))

    def _join(self, x: Tensor, change: Tensor) -> Tensor:
        return x + change if self.residual else change


class AdaptiveDownsampling(nn.Module):
    """3×3 convolution, LayerNorm, adaptive max pooling (paper eq. 2).

    For CUDA the convolution is one matrix product over gathered neighbours: under `torch.func.vmap` a stack
    of folds becomes a batched product, where `conv2d`, the faster on a CPU, would become a grouped
    convolution. And the pooling is a reduction, whose gradient is deterministic there: where patches tie for
    the largest they share it, and on a CPU the first takes it. `scale_factor` divides `grid`, so that the
    adaptive windows are its squares.
    """

    def __init__(self, in_width: int, out_width: int, grid: int, scale_factor: int, norm_eps: float) -> None:
        super().__init__()
        self.grid = grid
        self.scale_factor = scale_factor
        self.convolution = nn.Conv2d(in_width, out_width, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(out_width, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, grid², in_width)` patches to `(B, (grid / scale_factor)², out_width)`."""
        return self.as_products(x) if x.is_cuda else self.as_convolution(x)

    def as_convolution(self, x: Tensor) -> Tensor:
        """Compute `forward` through torch's own convolution and pooling."""
        image = x.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)  # a channels-last view, no copy
        x = self.norm(self.convolution(image).permute(0, 2, 3, 1))
        return F.max_pool2d(x.permute(0, 3, 1, 2), self.scale_factor).permute(0, 2, 3, 1).flatten(1, 2)

    def as_products(self, x: Tensor) -> Tensor:
        """Compute `forward` through one matrix product and a reduction."""
        padded = F.pad(x.unflatten(1, (self.grid, self.grid)), (0, 0, 1, 1, 1, 1))
        # Windows, rather than nine shifted copies: their gradient is summed in two passes.
        windows = padded.unfold(1, 3, 1).unfold(2, 3, 1).flatten(1, 2).flatten(2)
        x = self.norm(F.linear(windows, self.convolution.weight.flatten(1), self.convolution.bias))
        side, factor = self.grid // self.scale_factor, self.scale_factor
        return x.unflatten(1, (side, factor, side, factor)).amax(dim=(2, 4)).flatten(1, 2)


def _two_layers(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, width, bias=False)
    )
