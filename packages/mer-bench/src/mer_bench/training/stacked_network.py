"""Networks of many folds as one: tensors stacked along a fold axis, one vmapped pass for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mer_bench.training.demands import meet_recipe
from mer_bench.training.engines.graphs import GraphNotes
from mer_bench.training.network import (
    build_network,
    dropout_keys,
    dropout_layers,
    fold_generators,
    training_output,
)
from mer_bench.training.optim import check_layer_depths
from mer_bench.training.plan import Plan, is_out_of_memory


class StackedNetwork:
    """One network per fold, each built from its own seed as it would be alone.

    Attention is computed as plain products: fused attention is a loop over folds to vmap on a CPU, and gains
    nothing for the few patches of a flow map.

    Args:
        plan: The run's training.
        seeds: One per fold.
        sample_shape: `(C, H, W)` of the maps.
        device: Where they are.
        notes: Where it is noted that the network could not be compiled.

    Attributes:
        parameters: Name to `(F, ...)` leaf tensor, those to be trained requiring a gradient.
        buffers: Name to `(F, ...)` tensor.
    """

    def __init__(
        self,
        plan: Plan,
        seeds: Sequence[int],
        sample_shape: tuple[int, int, int],
        device: torch.device,
        notes: GraphNotes | None = None,
    ) -> None:
        self._notes = notes or GraphNotes()
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
        self._dropouts = dropout_layers(self._template)
        self._streams = torch.tensor([n for n, _ in self._dropouts.values()], device=device)
        # Batch normalisation, and a network's own running statistics, must know of padded rows.
        self._weighing = [name for name, m in modules if "row_weight" in m._buffers]
        meet_recipe(self._template, plan.recipe)
        self._depths = check_layer_depths(self._template, plan.recipe)
        self._forward = vmap(self._one, in_dims=(0, 0, 0), randomness="different")
        self._in_training = _InTraining(self._template)
        self._forward_training = vmap(self._one_training, in_dims=(0, 0, 0, 0, None), randomness="different")
        self._compiled: Callable[..., Tensor | tuple[Tensor, Tensor]] | None = None
        if plan.compiled:
            # What earlier chunks compiled counts towards a limit, and none of it fits this one.
            torch._dynamo.reset()
            self._compiled = torch.compile(self._forward_training, fullgraph=True, dynamic=False)

    def trainable(self) -> dict[str, Tensor]:
        """The stacked tensors that an optimiser updates.

        Returns:
            Name to `(F, ...)` leaf tensor.
        """
        return {name: p for name, p in self.parameters.items() if p.requires_grad}

    def depths(self) -> dict[str, int]:
        """The depth of each trained parameter's layer.

        Returns:
            Depth by name; empty where the recipe makes no difference between layers.
        """
        return self._depths

    def train_forward(
        self, maps: Tensor, labels: Tensor, weights: Tensor, step: Tensor, progress: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Run every fold's network on its batch, in training mode; running statistics are updated.

        Args:
            maps: `(F, B, C, H, W)` float32.
            labels: `(F, B)` int64.
            weights: `(F, B)` float32, 0 for padding.
            step: int64 scalar, optimiser steps already taken.
            progress: float32 scalar, epochs done by the epochs of the training.

        Returns:
            `(F, B, classes)` logits, and the network's penalty `(F, B)` where it gives one.
        """
        self._template.train()
        if self._dropouts:
            keys = dropout_keys(self.seeds, self._streams, step)
            for key, (name, (_, dropout)) in zip(keys, self._dropouts.items(), strict=True):
                self.buffers[_join(name, "key")] = key
                dropout.calls = 0
        for name in self._weighing:
            self.buffers[_join(name, "row_weight")] = weights
        with sdpa_kernel(SDPBackend.MATH):
            output = self._run_training(self.parameters, self.buffers, maps, labels, progress)
        return (output, None) if isinstance(output, Tensor) else output

    def _run_training(self, *arguments: Any) -> Tensor | tuple[Tensor, Tensor]:
        if self._compiled is not None:
            try:
                return self._compiled(*arguments)
            except Exception as error:  # a compiler has many ways to fail; the network runs without it
                if is_out_of_memory(error):
                    raise
                first = str(error).strip().partition("\n")[0]
                self._notes.add(
                    f"the network could not be compiled ({type(error).__name__}: {first}); it ran as written"
                )
                self._compiled = None
        return self._forward_training(*arguments)

    @torch.no_grad()
    def predict(self, maps: Tensor) -> Tensor:
        """Run every fold's network on its maps, in evaluation mode.

        Args:
            maps: `(F, M, C, H, W)` float32.

        Returns:
            `(F, M, classes)` logits.
        """
        self._template.eval()
        with sdpa_kernel(SDPBackend.MATH):
            return self._forward(self.parameters, self.buffers, maps)

    def _one(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], maps: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._template, (parameters, buffers), (maps,))
        return logits

    def _one_training(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        maps: Tensor,
        labels: Tensor,
        progress: Tensor,
    ) -> Tensor | tuple[Tensor, Tensor]:
        tensors = {f"network.{name}": t for name, t in (parameters | buffers).items()}
        output: Tensor | tuple[Tensor, Tensor] = functional_call(
            self._in_training, tensors, (maps, labels, progress)
        )
        return output


class _InTraining(nn.Module):
    """A network called as in training, so that the call can be made functional."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: Tensor, labels: Tensor, progress: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return training_output(self.network, maps, labels, progress)


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
            output = training_output(
                network,
                torch.zeros(batch, *sample_shape, device=device),
                torch.zeros(batch, dtype=torch.int64, device=device),
                torch.zeros((), device=device),
            )
        sizes.append(sum(kept.values()))
        del output
    return max(0.0, (sizes[1] - sizes[0]) / 2)
