"""Convolution, ReLU, batch normalisation and max pooling as one layer, cheap to train on a CPU.

What such a layer costs on a CPU is memory traffic: each of the four reads and writes the full-resolution
activation, forwards and backwards. Max pooling commutes with an increasing map, and batch normalisation with
a positive weight is one; so only the statistics need the full resolution, and the backward pass writes it
once. The work is done in blocks of samples that stay in the cache, on maps padded beforehand, as the
convolution is then nearly twice as fast.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.training.kernels.stacked_relu_norm_pool import conv_relu_norm_pool, convolve_by_product
from mer_bench.training.layers import MaskedBatchNorm

_KERNEL, _STRIDE, _PADDING = (3, 3), (3, 3), (1, 1)
_BLOCK = 32

#: Where stacked folds are convolved by matrix products.
PRODUCT_DEVICES = ("cuda",)


class ConvReluNormPool(nn.Module):
    """Convolution, ReLU, batch normalisation, then 3×3 max pooling with stride 3 and padding 1.

    Args:
        in_channels: Channels of the maps.
        kernels: Channels that leave.
        kernel_size: Of the convolution.
        padding: Of the convolution, by zeros.
    """

    def __init__(self, in_channels: int, kernels: int, kernel_size: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, kernels, kernel_size, padding=padding)
        self.norm: nn.BatchNorm2d | MaskedBatchNorm = nn.BatchNorm2d(kernels)
        # Activations are large and live for one step; given back to the system and asked for again, their
        # pages would cost as much as a layer.
        self._spare: list[Tensor] = []

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the four layers; in training as one, on a CPU with channels-last maps, on CUDA where stacked.

        Args:
            maps: `(N, C, H, W)` float32.

        Returns:
            `(N, kernels, H', W')`; by either way the same function, up to the order of sums.
        """
        if self._fusable(maps):
            return _Fused.apply(
                maps, self.conv.weight, self.conv.bias, self.norm.weight, self.norm.bias, self
            )
        if not self._by_products(maps):
            made = self.conv(maps)
        elif self.norm.training and torch.is_grad_enabled():
            return self._pooled_by_products(maps)
        else:
            assert self.conv.bias is not None
            made = convolve_by_product(maps, self.conv.weight, self.conv.bias, int(self.conv.padding[0]))
        return F.max_pool2d(self.norm(F.relu(made)), _KERNEL, _STRIDE, _PADDING)

    def _by_products(self, maps: Tensor) -> bool:
        """Whether folds are stacked on a GPU, where a convolution would be a grouped one."""
        # The engine has put its own normalisation here where folds are stacked.
        if maps.device.type not in PRODUCT_DEVICES or not isinstance(self.norm, MaskedBatchNorm):
            return False
        plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(maps.device.type)
        return not plain and not maps.requires_grad and maps.dtype == torch.float32

    def _pooled_by_products(self, maps: Tensor) -> Tensor:
        norm, conv = self.norm, self.conv
        assert isinstance(norm, MaskedBatchNorm) and conv.bias is not None
        assert norm.weight is not None and norm.bias is not None
        rows = norm.row_weight.repeat_interleave(len(maps) // len(norm.row_weight))
        out, mean, var = conv_relu_norm_pool(
            maps, conv.weight, conv.bias, norm.weight, norm.bias, rows, norm.eps, int(conv.padding[0])
        )
        norm.track(mean, var, rows.sum() * self._positions(maps))
        return out

    def _positions(self, maps: Tensor) -> int:
        grown = 2 * int(self.conv.padding[0]) + 1
        return math.prod(s + grown - k for s, k in zip(maps.shape[2:], self.conv.kernel_size, strict=True))

    def _fusable(self, maps: Tensor) -> bool:
        norm = self.norm
        # An engine may have put its own normalisation here; and gradients of the maps are not worth their
        # time.
        if torch.compiler.is_compiling() or type(norm) is not nn.BatchNorm2d or not norm.training:
            return False
        if maps.device.type != "cpu" or maps.requires_grad or not torch.is_grad_enabled():
            return False
        if torch.is_autocast_enabled("cpu") or maps.dtype != torch.float32:
            return False
        if not maps.is_contiguous(memory_format=torch.channels_last):
            return False
        # A negative weight turns maxima into minima; the plain way knows how to pool those.
        return bool((norm.weight.detach() > 0).all())

    def take_activations(self, shape: tuple[int, int, int, int]) -> Tensor:
        """Borrow memory for one step's activations.

        Args:
            shape: `(N, H, W, K)`.

        Returns:
            An uninitialised float32 tensor.
        """
        rows = [i for i, t in enumerate(self._spare) if t.shape[0] >= shape[0] and t.shape[1:] == shape[1:]]
        return self._spare.pop(rows[0]) if rows else torch.empty(shape)

    def return_activations(self, memory: Tensor) -> None:
        """Give borrowed memory back.

        Args:
            memory: From `take_activations`.
        """
        self._spare = [memory]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_spare": []}


class _Fused(torch.autograd.Function):
    """The fused layer; windows do not overlap, so each position feeds at most one of them."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        weight: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        layer: ConvReluNormPool,
    ) -> Tensor:
        samples, _, height, width = maps.shape
        kernels = weight.shape[0]
        pad = int(layer.conv.padding[0])
        height, width = height + 2 * pad - weight.shape[2] + 1, width + 2 * pad - weight.shape[3] + 1
        memory = layer.take_activations((samples, height, width, kernels))
        active = memory[:samples]
        padded, peaks, places = [], [], []
        sums = torch.zeros(2, width * kernels)
        origin = None
        scratch = torch.empty(min(_BLOCK, samples) * height, width * kernels)
        for start in range(0, samples, _BLOCK):
            block = active[start : start + _BLOCK]
            padded.append(_pad_channels_last(maps[start : start + _BLOCK], pad))
            made = F.conv2d(padded[-1], weight, bias)
            torch.clamp_min(made.permute(0, 2, 3, 1), 0.0, out=block)
            rows = block.view(-1, width * kernels)
            if origin is None:
                # Moments about a value near the mean keep the digits that moments about zero would lose.
                origin = rows[:height].view(-1, kernels).mean(0).repeat(width)
            shifted = torch.sub(rows, origin, out=scratch[: len(rows)])
            sums[0] += shifted.sum(0)
            sums[1] += shifted.square_().sum(0)
            peak, place = torch.ops.aten.max_pool2d_with_indices(
                block.permute(0, 3, 1, 2), _KERNEL, _STRIDE, _PADDING
            )
            peaks.append(peak)
            places.append(place)
        assert origin is not None
        count = samples * height * width
        moments = sums.double().view(2, width, kernels).sum(1) / count
        mean = (moments[0] + origin[:kernels]).float()
        var = (moments[1] - moments[0].square()).clamp_(min=0.0).float()
        _track(layer.norm, mean, var, count)
        inverse = torch.rsqrt(var + layer.norm.eps)
        normal = (torch.cat(peaks) - mean.view(1, -1, 1, 1)).mul_(inverse.view(1, -1, 1, 1))
        place = torch.cat(places).permute(0, 2, 3, 1).mul(kernels).add_(torch.arange(kernels))
        ctx.save_for_backward(weight, normal, mean, inverse, gamma, place.view(samples, -1))
        ctx.padded, ctx.memory, ctx.layer = padded, memory, layer
        return torch.addcmul(beta.view(1, -1, 1, 1), normal, gamma.view(1, -1, 1, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, normal, mean, inverse, gamma, place = ctx.saved_tensors
        (upstream,) = gradients
        samples, kernels = upstream.shape[:2]
        active = ctx.memory[:samples]
        positions = active.shape[1] * active.shape[2]
        count = samples * positions
        d_beta = upstream.sum((0, 2, 3))
        d_gamma = (upstream * normal).sum((0, 2, 3))
        # d active = a (G - d_beta / M - x̂ d_gamma / M), where G is the pooled gradient put back where the
        # peaks were.
        a = gamma * inverse
        slope = -a * d_gamma * inverse / count
        level = (-a * d_beta / count - slope * mean).repeat(positions)
        slope = slope.repeat(positions)
        peaks = (upstream * a.view(1, -1, 1, 1)).permute(0, 2, 3, 1).reshape(samples, -1)
        d_weight, d_bias = torch.zeros_like(weight), torch.zeros_like(a)
        scratch = active.new_empty(min(_BLOCK, samples), positions * kernels)
        for number, start in enumerate(range(0, samples, _BLOCK)):
            block = active[start : start + _BLOCK]
            flat = block.view(len(block), -1)
            grad = torch.addcmul(level, flat, slope, out=scratch[: len(block)])
            grad.scatter_add_(1, place[start : start + _BLOCK], peaks[start : start + _BLOCK])
            torch.ops.aten.threshold_backward.grad_input(grad, flat, 0.0, grad_input=grad)
            _, part, part_bias = torch.ops.aten.convolution_backward(
                grad.view_as(block).permute(0, 3, 1, 2), ctx.padded[number], weight,
                [kernels], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, True],
            )  # fmt: skip
            d_weight += part
            d_bias += part_bias
        ctx.layer.return_activations(ctx.memory)
        ctx.memory = None
        return None, d_weight, d_bias, d_gamma, d_beta, None


def _pad_channels_last(maps: Tensor, pad: int) -> Tensor:
    samples, channels, height, width = maps.shape
    padded = maps.new_zeros(samples, height + 2 * pad, width + 2 * pad, channels)
    padded[:, pad : pad + height, pad : pad + width] = maps.permute(0, 2, 3, 1)
    return padded.permute(0, 3, 1, 2)


def _track(norm: nn.BatchNorm2d | MaskedBatchNorm, mean: Tensor, var: Tensor, count: int) -> None:
    """Update running statistics as `nn.BatchNorm2d` does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.mul_(1.0 - share).add_(mean, alpha=share)
    norm.running_var.mul_(1.0 - share).add_(var, alpha=share * count / (count - 1))
