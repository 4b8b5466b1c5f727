"""Layers that the engine puts in place of a network's own, so that a fold's result is its own.

Dropout draws from the fold's stream instead of the global generator. Batch normalisation, where folds are
stacked, leaves out the rows that pad a fold's last batch; a last batch of one sample does not stop it.
"""

from __future__ import annotations

import math
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.training.seeding import mix, random_bits

_LEVELS = 1 << 16
_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


class FoldDropout(nn.Dropout):
    """Dropout whose mask is a function of a key, an element's place in the batch and nothing else.

    A mask costs 16 random bits per element, so the probability is rounded to a multiple of 2**-16, and the
    scale with it.

    Attributes:
        key: int64 scalar (one per fold under `vmap`); the engine sets it before each step.
        calls: How often the layer ran since; a layer used twice in one pass draws two masks.
    """

    key: Tensor

    def __init__(self, p: float, per_channel: bool = False, stacked: bool = False) -> None:
        super().__init__(p)
        self.per_channel = per_channel
        self.stacked = stacked
        self.calls = 0
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)

    @property
    def draws(self) -> bool:
        """Whether the layer draws masks in training: not where it drops nothing, or everything."""
        return 0 < round(self.p * _LEVELS) < _LEVELS

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements of `(N, ...)`, or whole channels of `(N, C, ...)`; in evaluation nothing."""
        threshold = round(self.p * _LEVELS)
        if not self.training or threshold == 0:
            return input
        if threshold == _LEVELS:
            return torch.zeros_like(input)
        shape = tuple(input.shape[:2] if self.per_channel else input.shape)
        # The order of a channels-last map: on a CPU the mask then lies in memory as such a map does.
        drawn = (shape[0], *shape[2:], shape[1]) if len(shape) > 2 else shape
        count = math.prod(drawn)
        words = random_bits(mix(self.key + self.calls), (count + 3) // 4)
        self.calls += 1
        kept = self._unpack(words)[:count].view(drawn) >= threshold - _LEVELS // 2
        if len(drawn) > 2:
            kept = kept.movedim(-1, 1)
        if self.per_channel:
            kept = kept.view(*shape, *[1] * (input.dim() - 2))
        return input * (kept.to(input.dtype) * (_LEVELS / (_LEVELS - threshold)))

    def _unpack(self, words: Tensor) -> Tensor:
        """Return four signed 16-bit numbers per word, lowest first."""
        if not self.stacked and sys.byteorder == "little":
            return words.view(torch.int16)
        # `vmap` cannot reinterpret memory.
        shifts = torch.arange(0, 64, 16, device=words.device)
        parts = (words.unsqueeze(-1) >> shifts) & (_LEVELS - 1)
        return ((parts ^ (_LEVELS // 2)) - _LEVELS // 2).flatten(-2)


class LoneBatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation that does not fail where an epoch's last batch is a single sample.

    One value has no variance: it is normalised by the running statistics, which it leaves as they are.

    Args:
        norm: The layer that this one replaces; parameters and buffers are shared.
    """

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(norm, name))
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `(N, C)` or `(N, C, L)`."""
        if self.training and self.running_mean is not None and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation whose statistics leave out padded rows; parameters and buffers keep their names.

    A batch of one value per channel is normalised by the running statistics, as in `LoneBatchNorm1d`.

    Attributes:
        row_weight: `(B,)` float32, 1 for a sample and 0 for padding; the engine sets it before each step.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    row_weight: Tensor

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.eps = norm.eps
        self.momentum = norm.momentum
        self.register_parameter("weight", norm.weight)
        self.register_parameter("bias", norm.bias)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.register_buffer("row_weight", torch.ones(1), persistent=False)
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `(N, C, ...)`; each row of `row_weight` is that of as many neighbouring rows."""
        x = input.float()
        per_channel = (1, -1, *[1] * (x.dim() - 2))
        if self.training or self.running_mean is None or self.running_var is None:
            mean, var = self._batch_statistics(x)
        else:
            mean, var = self.running_mean, self.running_var
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        out = (x - mean.view(per_channel)) * scale.view(per_channel)
        if self.bias is not None:
            out = out + self.bias.view(per_channel)
        return out.to(input.dtype)

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.row_weight if self.training else x.new_ones(1)
        weight = weight.repeat_interleave(x.shape[0] // weight.shape[0])
        rows = weight.view(-1, *[1] * (x.dim() - 1))
        others = [0, *range(2, x.dim())]
        # `sum() * positions`, not the size of x: padded rows count for nothing.
        count = weight.sum() * math.prod(x.shape[2:])
        mean = (x * rows).sum(others) / count
        centred = x - mean.view(1, -1, *[1] * (x.dim() - 2))
        var = (centred.square() * rows).sum(others) / count
        if not self.training or self.running_mean is None or self.running_var is None:
            return mean, var
        lone = count < 2
        # Copies: the running statistics move on before the backward pass needs these.
        mean = torch.where(lone, self.running_mean.clone(), mean)
        var = torch.where(lone, self.running_var.clone(), var)
        self._track(mean.detach(), var.detach(), count)
        return mean, var

    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Update the running statistics; a single value of a channel changes nothing."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        several = (count > 1).to(mean.dtype)
        var = var * (count / (count - 1).clamp(min=1))
        self.num_batches_tracked.add_(several.to(torch.int64))
        if self.momentum is None:
            share = several / self.num_batches_tracked.clamp(min=1)
        else:
            share = several * self.momentum
        self.running_mean.mul_(1.0 - share).add_(mean * share)
        self.running_var.mul_(1.0 - share).add_(var * share)


def replace_layers(network: nn.Module, stacked: bool) -> None:
    """Put this module's layers in place of a network's own; names of parameters and buffers stay.

    Args:
        network: Changed in place.
        stacked: Whether folds are going to be stacked; only then is all batch normalisation replaced.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    for name, module in list(network.named_modules()):
        new: nn.Module
        if type(module) is nn.Dropout:
            new = FoldDropout(module.p, stacked=stacked)
        elif type(module) in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
            new = FoldDropout(module.p, per_channel=True, stacked=stacked)
        elif stacked and isinstance(module, _BatchNorm):
            new = MaskedBatchNorm(module)
        elif type(module) is nn.BatchNorm1d:
            new = LoneBatchNorm1d(module)
        else:
            continue
        if isinstance(new, FoldDropout):
            new.train(module.training).to(device)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, new)
