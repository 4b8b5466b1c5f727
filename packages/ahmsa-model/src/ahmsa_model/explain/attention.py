"""Who attends to whom: the softmax of every head, block and level."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ahmsa_model.layers import SpatialAttention
from ahmsa_model.network import Hierarchy


def attention_maps(network: Hierarchy, maps: np.ndarray) -> list[np.ndarray]:
    """Compute the attention between patches.

    Args:
        network: In evaluation mode.
        maps: `(B, C, N, N)` float32, as the network reads them.

    Returns:
        Per level `(B, blocks, heads, patches, patches)` float32: row, the patch that attends; column, the
        patch attended to; each row sums to 1. Where a patch attends to itself alone it is the identity.
    """
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, SpatialAttention)
        found[module] = module.weights(inputs[0])

    blocks = [[block.spatial for block in level.blocks] for level in network.levels]  # type: ignore[union-attr]
    hooks = [module.register_forward_pre_hook(keep) for level in blocks for module in level]
    try:
        with torch.inference_mode():
            network(torch.from_numpy(maps).to(next(network.parameters())))
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.stack([found[module] for module in level], 1).float().cpu().numpy() for level in blocks]


def received(attention: np.ndarray) -> np.ndarray:
    """Return what each patch is given on average, `(blocks, heads, side, side)`, of one sample's level.

    Args:
        attention: `(blocks, heads, patches, patches)`, as of `attention_maps`.
    """
    side = round(attention.shape[-1] ** 0.5)
    return attention.mean(axis=-2).reshape(*attention.shape[:2], side, side)
