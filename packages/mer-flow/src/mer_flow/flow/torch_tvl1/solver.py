"""One level of the pyramid: warps, median filterings and iterations until each pair has converged."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from mer_flow.flow.params import BackendOptions, TVL1Params
from mer_flow.flow.torch_tvl1.cuda import Monitor, captured
from mer_flow.flow.torch_tvl1.images import gradient, padded, warp
from mer_flow.flow.torch_tvl1.median import MedianFilter
from mer_flow.flow.torch_tvl1.steps import FINENESS, State, Weights, compiled_advance, exact_sum

#: Where the squared gradient is no larger, the data say nothing (OpenCV's FLT_EPSILON).
SMALLEST_GRADIENT = torch.finfo(torch.float32).eps


class Settings:
    """What decides the work of a level besides its images.

    Attributes:
        alone: Pairs come one by one, so no sum need be the same in every batch (exact sums take 15 % of an
            iteration on the CPU).
        scale: The unit in which the flow is kept, tau / theta.
        runs: (filter first?, iterations) of every run between two looks at the threshold, in order.
    """

    def __init__(self, params: TVL1Params, options: BackendOptions, alone: bool) -> None:
        self.params, self.border, self.alone = params, options.border, alone
        self.device, self.compiled = torch.device(options.device), options.compile == "on"
        self.scale = params.tau / params.theta
        self.weights = Weights(params.tau, params.lambda_ * params.theta, (params.epsilon * self.scale) ** 2)
        most, every, filters = params.inner_iterations, options.check_every, params.median_filtering > 1
        lengths = [min(every, most - done) for done in range(0, most, every)]
        self.runs = [
            (filters and not n, length) for n, length in enumerate(lengths)
        ] * params.outer_iterations


class Level:
    """A batch of N pairs at one size, its memory kept between calls.

    A pair that has converged is set aside while the others go on; once half of a batch has, the rest moves
    to a level of half the batch. So no pair's result depends on its companions.
    """

    def __init__(self, shape: tuple[int, int, int], settings: Settings, median: MedianFilter | None) -> None:
        self.state = State(shape, settings.device)
        self.settings, self._median = settings, median
        self.count, self.size, self._pixels = shape[0], shape[1:], shape[1] * shape[2]
        self.iterations = 0  # run so far at this size, for benchmarks and tests
        if not settings.alone:
            self.active = torch.ones(self.count, dtype=torch.bool, device=settings.device)
            self.kept_u, self.kept_p = torch.zeros_like(self.state.u), torch.zeros_like(self.state.p)
            self._monitor = Monitor(settings.device)
        self._smaller: Level | None = None
        self._graphs: dict[tuple[bool, int], Callable[[], None]] = {}
        if settings.device.type == "cuda":
            for kind in dict.fromkeys(settings.runs):
                self._graphs[kind] = captured(functools.partial(self._run, *kind))

    def solve(self, onset: torch.Tensor, apex: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        """Refine the flow of this level, float32 (2, N, H, W) px, between images (N, H, W) of 0 to 255."""
        settings, state = self.settings, self.state
        images = padded(torch.stack([apex, *gradient(apex)], dim=1), settings.border)
        torch.mul(flow, settings.scale, out=state.u)
        state.p.zero_()
        for _ in range(settings.params.warps):
            self._linearise(onset, images)
            if settings.alone:
                self._iterate_alone()
            else:
                self.active.fill_(True)
                self._iterate(0)
                state.u.copy_(self.kept_u)
                state.p.copy_(self.kept_p)
        return state.u / settings.scale

    def _linearise(self, onset: torch.Tensor, images: torch.Tensor) -> None:
        """Warp the apex and its gradient by the present flow; prepare the coefficients of the iteration."""
        state, scale = self.state, self.settings.scale
        flow = torch.div(state.u, scale, out=state.update)
        warped = warp(images, flow, self.settings.border)
        image, along = warped[:, 0], (warped[:, 1], warped[:, 2])
        square, inverse = state.descent, state.norm[0]
        torch.mul(along[0], along[0], out=square).addcmul_(along[1], along[1])
        torch.reciprocal(square, out=inverse).neg_().masked_fill_(square <= SMALLEST_GRADIENT, 0)
        torch.sub(image, onset, out=state.offset)
        for part in (0, 1):
            state.offset.addcmul_(along[part], flow[part], value=-1)
            torch.mul(along[part], scale, out=state.ascent[part])
            torch.mul(along[part], inverse, out=state.slope[part])
        state.offset.mul_(inverse)
        state.slope.div_(scale)

    def _iterate_alone(self) -> None:
        threshold = self.settings.weights.quantum * self._pixels
        for filters, iterations in self.settings.runs:
            self._advance(filters, iterations)
            self.iterations += iterations
            # NaN compares false, so a diverging pair stops at once.
            if not float(self.state.squares().sum()) > threshold:
                return

    def _iterate(self, position: int) -> None:
        """Iterate from a position of `runs` on, until every pair is set aside."""
        runs = self.settings.runs
        self._monitor.forget()
        for number in range(position, len(runs)):
            kind = runs[number]
            self._graphs.get(kind, functools.partial(self._run, *kind))()
            self.iterations += kind[1]
            active = self._monitor.look(self.active)
            if active is None:
                continue
            going = [i for i, goes in enumerate(active) if goes]
            if not going:
                return
            if self.count > 1 and len(going) <= self.count // 2 and number + 1 < len(runs):
                self._continue_smaller(going, number + 1)
                return
        self._set_aside(self.active)

    def _advance(self, filters: bool, iterations: int) -> None:
        """Filter if asked, then run iterations; `state.update` is then what the last one added."""
        state, weights = self.state, self.settings.weights
        if filters and self._median is not None:
            self._median(state.u, state.u)
        if not self.settings.compiled:
            for _ in range(iterations):
                state.iterate(weights)
            return
        fixed = (state.slope, state.ascent, state.offset)
        found = compiled_advance()(state.u, state.p, fixed, weights, iterations)
        for target, source in zip((state.u, state.p, state.update), found, strict=True):
            target.copy_(source)

    def _run(self, filters: bool, iterations: int) -> None:
        """Advance and set aside the pairs that have converged; waits for nothing, so it can be recorded."""
        self._advance(filters, iterations)
        going = exact_sum(self.state.squares(), self.settings.weights) > int(FINENESS) * self._pixels
        self._set_aside(self.active & ~going)
        self.active.logical_and_(going)

    def _set_aside(self, which: torch.Tensor) -> None:
        """Keep the present state of pairs: bool (N,)."""
        mask = which[:, None, None]
        torch.where(mask, self.state.u, self.kept_u, out=self.kept_u)
        torch.where(mask, self.state.p, self.kept_p, out=self.kept_p)

    def _continue_smaller(self, going: list[int], position: int) -> None:
        """Let the pairs that still go on do so in a level of half the batch."""
        if self._smaller is None:
            self._smaller = Level((self.count // 2, *self.size), self.settings, self._median)
        small, used = self._smaller, len(going)
        before = small.iterations
        # Spare places repeat a pair, switched off.
        index = torch.tensor(going + going[:1] * (small.count - used), device=self.active.device)
        for name in ("u", "p", "slope", "ascent", "offset"):
            torch.index_select(getattr(self.state, name), -3, index, out=getattr(small.state, name))
        for source, target in ((self.kept_u, small.kept_u), (self.kept_p, small.kept_p)):
            torch.index_select(source, -3, index, out=target)
        torch.index_select(self.active, 0, index, out=small.active)
        small.active[used:] = False
        small._iterate(position)
        self.kept_u.index_copy_(-3, index[:used], small.kept_u[:, :used])
        self.kept_p.index_copy_(-3, index[:used], small.kept_p[:, :, :used])
        self.iterations += small.iterations - before
