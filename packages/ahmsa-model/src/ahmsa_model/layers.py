"""The parts of AHMSA-Net, on patches laid out as (batch, patches, channels).

A 1×1 convolution over patches is a linear layer over the last axis: the same function, the same weights, the
same initialisation. Channels last make it one matrix product, LayerNorm contiguous, and a stack of folds a
batched product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Cuts the map into square patches and projects each; equals a convolution with stride `patch_size`.

    Args:
        in_channels: Channels of the map.
        patch_size: Side of a patch, pixels.
        width: Channels of an embedded patch.
    """

    def __init__(self, in_channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Linear(in_channels * patch_size**2, width)

    def forward(self, maps: Tensor) -> Tensor:
        """Embeds `(B, C, H, W)` maps as `(B, N, width)` patches, row by row."""
        batch, channels, height, width = maps.shape
        side = self.patch_size
        patches = maps.reshape(batch, channels, height // side, side, width // side, side)
        # Channel, row, column within a patch: the order of a Conv2d weight.
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)
        return self.projection(patches)


class ChannelAttention(nn.Module):
    """Weights each channel by what all patches hold of it (paper §3.4).

    `sigmoid(M(mean over patches) + M(max over patches)) * x`, M two layers with ReLU between, without bias as
    in CBAM.

    Args:
        width: Channels C.
        reduction: The hidden layer has `max(1, C // reduction)` units.
        shared: One M for both pooled vectors, or one each.
        patches: Patches N. With one, mean and max are the same vector.
    """

    def __init__(self, width: int, reduction: int, shared: bool, patches: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.one_patch = patches == 1
        self.network = _two_layers(width, hidden)
        self.max_network = None if shared else _two_layers(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `(B, N, C)` patches, each channel weighted."""
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
    values and
    output: Q and K are then left out of the computation, but kept as parameters, so that a network's size and
    checkpoint do not depend on it. Their gradient is zero whatever the data (plain autograd leaves it None).

    Args:
        width: Channels C.
        heads: Heads h.
        head_width: Channels d of a head; `h * d` need not equal C.
        dropout: After the output layer.
        alone: Whether each patch attends to itself alone.
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
        """Returns `(B, N, C)` patches, each a mixture of the patches it attends to."""
        value = self.value(x)
        if not self.alone:
            query, key = self.query_key(x).chunk(2, dim=-1)
            mixed = F.scaled_dot_product_attention(self._split(query), self._split(key), self._split(value))
            value = mixed.transpose(1, 2).flatten(2)
        return self.dropout(self.output(value))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two layers with GELU between, on every patch alike (paper §3.4).

    Args:
        width: Channels C.
        expansion: The hidden layer has `C * expansion` units.
        dropout: After each layer.
    """

    def __init__(self, width: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, width * expansion)
        self.contract = nn.Linear(width * expansion, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, N, C)` patches to `(B, N, C)`."""
        return self.dropout(self.contract(self.dropout(F.gelu(self.expand(x)))))


class MultiScaleAttentionBlock(nn.Module):
    """Channel attention, spatial attention, feed-forward: each on LayerNorm of its input (paper §3.4).

    Args:
        channel: The channel attention, or None to leave it out.
        spatial: The spatial attention.
        feed_forward: The feed-forward module.
        width: Channels C.
        residual: Whether each module's output is added to its input.
        norm_eps: Epsilon of the norms.
    """

    def __init__(
        self,
        channel: ChannelAttention | None,
        spatial: SpatialAttention,
        feed_forward: FeedForward,
        width: int,
        residual: bool,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.channel_norm = None if channel is None else nn.LayerNorm(width, eps=norm_eps)
        self.channel = channel
        self.spatial_norm = nn.LayerNorm(width, eps=norm_eps)
        self.spatial = spatial
        self.feed_forward_norm = nn.LayerNorm(width, eps=norm_eps)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, N, C)` patches to `(B, N, C)`."""
        if self.channel is not None and self.channel_norm is not None:
            x = self._join(x, self.channel(self.channel_norm(x)))
        x = self._join(x, self.spatial(self.spatial_norm(x)))
        return self._join(x, self.feed_forward(self.feed_forward_norm(x)))

    def _join(self, x: Tensor, change: Tensor) -> Tensor:
        return x + change if self.residual else change


class AdaptiveDownsampling(nn.Module):
    """3×3 convolution, LayerNorm, adaptive max pooling (paper eq. 2).

    Args:
        in_width: Channels before.
        out_width: Channels after.
        grid: Patches along one side before.
        scale_factor: How much fewer after; it divides `grid`, so that the adaptive windows are its squares.
        norm_eps: Epsilon of the norm.
    """

    def __init__(self, in_width: int, out_width: int, grid: int, scale_factor: int, norm_eps: float) -> None:
        super().__init__()
        self.grid = grid
        self.scale_factor = scale_factor
        self.convolution = nn.Conv2d(in_width, out_width, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(out_width, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, grid², in_width)` patches to `(B, (grid / scale_factor)², out_width)`."""
        weight, bias = self.convolution.weight, self.convolution.bias
        if x.is_cuda:
            x = self.norm(convolve_by_product(x, weight, bias, self.grid))
            return pool_by_reduction(x, self.grid, self.scale_factor)
        x = self.norm(convolve_patches(x, weight, bias, self.grid))
        return pool_patches(x, self.grid, self.scale_factor)


def convolve_patches(x: Tensor, weight: Tensor, bias: Tensor | None, grid: int) -> Tensor:
    """Convolves a square grid of patches with a 3×3 kernel, zeros around.

    Args:
        x: `(B, grid², C)` patches, row by row.
        weight: `(O, C, 3, 3)` kernel.
        bias: `(O,)`, or None.
        grid: Patches along one side.

    Returns:
        `(B, grid², O)` patches.
    """
    image = x.unflatten(1, (grid, grid)).permute(0, 3, 1, 2)  # a channels-last view, no copy
    return F.conv2d(image, weight, bias, padding=1).permute(0, 2, 3, 1).flatten(1, 2)


def convolve_by_product(x: Tensor, weight: Tensor, bias: Tensor | None, grid: int) -> Tensor:
    """Computes what `convolve_patches` does as one matrix product over gathered neighbours.

    For CUDA: under `torch.func.vmap` a stack of folds becomes a batched product, where `conv2d` would become
    a grouped convolution. On a CPU `conv2d` is the faster.

    Args:
        x: `(B, grid², C)` patches, row by row.
        weight: `(O, C, 3, 3)` kernel.
        bias: `(O,)`, or None.
        grid: Patches along one side.

    Returns:
        `(B, grid², O)` patches.
    """
    padded = F.pad(x.unflatten(1, (grid, grid)), (0, 0, 1, 1, 1, 1))
    # Windows, rather than nine shifted copies: their gradient is summed in two passes.
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1)
    return F.linear(windows.flatten(1, 2).flatten(2), weight.flatten(1), bias)


def pool_patches(x: Tensor, grid: int, scale_factor: int) -> Tensor:
    """Takes the largest of each channel in squares of patches.

    Args:
        x: `(B, grid², C)` patches, row by row.
        grid: Patches along one side; a multiple of `scale_factor`.
        scale_factor: Side of a square, patches.

    Returns:
        `(B, (grid / scale_factor)², C)` patches.
    """
    image = x.unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    return F.max_pool2d(image, scale_factor).permute(0, 2, 3, 1).flatten(1, 2)


def pool_by_reduction(x: Tensor, grid: int, scale_factor: int) -> Tensor:
    """Computes what `pool_patches` does as a reduction, whose gradient is deterministic on CUDA.

    Where patches tie for the largest, they share the gradient; `pool_patches` gives it to the first.

    Args:
        x: `(B, grid², C)` patches, row by row.
        grid: Patches along one side; a multiple of `scale_factor`.
        scale_factor: Side of a square, patches.

    Returns:
        `(B, (grid / scale_factor)², C)` patches.
    """
    side = grid // scale_factor
    return x.unflatten(1, (side, scale_factor, side, scale_factor)).amax(dim=(2, 4)).flatten(1, 2)


def _two_layers(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, width, bias=False)
    )
