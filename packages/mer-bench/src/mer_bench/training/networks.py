"""Networks of some folds behind one interface, the fold axis in front: one network, or many stacked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mer_bench.recipe import Recipe
from mer_bench.training.contrast import LastLinear
from mer_bench.training.demands import meet_recipe
from mer_bench.training.device import device_of
from mer_bench.training.failures import is_out_of_memory
from mer_bench.training.graphs import Graphs
from mer_bench.training.job import Job
from mer_bench.training.layers import FoldDropout
from mer_bench.training.network import build_network, fold_generators, training_output
from mer_bench.training.optim import check_layer_depths
from mer_bench.training.seeding import DROPOUT, stream_key


class Networks(ABC):
    """One network per fold, trained and asked together.

    Args:
        network: What they are built like.
        seeds: One per fold.
        recipe: How they are trained.

    Attributes:
        device: Where they are.
        seeds: `(F,)` int64.
        depths: Depth of each trained parameter's layer; empty where the recipe makes no difference.
        channels_last: Whether maps should lie channels-last in memory.
    """

    channels_last = False

    def __init__(self, network: nn.Module, seeds: Sequence[int], recipe: Recipe) -> None:
        self._network = network
        self.device = next(network.parameters()).device
        self.seeds = torch.tensor(seeds, device=self.device)
        meet_recipe(network, recipe)
        self.depths = check_layer_depths(network, recipe)
        layers = [(name, m) for name, m in network.named_modules() if isinstance(m, FoldDropout)]
        # A layer's stream is its place among all dropout layers, whether or not they draw.
        drawing = [(number, name, m) for number, (name, m) in enumerate(layers) if m.draws]
        self._dropouts = [(name, m) for _, name, m in drawing]
        self._streams = torch.tensor([number for number, *_ in drawing], device=self.device).view(-1, 1)
        self._last = LastLinear(network) if recipe.supcon else None
        self._average: dict[str, Tensor] = {}

    def _set_dropout(self, step: Tensor) -> None:
        if not self._dropouts:
            return
        keys = stream_key(self.seeds, DROPOUT, self._streams, step)
        for key, (name, layer) in zip(keys, self._dropouts, strict=True):
            self._set_key(name, layer, key)
            layer.calls = 0

    @abstractmethod
    def _set_key(self, name: str, layer: FoldDropout, key: Tensor) -> None: ...

    def begin_average(self) -> None:
        """Start the moving averages that predict from now on, at the networks as they are."""
        self._average = {name: tensor.detach().clone() for name, tensor in self._moving().items()}

    @torch.no_grad()
    def follow(self, decay: Tensor) -> None:
        """Move the averages towards the networks, keeping `decay`, a scalar, of what they were."""
        for name, tensor in self._moving().items():
            self._average[name].lerp_(tensor, 1.0 - decay)

    @torch.no_grad()
    def adopt_average(self) -> None:
        """Give the networks their averages, where there are some."""
        for name, tensor in self._moving().items():
            if self._average:
                tensor.copy_(self._average[name])

    def _moving(self) -> dict[str, Tensor]:
        """Return what training changes: weights, and running statistics."""
        statistics = {
            name: tensor
            for name, tensor in self._held().items()
            if tensor.is_floating_point() and name.rpartition(".")[2] != "row_weight"
        }
        return self.trainable() | statistics

    @abstractmethod
    def _held(self) -> dict[str, Tensor]:
        """Return the buffers by name."""

    @abstractmethod
    def trainable(self) -> dict[str, Tensor]:
        """Return the leaf tensors that an optimiser updates, by name."""

    @abstractmethod
    def gradients(self) -> list[Tensor]:
        """Return the gradients there are, each `(F, ...)`; changed in place, the networks' own change."""

    @abstractmethod
    def train_forward(
        self, maps: Tensor, labels: Tensor, weights: Tensor | None, step: Tensor, progress: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run every network on its batch, in training mode; running statistics are updated.

        Args:
            maps: `(F, B, C, H, W)` float32.
            labels: `(F, B)` int64.
            weights: `(F, B)` float32, 0 for padding; None where nothing is padded.
            step: int64 scalar, optimiser steps already taken.
            progress: float32 scalar, epochs done by the epochs of the training.

        Returns:
            `(F, B, classes)` logits; the networks' penalties `(F, B)` where they give some; what their last
            linear layers read, `(F, B, D)`, where the recipe contrasts it.
        """

    @abstractmethod
    def predict(self, maps: Tensor) -> Tensor:
        """Return `(F, M, classes)` logits for maps `(F, M, C, H, W)`, in evaluation mode.

        They are those of the moving averages once these were begun.
        """


class OneNetwork(Networks):
    """One network, run as it is.

    Args:
        network: Made by `build_network`.
        seed: The fold's.
        recipe: How it is trained.
    """

    def __init__(self, network: nn.Module, seed: int, recipe: Recipe) -> None:
        super().__init__(network, [seed], recipe)
        self._parameters: dict[str, Tensor] = {
            name: p for name, p in network.named_parameters() if p.requires_grad
        }
        # A network that runs faster so on a CPU says it.
        self.channels_last = self.device.type == "cpu" and bool(getattr(network, "channels_last", False))

    def _set_key(self, name: str, layer: FoldDropout, key: Tensor) -> None:
        layer.key.copy_(key[0])

    def _held(self) -> dict[str, Tensor]:
        return dict(self._network.named_buffers())

    def trainable(self) -> dict[str, Tensor]:
        """Return the network's own parameters."""
        return self._parameters

    def gradients(self) -> list[Tensor]:
        """Return views of them with a fold axis."""
        return [p.grad.unsqueeze(0) for p in self._parameters.values() if p.grad is not None]

    def train_forward(
        self, maps: Tensor, labels: Tensor, weights: Tensor | None, step: Tensor, progress: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the network on the only batch."""
        self._network.train()
        self._set_dropout(step)
        output = training_output(self._network, self._in_order(maps), labels[0], progress)
        logits, penalty = (output, None) if isinstance(output, Tensor) else output
        features = self._last.take().unsqueeze(0) if self._last else None
        return logits.unsqueeze(0), None if penalty is None else penalty.unsqueeze(0), features

    @torch.no_grad()
    def predict(self, maps: Tensor) -> Tensor:
        """Run the network on the only fold's maps."""
        self._network.eval()
        given = (self._in_order(maps),)
        logits: Tensor = (
            functional_call(self._network, self._average, given) if self._average else self._network(*given)
        )
        return logits.unsqueeze(0)

    def _in_order(self, maps: Tensor) -> Tensor:
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return maps[0].contiguous(memory_format=order)


class StackedNetworks(Networks):
    """Networks stacked along the fold axis, each built from its own seed as alone, run by one vmapped pass.

    Attention is computed as plain products: fused attention is a loop over folds to vmap on a CPU, and gains
    nothing for the few patches of a flow map.

    Args:
        job: The training.
        seeds: One per fold.
        shape: `(C, H, W)` of the maps.
        graphs: Told if the networks cannot be compiled.

    Attributes:
        parameters: Name to `(F, ...)` leaf tensor, those to be trained requiring a gradient.
        buffers: Name to `(F, ...)` tensor.
    """

    def __init__(
        self, job: Job, seeds: Sequence[int], shape: tuple[int, int, int], graphs: Graphs | None = None
    ) -> None:
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        device = device_of(job)
        for place, seed in enumerate(seeds):
            with fold_generators(seed, device):
                network = build_network(job.spec, job.options, len(job.classes), shape, device, stacked=True)
            # Copied in one after the other: a second copy of all weights would not fit where this does.
            for stack, tensors in (
                (self.parameters, network.named_parameters()),
                (self.buffers, network.named_buffers()),
            ):
                for name, tensor in tensors:
                    if place == 0:
                        stack[name] = tensor.new_empty((len(seeds), *tensor.shape))
                    stack[name][place] = tensor.detach()
            if place == 0:
                first = network
        super().__init__(first, seeds, job.network_recipe)
        for name, parameter in first.named_parameters():
            self.parameters[name].requires_grad_(parameter.requires_grad)
        # Batch normalisation, and a network's own running statistics, must know of padded rows.
        self._weighing = [name for name in self.buffers if name.rpartition(".")[2] == "row_weight"]
        self._graphs = graphs or Graphs()
        self._forward = vmap(self._one, in_dims=(0, 0, 0), randomness="different")
        self._in_training = _InTraining(first, self._last)
        self._forward_training: Callable[..., Any] = vmap(
            self._one_training, in_dims=(0, 0, 0, 0, None), randomness="different"
        )
        self._compiled: Callable[..., Any] | None = None
        if job.training.compile:
            # What earlier chunks compiled counts towards a limit, and none of it fits this one.
            torch.compiler.reset()
            self._compiled = torch.compile(self._forward_training, fullgraph=True, dynamic=False)

    def _set_key(self, name: str, layer: FoldDropout, key: Tensor) -> None:
        self.buffers[f"{name}.key".removeprefix(".")] = key

    def _held(self) -> dict[str, Tensor]:
        return self.buffers

    def trainable(self) -> dict[str, Tensor]:
        """Return the stacked parameters."""
        return {name: p for name, p in self.parameters.items() if p.requires_grad}

    def gradients(self) -> list[Tensor]:
        """Return those of the stacked parameters."""
        return [p.grad for p in self.trainable().values() if p.grad is not None]

    def train_forward(
        self, maps: Tensor, labels: Tensor, weights: Tensor | None, step: Tensor, progress: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the networks in one pass."""
        self._network.train()
        self._set_dropout(step)
        if weights is not None:
            self.buffers.update(dict.fromkeys(self._weighing, weights))
        with sdpa_kernel(SDPBackend.MATH):
            output = self._run_training(self.parameters, self.buffers, maps, labels, progress)
        logits, penalty, features = (*((output,) if isinstance(output, Tensor) else output), None, None)[:3]
        return logits, penalty, features

    def _run_training(self, *arguments: Any) -> Any:
        if self._compiled is not None:
            try:
                return self._compiled(*arguments)
            except Exception as error:  # a compiler has many ways to fail; the networks run without it
                if is_out_of_memory(error):
                    raise
                first = str(error).strip().partition("\n")[0]
                self._graphs.note(
                    f"the network could not be compiled ({type(error).__name__}: {first}); it ran as written"
                )
                self._compiled = None
        return self._forward_training(*arguments)

    @torch.no_grad()
    def predict(self, maps: Tensor) -> Tensor:
        """Run the networks in one pass."""
        self._network.eval()
        parameters, buffers = (
            {name: self._average.get(name, tensor) for name, tensor in tensors.items()}
            for tensors in (self.parameters, self.buffers)
        )
        with sdpa_kernel(SDPBackend.MATH):
            return self._forward(parameters, buffers, maps)

    def _one(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], maps: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._network, (parameters, buffers), (maps,))
        return logits

    def _one_training(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], *given: Tensor) -> Any:
        tensors = {f"network.{name}": t for name, t in (parameters | buffers).items()}
        return functional_call(self._in_training, tensors, given)


class _InTraining(nn.Module):
    """A network called as in training, so that the call can be made functional."""

    def __init__(self, network: nn.Module, last: LastLinear | None) -> None:
        super().__init__()
        self.network, self._last = network, last

    def forward(self, maps: Tensor, labels: Tensor, progress: Tensor) -> Tensor | tuple[Tensor, ...]:
        output = training_output(self.network, maps, labels, progress)
        if self._last is None:
            return output
        # Under `vmap` nothing may be None.
        logits, penalty = (output, output.new_zeros(len(output))) if isinstance(output, Tensor) else output
        return logits, penalty, self._last.take()
