"""Networks of many folds as one: tensors stacked along a fold axis, one vmapped pass for all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mer_bench.training.layers import FoldDropout, MaskedBatchNorm
from mer_bench.training.network import build_network, dropout_key, fold_generators
from mer_bench.training.plan import Plan


class StackedNetwork:
    """One network per fold, each built from its own seed as it would be alone.

    Args:
        plan: The run's training.
        seeds: One per fold.
        sample_shape: `(C, H, W)` of the maps.
        device: Where they are.

    Attributes:
        parameters: Name to `(F, ...)` leaf tensor, those to be trained requiring a gradient.
        buffers: Name to `(F, ...)` tensor.
    """

    def __init__(
        self, plan: Plan, seeds: Sequence[int], sample_shape: tuple[int, int, int], device: torch.device
    ) -> None:
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        self.seeds = torch.tensor(seeds, device=device)
        for place, seed in enumerate(seeds):
            with fold_generators(seed, device):
                network = build_network(
                    plan.spec, plan.options, plan.num_classes, sample_shape, device, stacked=True
                )
            # Copied in one after the other: a second copy of every fold's weights would not fit where this
            # does.
            for stack, tensors in (
                (self.parameters, network.named_parameters()),
                (self.buffers, network.named_buffers()),
            ):
                for name, tensor in tensors:
                    if place == 0:
                        stack[name] = tensor.new_empty((len(seeds), *tensor.shape))
                    stack[name][place] = tensor.detach()
            if place == 0:
                self._template = network
        for name, parameter in self._template.named_parameters():
            self.parameters[name].requires_grad_(parameter.requires_grad)
        modules = list(self._template.named_modules())
        self._dropouts = [(name, m) for name, m in modules if isinstance(m, FoldDropout)]
        self._norms = [name for name, m in modules if isinstance(m, MaskedBatchNorm)]
        self._forward = vmap(self._one, in_dims=(0, 0, 0), randomness="different")

    def trainable(self) -> list[Tensor]:
        """The stacked tensors that an optimiser updates.

        Returns:
            `(F, ...)` leaf tensors.
        """
        return [p for p in self.parameters.values() if p.requires_grad]

    def train_forward(self, maps: Tensor, weights: Tensor, step: int) -> Tensor:
        """Run every fold's network on its batch, in training mode; running statistics are updated.

        Args:
            maps: `(F, B, C, H, W)` float32.
            weights: `(F, B)` float32, 0 for padding.
            step: Optimiser steps already taken.

        Returns:
            `(F, B, classes)` logits.
        """
        self._template.train()
        for layer, (name, dropout) in enumerate(self._dropouts):
            self.buffers[_join(name, "key")] = dropout_key(self.seeds, layer, step)
            dropout.calls = 0
        for name in self._norms:
            self.buffers[_join(name, "row_weight")] = weights
        return self._run(maps)

    @torch.no_grad()
    def predict(self, maps: Tensor) -> Tensor:
        """Run every fold's network on its maps, in evaluation mode.

        Args:
            maps: `(F, M, C, H, W)` float32.

        Returns:
            `(F, M, classes)` logits.
        """
        self._template.eval()
        return self._run(maps)

    def _run(self, maps: Tensor) -> Tensor:
        if maps.device.type != "cpu":
            return self._forward(self.parameters, self.buffers, maps)
        # On a CPU vmap knows fused attention only as a loop over folds.
        with sdpa_kernel(SDPBackend.MATH):
            return self._forward(self.parameters, self.buffers, maps)

    def _one(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], maps: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._template, (parameters, buffers), (maps,))
        return logits


def _join(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def activation_bytes(network: nn.Module, sample_shape: tuple[int, int, int], device: torch.device) -> float:
    """Memory that one sample's forward pass keeps for the backward pass.

    Args:
        network: In training mode; its running statistics change, so it must not be used afterwards.
        sample_shape: `(C, H, W)` of the maps.
        device: Where the network is.

    Returns:
        Bytes per sample: the difference between a batch of four and one of two.
    """
    sizes = []
    for batch in (2, 4):
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            # Held until counted, or an address might be used twice.
            logits = network(torch.zeros(batch, *sample_shape, device=device))
        sizes.append(sum(kept.values()))
        del logits
    return max(0.0, (sizes[1] - sizes[0]) / 2)
