"""The whole network, from a flow map to class scores."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from ahmsa_model.config import AHMSAConfig, variant_config
from ahmsa_model.errors import InputError
from ahmsa_model.layers import (
    AdaptiveDownsampling,
    MultiScaleAttentionBlock,
    PatchEmbedding,
    SpatialAttention,
)


class Level(nn.Module):
    """One level of the hierarchy: a positional embedding and its multi-scale attention blocks."""

    def __init__(self, config: AHMSAConfig, level: int) -> None:
        super().__init__()
        patches, width = config.grids[level] ** 2, config.widths[level]
        self.position = nn.Parameter(torch.zeros(patches, width)) if config.positional_embedding else None
        self.blocks = nn.ModuleList(
            MultiScaleAttentionBlock(config, level) for _ in range(config.blocks[level])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, N, C)` patches to `(B, N, C)`."""
        if self.position is not None:
            x = x + self.position
        for block in self.blocks:
            x = block(x)
        return x


class Hierarchy(nn.Module):
    """Adaptive Hierarchical Multi-Scale Attention Network (arXiv 2501.02539), reconstructed from its text.

    Patches are embedded, pass `levels` levels of multi-scale attention with adaptive downsampling between,
    end as one patch, and a head classifies it. `AHMSAConfig` tells which choices the paper leaves open.
    Shapes are static and nothing branches on data, so `torch.compile`, `torch.func.vmap` and autocast can
    take it. `ahmsa_model.AHMSANet` can be saved and loaded too.
    """

    def __init__(self, config: AHMSAConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AHMSAConfig()
        widths, grids = config.widths, config.grids
        self.embedding = PatchEmbedding(config.in_channels, config.patch_size, config.width)
        self.levels = nn.ModuleList(Level(config, level) for level in range(config.levels))
        self.downsamplings = nn.ModuleList(
            AdaptiveDownsampling(
                widths[level], widths[level + 1], grids[level], config.scale_factor, config.norm_eps
            )
            for level in range(config.levels - 1)
        )
        self.head = _head(config)

    @classmethod
    def from_variant(cls, name: str, **options: Any) -> Self:
        """Build a named variant; arguments and errors as those of `variant_config`."""
        return cls(variant_config(name, **options))

    def forward(self, maps: Tensor) -> Tensor:
        """Score flow maps, normalised as in training.

        Args:
            maps: `(B, in_channels, map_size, map_size)` float; channels u, v, strain.

        Returns:
            `(B, num_classes)` logits.

        Raises:
            InputError: The maps are not of the network's shape.
        """
        channels, side = self.config.in_channels, self.config.map_size
        if maps.ndim != 4 or tuple(maps.shape[1:]) != (channels, side, side):
            raise InputError(
                f"AHMSA-Net takes maps of shape (batch, {channels}, {side}, {side}), got {tuple(maps.shape)};"
                " read another view, or build the network for that shape (map_size, in_channels)"
            )
        x = self.embedding(maps)
        x = self.levels[0](x)
        for downsampling, level in zip(self.downsamplings, self.levels[1:], strict=True):
            x = level(downsampling(x))
        return self.head(x.squeeze(1))

    def untrained_parameters(self) -> tuple[str, ...]:
        """Name the parameters whose gradient is zero whatever the data, in the order of `named_parameters()`.

        These are Q and K where a patch attends to itself alone: at the top level, and everywhere with
        `attention="block"`. They belong to the published architecture, so they are kept and counted; an
        optimiser may skip them, and with decoupled weight decay should.
        """
        return tuple(
            f"{name}.query_key.weight"
            for name, module in self.named_modules()
            if isinstance(module, SpatialAttention) and module.alone
        )


def _head(config: AHMSAConfig) -> nn.Sequential:
    width, hidden = config.widths[-1], config.head_hidden
    norm = nn.LayerNorm(width, eps=config.norm_eps)
    if not hidden:
        return nn.Sequential(norm, nn.Linear(width, config.num_classes))
    return nn.Sequential(norm, nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, config.num_classes))
