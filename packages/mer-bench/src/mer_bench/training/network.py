"""A fold's network: built from the fold's own seed, given the bench's layers, and called as in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from mer_bench.errors import TrainingError, UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.training.layers import replace_layers
from mer_bench.training.seeding import INITIALISATION, stream_key

#: Weight tensors and values at most: several times those of any published model; 8 GB in float32.
MOST_TENSORS, MOST_VALUES = 2_000, 2_000_000_000


@contextmanager
def bounded(most_tensors: int = MOST_TENSORS, most_values: int = MOST_VALUES) -> Iterator[None]:
    """Stop a builder at its first weight beyond the bounds, or without values, before it builds for minutes.

    Args:
        most_tensors: Weights that it may register; a layer that is replaced registers twice.
        most_values: Values in them.

    Raises:
        UsageError: It asks for more, or for a weight without values, as of a layer of width 0.
    """
    tensors = values = 0

    def count(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal tensors, values
        tensors += 1
        if weight is not None and not is_lazy(weight):
            values += weight.numel()
            # A lazy layer is begun with a weight of no values.
            if not weight.numel() and not isinstance(module, LazyModuleMixin):
                raise UsageError(
                    f"its options ask for a {type(module).__name__} without values, {tuple(weight.shape)}; a "
                    "width is too small, or it has fewer channels than heads, groups or parts"
                )
        if tensors > most_tensors or values > most_values:
            raise UsageError(
                f"its options ask for more than {most_tensors:,} weight tensors or {most_values:,} values; "
                "give smaller widths, depths or numbers of blocks"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def fold_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for one fold, and put them back after it.

    Within, initialisation (and any layer that draws from the global generators) is the fold's own.

    Args:
        seed: The fold's.
        device: Its generator is touched beside the CPU's.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(stream_key(torch.tensor(seed), INITIALISATION)) & (2**63 - 1))
        yield


def build_network(
    spec: ModelSpec,
    options: Mapping[str, Any],
    num_classes: int,
    sample_shape: tuple[int, int, int],
    device: torch.device,
    stacked: bool,
) -> nn.Module:
    """Build a network and put the bench's layers into it. Call it within `fold_generators`.

    Args:
        spec: The model.
        options: Passed on to its builder.
        num_classes: Width of the logits.
        sample_shape: `(C, H, W)` of the maps.
        device: Where it is built; its parameters are drawn there.
        stacked: Whether it is going to be stacked with other folds'.

    Returns:
        The network, in training mode.

    Raises:
        TrainingError: The builder gives no network, or one without parameters.
    """
    channels, height, _ = sample_shape
    with torch.device(device):
        network = spec.build(num_classes=num_classes, in_channels=channels, map_size=height, **options)
    if not isinstance(network, nn.Module):
        raise TrainingError(
            f"model '{spec.name}' is registered as a network, but its builder returned "
            f"{type(network).__name__}; return an nn.Module, or register it with kind='classifier'"
        )
    network.to(device).train()
    if not any(p.requires_grad for p in network.parameters()):
        raise TrainingError(
            f"model '{spec.name}' has no parameter to train; register it with kind='classifier'"
        )
    replace_layers(network, stacked)
    return network


def training_output(
    network: nn.Module, maps: Tensor, labels: Tensor, progress: Tensor
) -> Tensor | tuple[Tensor, Tensor]:
    """Run a network on a batch in training mode, handing it what it asks for.

    Args:
        network: In training mode. With a true attribute `trains_with_labels` it is called with all three,
            else with the maps alone.
        maps: `(B, C, H, W)` float32.
        labels: `(B,)` int64.
        progress: float32 scalar, epochs done by the epochs of the training.

    Returns:
        `(B, classes)` logits; where the network gives one, with a penalty `(B,)` float32 that is added to
        each sample's loss.

    Raises:
        ValueError: The network returns anything else.
    """
    asks = getattr(network, "trains_with_labels", False)
    output = network(maps, labels, progress) if asks else network(maps)
    if isinstance(output, Tensor):
        return output
    if not isinstance(output, (tuple, list)) or len(output) != 2:
        raise ValueError(
            f"in training the network returned {type(output).__name__}, expected logits or (logits, penalty)"
        )
    logits, penalty = output
    # A penalty of another shape would spread over the batch unseen.
    if tuple(penalty.shape) != tuple(logits.shape[:1]):
        raise ValueError(
            f"in training the network returned a penalty of shape {tuple(penalty.shape)} beside logits of "
            f"shape {tuple(logits.shape)}, expected one number per sample, {tuple(logits.shape[:1])}"
        )
    return logits, penalty.float()
