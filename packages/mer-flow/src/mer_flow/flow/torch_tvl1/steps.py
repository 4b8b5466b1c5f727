"""The inner iteration of TV-L1, twice: in place for eager kernels, and as a function for a compiler to fuse.

Notation of Zach, Pock and Bischof 2007, doi:10.1007/978-3-540-74936-3_22: u is the flow, p its dual variable,
and with grad the warped image's gradient and rho the linearised residual an iteration is

    u <- u + d grad + theta div p,         d = clamp(-rho / |grad|^2, -lambda theta, lambda theta)
    p <- (p + tau/theta nabla u) / (1 + tau/theta |nabla u|)

Here u is kept times tau/theta and p times tau, which leaves two multiplications out of every iteration:

    u <- u + d ascent + div p,             p <- (p + tau nabla u) / (1 + |nabla u|)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

#: Squared updates are added up as whole numbers of 2^-20 of the threshold's share of one pixel: such a sum
#: has the same bits in any order, so a pair stops at the same iteration whatever its batch.
FINENESS = 2.0**20
#: No single pixel counts for more: 2^20 times the threshold's share.
MOST = 2.0**40


@dataclass(frozen=True, slots=True)
class Weights:
    """The numbers of an iteration."""

    tau: float  # time step of the dual scheme
    limit: float  # lambda theta, the longest step along the gradient
    quantum: float  # squared update per pixel, in the scaled unit, at which iterations stop


class State:
    """The arrays of one pyramid level for a batch of N pairs, and views of them that save a copy.

    Attributes:
        u: (2, N, H, W), the flow times tau / theta.
        p: (2, 2, N, H, W): direction (x, y), then component (u, v).
        slope: (2, N, H, W): -grad / |grad|^2, for the scaled flow.
        ascent: (2, N, H, W): grad, for the scaled flow.
        offset: (N, H, W): the part of -rho / |grad|^2 that a warp leaves constant.
        update: (2, N, H, W): what the last iteration added to u.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        def zeros(*lead: int) -> torch.Tensor:
            return torch.zeros(*lead, *shape, device=device)

        width = shape[-1]
        self.u, self.slope, self.ascent, self.update = zeros(2), zeros(2), zeros(2), zeros(2)
        self.p, self.offset = zeros(2, 2), zeros()
        self.differences, self.norm, self.descent = zeros(2, 2), zeros(2), zeros()
        # p_x is zero in the last column and p_y in the last row, so a shift may run across their ends.
        self.update_right, self.update_below = self.update.view(-1)[1:], self.update.view(-1)[width:]
        self.p_left, self.p_above = self.p[0].view(-1)[:-1], self.p[1].view(-1)[:-width]
        self.u_right, self.u_left = self.u.view(-1)[1:], self.u.view(-1)[:-1]
        self.u_below, self.u_above = self.u[..., 1:, :], self.u[..., :-1, :]
        self.along_x, self.last_column = self.differences[0].view(-1)[:-1], self.differences[0][..., -1]
        self.along_y = self.differences[1][..., :-1, :]
        self.slopes, self.flows = self.slope.unbind(0), self.u.unbind(0)

    def iterate(self, weights: Weights) -> None:
        """Run one iteration in place."""
        torch.addcmul(self.offset, self.slopes[0], self.flows[0], out=self.descent)
        self.descent.addcmul_(self.slopes[1], self.flows[1]).clamp_(-weights.limit, weights.limit)
        torch.add(self.p[0], self.p[1], out=self.update)
        self.update_right.sub_(self.p_left)
        self.update_below.sub_(self.p_above)
        self.update.addcmul_(self.ascent, self.descent)
        self.u.add_(self.update)
        torch.sub(self.u_right, self.u_left, out=self.along_x)
        self.last_column.zero_()
        torch.sub(self.u_below, self.u_above, out=self.along_y)
        torch.mul(self.differences[0], self.differences[0], out=self.norm)
        self.norm.addcmul_(self.differences[1], self.differences[1]).sqrt_().add_(1)
        self.p.add_(self.differences, alpha=weights.tau).div_(self.norm)

    def squares(self) -> torch.Tensor:
        """Return the squared update of the last iteration, (2, N, H, W)."""
        return torch.mul(self.update, self.update, out=self.norm)


def exact_sum(squares: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Add up (2, N, H, W) squares in fine units of the threshold's share of one pixel: int64 (N,)."""
    return (squares * (FINENESS / weights.quantum)).clamp(max=MOST).to(torch.int64).sum((0, 2, 3))


def advance(
    u: torch.Tensor, p: torch.Tensor, fixed: tuple[torch.Tensor, ...], weights: Weights, iterations: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return u, p and the update after iterations, at least 1; what is given is not written into.

    All as in `State`; `fixed` is its slope, ascent and offset.
    """
    slope, ascent, offset = fixed
    update = u
    for _ in range(iterations):
        descent = (offset + slope[0] * u[0] + slope[1] * u[1]).clamp(-weights.limit, weights.limit)
        left = F.pad(p[0][..., :-1], (1, 0))
        above = F.pad(p[1][..., :-1, :], (0, 0, 1, 0))
        update = p[0] + p[1] - left - above + ascent * descent
        u = u + update
        along_x = F.pad(u[..., 1:] - u[..., :-1], (0, 1))
        along_y = F.pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1))
        norm = (along_x * along_x + along_y * along_y).sqrt() + 1
        p = torch.stack([(p[0] + weights.tau * along_x) / norm, (p[1] + weights.tau * along_y) / norm])
    return u, p, update


@functools.cache
def compiled_advance() -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return `advance` compiled for shapes that vary."""
    return torch.compile(advance, dynamic=True)
