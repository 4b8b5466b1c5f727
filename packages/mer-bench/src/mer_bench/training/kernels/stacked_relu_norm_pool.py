"""The layer of `relu_norm_pool` for stacked folds on a GPU: matrix products, and few passes over memory.

Under `vmap` a convolution whose kernels differ by fold becomes a grouped one, with three channels a group:
a shape that GPU libraries are slow at, backwards above all. Here the windows are laid out as rows, and a
batched product per fold takes the convolution's place; a column of ones carries the bias and rounds the rows
up to 16 bytes. As on a CPU, normalisation waits until after the pooling, which commutes with it: the
full-resolution activation is written by the product and the ReLU, read for the moments and the peaks, and
its gradient is written once. A negative weight of the normalisation is met by a change of sign before the
ReLU, so that nothing branches on values.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_POOL = ((3, 3), (3, 3), (1, 1))
# The weights' gradient sums over all positions of all samples; cut in pieces, it keeps the whole GPU at work.
_PIECES = 32


def convolve_by_product(maps: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """Convolves as a product of windows laid out as rows; stacked folds make it a batched product.

    Args:
        maps: `(B, C, H, W)` float32.
        weight: `(K, C, 3, 3)`.
        bias: `(K,)`.
        padding: Zeros on each side.

    Returns:
        `(B, K, H', W')`, channels last in memory.
    """
    windows = _windows(maps, weight.shape[-1], padding)
    made = windows.flatten(3).flatten(0, 2) @ weight.flatten(1).t() + bias
    return made.unflatten(0, windows.shape[:3]).permute(0, 3, 1, 2)


def conv_relu_norm_pool(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    rows: Tensor,
    eps: float,
    padding: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolution, ReLU, batch normalisation over the rows that count, 3×3 max pooling with stride 3.

    Args:
        maps: `(B, C, H, W)` float32; it gets no gradient.
        weight: `(K, C, 3, 3)`.
        bias: `(K,)`.
        gamma: `(K,)` weight of the normalisation.
        beta: `(K,)` bias of the normalisation.
        rows: `(B,)` float32, 1 for a sample and 0 for padding.
        eps: Of the normalisation.
        padding: Of the convolution, by zeros.

    Returns:
        `(B, K, h, w)`, and the batch's mean and biased variance, both `(K,)` and without a gradient.
    """
    stacked = [t.unsqueeze(0) for t in (maps, weight, bias, gamma, beta, rows)]
    out, mean, var, *_ = _PerFold.apply(*stacked, eps, padding)
    return out[0], mean[0], var[0]


