"""AHMSANet: the whole network, from a flow map to class scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ahmsa_model.config import AHMSAConfig, variant_config
from ahmsa_model.errors import InputError
from ahmsa_model.layers import (
    AdaptiveDownsampling,
    ChannelAttention,
    FeedForward,
    MultiScaleAttentionBlock,
    PatchEmbedding,
    SpatialAttention,
)

if TYPE_CHECKING:
    from ahmsa_model.checkpoint import CheckpointMetadata


class Level(nn.Module):
    """One level of the hierarchy: a positional embedding and its multi-scale attention blocks.

    Args:
        config: The network's options.
        level: Which level, 0 the finest.
    """

    def __init__(self, config: AHMSAConfig, level: int) -> None:
        super().__init__()
        patches, width = config.grids[level] ** 2, config.widths[level]
        self.position = nn.Parameter(torch.zeros(patches, width)) if config.positional_embedding else None
        self.blocks = nn.ModuleList(_block(config, level) for _ in range(config.blocks[level]))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, N, C)` patches to `(B, N, C)`."""
        if self.position is not None:
            x = x + self.position
        for block in self.blocks:
            x = block(x)
        return x


class AHMSANet(nn.Module):
    """Adaptive Hierarchical Multi-Scale Attention Network (arXiv 2501.02539), reconstructed from its text.

    Patches are embedded, pass `levels` levels of multi-scale attention with adaptive downsampling between,
    end as one patch, and a head classifies it. `AHMSAConfig` tells which choices the paper leaves open.
    Shapes are static and nothing branches on data, so `torch.compile`, `torch.func.vmap` and autocast can
    take it.

    Args:
        config: The options; the paper's by default.
        generator: Draws the initial weights (on the CPU); None draws them from torch's global generator.

    >>> network = AHMSANet(variant_config("tiny"))
    >>> network(torch.zeros(2, 3, 28, 28)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self, config: AHMSAConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config = AHMSAConfig() if config is None else config
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
        if generator is not None:
            self.reset_parameters(generator)

    @classmethod
    def from_variant(cls, name: str, *, generator: torch.Generator | None = None, **options: Any) -> AHMSANet:
        """Builds a named variant.

        Args:
            name: A key of `ahmsa_model.VARIANTS`.
            generator: Draws the initial weights; None draws them from torch's global generator.
            **options: Options that override the variant's.

        Returns:
            The network, freshly initialised.

        Raises:
            ConfigError: The variant or an option is unknown, or a value is wrong.
        """
        return cls(variant_config(name, **options), generator=generator)

    def forward(self, maps: Tensor) -> Tensor:
        """Scores flow maps.

        Args:
            maps: `(B, in_channels, map_size, map_size)` float; channels u, v, strain, normalised as in
                training.

        Returns:
            `(B, num_classes)` logits.

        Raises:
            InputError: The maps are not of the network's shape.
        """
        config = self.config
        expected = (config.in_channels, config.map_size, config.map_size)
        if maps.ndim != 4 or tuple(maps.shape[1:]) != expected:
            raise InputError(
                f"AHMSA-Net takes maps of shape (batch, {expected[0]}, {expected[1]}, {expected[2]}), got "
                f"{tuple(maps.shape)}; read another view, or build the network for that shape "
                "(map_size, in_channels)"
            )
        x = self.embedding(maps)
        x = self.levels[0](x)
        for downsampling, level in zip(self.downsamplings, self.levels[1:], strict=True):
            x = level(downsampling(x))
        return self.head(x.squeeze(1))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draws every weight anew, in the order and from the distributions of torch's own layers.

        Args:
            generator: The source of randomness, on the parameters' device.
        """
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                # torch's default: Kaiming uniform with a = sqrt(5) is the bound 1 / sqrt(fan_in) for both.
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                if module.bias is not None:
                    nn.init.uniform_(module.bias, -bound, bound, generator=generator)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, Level) and module.position is not None:
                nn.init.zeros_(module.position)

    def save_pretrained(
        self, folder: Path | str, metadata: CheckpointMetadata | Mapping[str, Any] | None = None
    ) -> Path:
        """Writes a checkpoint folder; see `ahmsa_model.checkpoint.save_pretrained`."""
        from ahmsa_model.checkpoint import save_pretrained

        return save_pretrained(self, folder, metadata)

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: torch.device | str = "cpu") -> AHMSANet:
        """Reads the network of a checkpoint folder; see `ahmsa_model.checkpoint.from_pretrained`."""
        from ahmsa_model.checkpoint import from_pretrained

        return from_pretrained(folder, device).network

    def untrained_parameters(self) -> tuple[str, ...]:
        """Names the parameters whose gradient is zero whatever the data.

        These are Q and K where a patch attends to itself alone: at the top level, and everywhere with
        `attention="block"`. They belong to the published architecture, so they are kept and counted; an
        optimiser may skip them, and with decoupled weight decay should.

        Returns:
            Names as in `named_parameters()`, in its order.
        """
        return tuple(
            f"{name}.query_key.weight"
            for name, module in self.named_modules()
            if isinstance(module, SpatialAttention) and module.alone
        )


def count_parameters(config: AHMSAConfig) -> int:
    """Counts the parameters of a network without allocating it.

    Args:
        config: The network's options.

    Returns:
        The number of trainable values.

    >>> count_parameters(variant_config("tiny")) < count_parameters(variant_config("small"))
    True
    """
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in AHMSANet(config).parameters())


def _block(config: AHMSAConfig, level: int) -> MultiScaleAttentionBlock:
    width, patches = config.widths[level], config.grids[level] ** 2
    channel = None
    if config.channel_attention != "none":
        shared = config.channel_attention == "shared"
        channel = ChannelAttention(width, config.channel_reduction, shared, patches)
    alone = patches == 1 or config.attention == "block"
    spatial = SpatialAttention(width, config.level_heads[level], config.head_width, config.dropout, alone)
    feed_forward = FeedForward(width, config.feed_forward_expansion, config.dropout)
    return MultiScaleAttentionBlock(channel, spatial, feed_forward, width, config.residual, config.norm_eps)


def _head(config: AHMSAConfig) -> nn.Sequential:
    width = config.widths[-1]
    norm = nn.LayerNorm(width, eps=config.norm_eps)
    if not config.head_hidden:
        return nn.Sequential(norm, nn.Linear(width, config.num_classes))
    return nn.Sequential(
        norm,
        nn.Linear(width, config.head_hidden),
        nn.GELU(),
        nn.Linear(config.head_hidden, config.num_classes),
    )
