"""One level of the pyramid: warps, median filterings and iterations until each pair has converged."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mer_flow.flow.params import TVL1Params
from mer_flow.flow.torch_tvl1.cuda import Monitor, captured
from mer_flow.flow.torch_tvl1.median import MedianFilter
from mer_flow.flow.torch_tvl1.steps import FINENESS, State, Weights, compiled_advance, exact_sum
from mer_flow.flow.torch_tvl1.warp import warp

#: Where the squared gradient is no larger, the data say nothing (OpenCV's FLT_EPSILON).
SMALLEST_GRADIENT = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Settings:
    """What decides the work of a level besides its images.

    Attributes:
        params: The parameters of TV-L1.
        border: `zeros` or `clamp`.
        check_every: Iterations between two looks at the stopping threshold.
        compiled: Fuse the iteration by `torch.compile`.
        graphs: Record each run of iterations once as a CUDA graph and replay it.
        alone: Pairs come one by one, so no sum need be the same in every batch (exact sums take 15 % of an
            iteration on the CPU).
    """

    params: TVL1Params
    border: str
    check_every: int
    compiled: bool = False
    graphs: bool = False
    alone: bool = False

    @functools.cached_property
    def scale(self) -> float:
        """The unit in which the flow is kept, tau / theta."""
        return self.params.tau / self.params.theta

    @functools.cached_property
    def weights(self) -> Weights:
        """The numbers of an iteration."""
        p = self.params
        return Weights(p.tau, p.lambda_ * p.theta, (p.epsilon * self.scale) ** 2)

    @functools.cached_property
    def runs(self) -> tuple[tuple[bool, int], ...]:
        """(filter first?, iterations) of every run between two looks at the threshold, in order."""
        p = self.params
        whole, rest = divmod(p.inner_iterations, self.check_every)
        lengths = [self.check_every] * whole + [rest] * (rest > 0)
        filters = p.median_filtering > 1
        return tuple(
            (filters and first, length)
            for _ in range(p.outer_iterations)
            for first, length in zip([True] + [False] * len(lengths), lengths, strict=False)
        )


class Level:
    """A batch of N pairs at one size, its memory kept between calls.

    A pair that has converged is set aside while the others go on; once half of a batch has, the rest moves
    to a level of half the batch. So no pair's result depends on its companions.

    Args:
        count: N.
        height: px.
        width: px.
        settings: What decides the work.
        device: Where the arrays live.
        median: The filter, shared by all levels; None where there is none.
    """

    def __init__(
        self,
        count: int,
        height: int,
        width: int,
        settings: Settings,
        device: torch.device,
        median: MedianFilter | None,
    ) -> None:
        self.state = State(count, height, width, device)
        self.settings, self.device, self._median = settings, device, median
        self.count, self._pixels = count, height * width
        self.iterations = 0  # run so far at this size, for benchmarks and tests
        if not settings.alone:
            self.active = torch.ones(count, dtype=torch.bool, device=device)
            self.kept_u, self.kept_p = torch.zeros_like(self.state.u), torch.zeros_like(self.state.p)
            self._monitor = Monitor(device)
        self._smaller: Level | None = None
        self._graphs: dict[tuple[bool, int], Callable[[], None]] = {}
        if settings.graphs:
            for kind in dict.fromkeys(settings.runs):
                self._graphs[kind] = captured(functools.partial(self._run, *kind))

    def solve(self, onset: torch.Tensor, apex: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        """Refines the flow of this level.

        Args:
            onset: float32 (N, H, W), grey levels 0 to 255.
            apex: float32 (N, 3, H', W'): the apex image and its gradient along x and y, extended by `padded`.
            flow: float32 (2, N, H, W) px of this level.

        Returns:
            float32 (2, N, H, W) px.
        """
        settings, state = self.settings, self.state
        torch.mul(flow, settings.scale, out=state.u)
        state.p.zero_()
        for _ in range(settings.params.warps):
            self._linearise(onset, apex)
            if settings.alone:
                self._iterate_alone()
            else:
                self.active.fill_(True)
                self._iterate(0)
                state.u.copy_(self.kept_u)
                state.p.copy_(self.kept_p)
        return state.u / settings.scale

    def _linearise(self, onset: torch.Tensor, apex: torch.Tensor) -> None:
        """Warps the apex by the present flow and prepares the coefficients of the iteration."""
        state, scale = self.state, self.settings.scale
        flow = torch.div(state.u, scale, out=state.update)
        warped = warp(apex, flow, self.settings.border)
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
        """Iterates from a position of `runs` on, until every pair is set aside."""
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
        """Filters if asked, then runs iterations; `state.update` is then what the last one added."""
        state, weights = self.state, self.settings.weights
        if filters and self._median is not None:
            self._median(state.u, state.u)
        if not self.settings.compiled:
            for _ in range(iterations):
                state.iterate(weights)
            return
        u, p, update = compiled_advance()(
            state.u, state.p, state.slope, state.ascent, state.offset, weights, iterations
        )
        for target, source in ((state.u, u), (state.p, p), (state.update, update)):
            target.copy_(source)

    def _run(self, filters: bool, iterations: int) -> None:
        """Advances and sets aside the pairs that have converged; waits for nothing, so it can be recorded."""
        self._advance(filters, iterations)
        going = exact_sum(self.state.squares(), self.settings.weights) > int(FINENESS) * self._pixels
        self._set_aside(self.active & ~going)
        self.active.logical_and_(going)

    def _set_aside(self, which: torch.Tensor) -> None:
        """Keeps the present state of pairs: bool (N,)."""
        mask = which[:, None, None]
        torch.where(mask, self.state.u, self.kept_u, out=self.kept_u)
        torch.where(mask, self.state.p, self.kept_p, out=self.kept_p)

    def _continue_smaller(self, going: list[int], position: int) -> None:
        """Lets the pairs that still go on do so in a level of half the batch."""
        _, height, width = self.state.shape
        if self._smaller is None:
            half = self.count // 2
            self._smaller = Level(half, height, width, self.settings, self.device, self._median)
        small = self._smaller
        before = small.iterations
        # Spare places repeat a pair, switched off.
        index = torch.tensor(going + going[:1] * (small.count - len(going)), device=self.device)
        for name in ("u", "p", "slope", "ascent", "offset"):
            torch.index_select(getattr(self.state, name), -3, index, out=getattr(small.state, name))
        for source, target in ((self.kept_u, small.kept_u), (self.kept_p, small.kept_p)):
            torch.index_select(source, -3, index, out=target)
        torch.index_select(self.active, 0, index, out=small.active)
        small.active[len(going) :] = False
        small._iterate(position)
        used = len(going)
        self.kept_u.index_copy_(-3, index[:used], small.kept_u[:, :used])
        self.kept_p.index_copy_(-3, index[:used], small.kept_p[:, :, :used])
        self.iterations += small.iterations - before