class _PerFold(torch.autograd.Function):
    """The layer with a fold axis in front of every tensor; `vmap` puts its folds on that axis."""

    @staticmethod
    def forward(
        maps: Tensor,
        weight: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        rows: Tensor,
        eps: float,
        padding: int,
    ) -> tuple[Tensor, ...]:
        folds, samples = maps.shape[:2]
        kernels = weight.shape[1]
        sign = _sign(gamma)
        windows = _windows(maps.flatten(0, 1), weight.shape[-1], padding)
        height, width = windows.shape[1:3]
        taps = windows[0, 0, 0].numel()
        patches = maps.new_ones(folds * samples, height, width, taps + 1)
        patches[..., :taps].unflatten(-1, windows.shape[3:]).copy_(windows)
        patches = patches.view(folds, -1, taps + 1)
        factors = torch.cat([weight.flatten(2), bias.unsqueeze(2)], dim=2) * sign.unsqueeze(2)
        # From here on all is in terms of the activation times the sign.
        positive = (sign > 0).unsqueeze(1)
        active = torch.bmm(patches, factors.transpose(1, 2))
        active = active.clamp_(
            torch.where(positive, 0.0, -torch.inf), torch.where(positive, torch.inf, 0.0)
        ).view(folds, samples, height * width, kernels)
        # Moments per sample first, then over the samples that count: no copy without the padded rows.
        spread, level = torch.var_mean(active, dim=2, correction=0)
        share = (rows / rows.sum(1, keepdim=True)).unsqueeze(2)
        mean = (level * share).sum(1)
        var = ((spread + (level - mean.unsqueeze(1)).square()) * share).sum(1)
        image = active.view(folds * samples, height, width, kernels).permute(0, 3, 1, 2)
        peaks, places = torch.ops.aten.max_pool2d_with_indices(image, *_POOL)
        peaks = peaks.unflatten(0, (folds, samples))
        normal = (peaks - _spread_out(mean)) * _spread_out(torch.rsqrt(var + eps))
        out = torch.addcmul(_spread_out(beta), normal, _spread_out(gamma.abs()))
        return out, mean * sign, var, patches, active, places.unflatten(0, (folds, samples)), normal

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, weight, _, gamma, _, rows, ctx.eps, _ = inputs
        _, mean, var, patches, active, places, normal = output
        ctx.mark_non_differentiable(mean, var, patches, active, places, normal)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight, gamma, rows, mean, var, patches, active, places, normal)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        weight, gamma, rows, mean, var, patches, active, places, normal = ctx.saved_tensors
        upstream = gradients[0]
        if upstream is None:
            return (None,) * 8
        folds, samples, positions, kernels = active.shape
        sign = _sign(gamma)
        count = rows.sum(1, keepdim=True) * positions
        d_beta = upstream.sum((1, 3, 4))
        d_size = (upstream * normal).sum((1, 3, 4))
        inverse = torch.rsqrt(var + ctx.eps)
        scale = gamma.abs() * inverse
        # d active = scale (G - d_beta / M - x̂ d_size / M), where G is the pooled gradient put back where the
        # peaks were; a padded row took no part in the mean and gets only its (zero) G.
        slope = -scale * d_size * inverse / count
        level = -scale * d_beta / count - slope * mean * sign
        part = rows.unsqueeze(2)
        grad = torch.addcmul(
            (level.unsqueeze(1) * part).unsqueeze(2), active, (slope.unsqueeze(1) * part).unsqueeze(2)
        ).view(folds * samples, positions, kernels)
        index = places.flatten(0, 1).permute(0, 2, 3, 1).flatten(1, 2)
        back = (upstream * _spread_out(scale)).flatten(0, 1).permute(0, 2, 3, 1).flatten(1, 2)
        # Windows do not overlap, so no place occurs twice: what is read may be written back.
        grad.scatter_(1, index, grad.gather(1, index) + back)
        grad.masked_fill_(active.view_as(grad) == 0, 0.0)
        pieces = _pieces(samples * positions)
        products = torch.bmm(
            grad.view(folds * pieces, -1, kernels).transpose(1, 2),
            patches.view(folds * pieces, -1, patches.shape[-1]),
        )
        d_factors = products.view(folds, pieces, kernels, -1).sum(1) * sign.unsqueeze(2)
        d_weight = d_factors[..., :-1].reshape(weight.shape)
        return None, d_weight, d_factors[..., -1], d_size * sign, d_beta, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        flat = []
        for value, place in zip(args, in_dims, strict=True):
            if isinstance(value, Tensor):
                value = (
                    value.expand(info.batch_size, *value.shape) if place is None else value.movedim(place, 0)
                )
                value = value.flatten(0, 1)
            flat.append(value)
        made = _PerFold.apply(*flat)
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in made), (0,) * len(made)


def _windows(maps: Tensor, side: int, padding: int) -> Tensor:
    """Every window of every map: a `(N, H', W', C, side, side)` view of the padded maps."""
    padded = F.pad(maps, (padding,) * 4)
    return padded.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)


def _sign(gamma: Tensor) -> Tensor:
    return torch.where(gamma < 0, -1.0, 1.0)


def _spread_out(per_channel: Tensor) -> Tensor:
    """`(F, K)` beside `(F, B, K, h, w)`."""
    return per_channel[:, None, :, None, None]


def _pieces(rows: int) -> int:
    """The largest number of equal pieces, none above `_PIECES`."""
    return next(n for n in range(min(_PIECES, rows), 0, -1) if rows % n == 0)
