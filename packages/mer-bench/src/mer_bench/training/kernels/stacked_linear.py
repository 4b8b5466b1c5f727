"""Linear layers of stacked folds on a GPU.

Under `vmap` a linear layer becomes a batched product whose backward pass makes the weights' gradient
transposed, and autograd then copies it into the weights' layout: for a large network a fifth of all memory
traffic of a step. Here the gradient is made in that layout at once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Where the layer takes the place of torch's.
DEVICES = ("cuda",)


class StackedLinear(nn.Linear):
    """`nn.Linear` with the same parameters, for networks whose folds are going to be stacked.

    Args:
        linear: The layer that this one replaces; weight and bias are shared.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: `(..., in_features)`.

        Returns:
            `(..., out_features)`; in the type that autocast asks for.
        """
        kind = input.device.type
        if kind not in DEVICES or input.dim() == 1 or torch.compiler.is_compiling():
            return F.linear(input, self.weight, self.bias)
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            input, weight = input.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        rows = input.flatten(0, -2).unsqueeze(0)
        out: Tensor = _PerFold.apply(rows, weight.unsqueeze(0), None if bias is None else bias.unsqueeze(0))
        return out.squeeze(0).unflatten(0, input.shape[:-1])


class _PerFold(torch.autograd.Function):
    """`x Wᵀ + b` with a fold axis in front of every tensor; `vmap` puts its folds on that axis."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out = torch.bmm(x, weight.transpose(1, 2))
        return out if bias is None else out.add_(bias.unsqueeze(1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias = inputs
        ctx.biased = bias is not None
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (upstream,) = gradients
        back = torch.bmm(upstream, weight) if ctx.needs_input_grad[0] else None
        d_weight = torch.bmm(upstream.transpose(1, 2), x) if ctx.needs_input_grad[1] else None
        return back, d_weight, upstream.sum(1) if ctx.biased else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor | None) -> tuple[Tensor, int]:
        stacked: list[Tensor | None] = []
        for value, place in zip(args, in_dims, strict=True):
            if value is None:
                stacked.append(None)
                continue
            shared = place is None
            folds = value.expand(info.batch_size, *value.shape) if shared else value.movedim(place or 0, 0)
            stacked.append(folds.flatten(0, 1))
        return _PerFold.apply(*stacked).unflatten(0, (info.batch_size, -1)), 0
