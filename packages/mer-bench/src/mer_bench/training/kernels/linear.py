"""Linear layers through oneDNN, for training on a CPU.

Torch multiplies float32 matrices with MKL, which has no AVX-512 path for processors that are not Intel's;
oneDNN, which torch carries for convolutions, has one for all. An AMD EPYC (family 26) multiplies and adds 105
times a nanosecond and core with it, 50 times with MKL, so a network of wide linear layers trains in little
more than half the time. The operator is torch's own (its compiler emits it) and takes transposed views as
they are, so the backward pass copies no weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Below these the call costs more than the product saves.
_FEWEST_WEIGHTS = 1 << 10
_FEWEST_PRODUCTS = 1 << 22


def available() -> bool:
    """Whether this build of torch has the operator.

    Returns:
        False where torch was built without oneDNN, or it is switched off.
    """
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


class FoldLinear(nn.Linear):
    """A linear layer that multiplies through oneDNN where that is faster; parameters keep their names.

    Args:
        linear: The layer it replaces; its parameters are taken over, not copied.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.weight = linear.weight
        self.bias = linear.bias
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: `(..., in_features)`.

        Returns:
            `(..., out_features)`; either way the same function, up to the order of sums.
        """
        if not self._gains(input):
            return F.linear(input, self.weight, self.bias)
        rows = input.reshape(-1, self.in_features)
        out: Tensor = _Linear.apply(rows, self.weight, self.bias)
        return out.view(*input.shape[:-1], self.out_features)

    def _gains(self, input: Tensor) -> bool:
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return False
        if input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return False
        if input.dtype != torch.float32 or self.weight.dtype != torch.float32:
            return False
        return input.numel() * self.out_features >= _FEWEST_PRODUCTS


def replace_linear(network: nn.Module) -> None:
    """Put `FoldLinear` in the place of a network's linear layers.

    Args:
        network: Changed in place; names of parameters stay. A layer that another module subclasses or reads
            as `nn.Linear` still is one.
    """
    if not available():
        return
    for name, module in list(network.named_modules()):
        if type(module) is nn.Linear and module.weight.numel() >= _FEWEST_WEIGHTS:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, FoldLinear(module))


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        upstream = gradients[0].contiguous()
        wanted = ctx.needs_input_grad
        return (
            _product(upstream, weight.t(), None) if wanted[0] else None,
            _product(upstream.t(), rows.t(), None) if wanted[1] else None,
            upstream.sum(0) if wanted[2] else None,
        )
