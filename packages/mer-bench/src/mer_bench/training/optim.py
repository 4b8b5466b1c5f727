"""Optimisers, learning-rate schedules and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe


def build_optimizer(
    recipe: Recipe, parameters: Sequence[Tensor] | Sequence[dict[str, Any]], capturable: bool = False
) -> torch.optim.Optimizer:
    """Make the recipe's optimiser.

    All three are elementwise, so parameters stacked along a fold axis are updated exactly as each fold alone
    would be.

    Args:
        recipe: How to train.
        parameters: Leaf tensors that require a gradient, or groups of them from `parameter_groups`.
        capturable: Keep learning rates and step counts on the parameters' device, so that a step can be part
            of a CUDA graph.

    Returns:
        The optimiser, in torch's fused form.
    """
    optimizer: torch.optim.Optimizer
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            fused=True,
        )
    else:
        optimizer = kinds[recipe.optimizer](
            parameters,
            lr=recipe.lr,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.eps,
            weight_decay=recipe.weight_decay,
            fused=True,
            capturable=capturable,
        )
    if capturable:
        for group in optimizer.param_groups:
            # Each its own: groups may learn at rates of their own.
            group["lr"] = torch.full((), recipe.lr, dtype=torch.float32, device=group["params"][0].device)
    return optimizer


def check_layer_depths(network: nn.Module, recipe: Recipe) -> dict[str, int]:
    """Ask a network for the depth of each trained parameter, where the recipe needs it.

    Args:
        network: Has `layer_depths()`, a depth from 0 (next to the input) per parameter name, where its layers
            may learn at different rates.
        recipe: How it is trained.

    Returns:
        Depth by name of the parameters that are trained; empty where `layer_decay` is 1.

    Raises:
        UsageError: The network tells no depths, or not of every parameter.
    """
    if recipe.layer_decay == 1.0:
        return {}
    remedy = f"recipe '{recipe.name}' has layer_decay = {recipe.layer_decay:g}; set layer_decay = 1"
    layer_depths: Callable[[], Mapping[str, int]] | None = getattr(network, "layer_depths", None)
    if layer_depths is None:
        raise UsageError(
            f"{type(network).__name__} tells no depths of its layers (layer_depths()), but {remedy}"
        )
    depths = dict(layer_depths())
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    untold = [name for name in trained if name not in depths]
    if untold:
        raise UsageError(
            f"layer_depths() of {type(network).__name__} leaves out {len(untold)} of {len(trained)} trained "
            f"parameters, as '{untold[0]}', but {remedy}, or mend the network"
        )
    return {name: int(depths[name]) for name in trained}


def parameter_groups(
    recipe: Recipe, parameters: Mapping[str, Tensor], depths: Mapping[str, int]
) -> list[Tensor] | list[dict[str, Any]]:
    """Group parameters by the depth of their layer.

    Args:
        recipe: How to train.
        parameters: Name to leaf tensor, of those that are trained.
        depths: From `check_layer_depths`.

    Returns:
        The tensors; with depths, a group for each, shallowest first, whose `lr_scale` is
        `layer_decay ** (D - d)`.
    """
    if not depths:
        return list(parameters.values())
    deepest = max(depths.values())
    return [
        {
            "params": [p for name, p in parameters.items() if depths[name] == depth],
            "lr_scale": recipe.layer_decay ** (deepest - depth),
        }
        for depth in sorted(set(depths.values()))
    ]


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one optimiser step.

    Warm-up rises linearly, step by step, and reaches `lr` with its last; the schedule then counts epochs from
    its end.

    Args:
        recipe: How to train.
        step: Optimiser steps already taken.
        steps_per_epoch: Optimiser steps in an epoch.

    >>> learning_rate(Recipe(lr=1.0, schedule="step", step_epochs=2, gamma=0.5), step=8, steps_per_epoch=2)
    0.25
    """
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    epoch = (step - warmup) // steps_per_epoch
    if recipe.schedule == "constant":
        return recipe.lr
    fallen = min(epoch, recipe.decay_epochs) if recipe.decay_epochs else epoch
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** (fallen // recipe.step_epochs)
    if recipe.schedule == "exponential":
        return recipe.lr * recipe.gamma**fallen
    share = min(1.0, (step - warmup) / max(1, (recipe.epochs * steps_per_epoch) - warmup))
    return recipe.final_lr + (recipe.lr - recipe.final_lr) * 0.5 * (1.0 + math.cos(math.pi * share))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float | Tensor) -> None:
    """Set the learning rate of every parameter group; one with an `lr_scale` takes it times that.

    Args:
        optimizer: A capturable one takes a tensor.
        lr: The new rate.
    """
    for group in optimizer.param_groups:
        rate = lr * group.get("lr_scale", 1.0)
        if isinstance(rate, Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"] = rate


def clip_gradients(gradients: Sequence[Tensor], largest: float) -> None:
    """Scale gradients in place so that the L2 norm of each fold's, over all of them, is at most `largest`.

    Args:
        gradients: `(F, ...)`, one tensor per parameter.
        largest: The largest norm.
    """
    norms = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=-1) for g in gradients]
    total = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    scale = (largest / (total + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.dim() - 1)))
