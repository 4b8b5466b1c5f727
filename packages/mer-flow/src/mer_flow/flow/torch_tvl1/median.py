"""Median filters of 3x3 and 5x5 px as pruned sorting networks: elementwise minima and maxima on any device.

Neighbouring windows share work: columns are sorted once, pairs of sorted columns are merged once (Batcher's
odd-even merge), and only the ranks that can be the median go on. 94 minima and maxima per pixel in place of
226 of the usual 113-comparator network, to the same bits.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

#: Comparators that sort three and five values, the fewest possible.
_COMPARATORS = {
    3: ((0, 2), (0, 1), (1, 2)),
    5: ((0, 3), (1, 4), (0, 2), (1, 3), (0, 1), (2, 4), (1, 2), (3, 4), (2, 3)),
}


@dataclass(frozen=True, slots=True)
class Program:
    """Minima and maxima over inputs and registers.

    Attributes:
        steps: (operation, source, source, register); sources count the inputs first, then the registers.
        registers: How many registers it needs.
        outputs: Where the results lie, counted as sources are.
    """

    steps: tuple[tuple[Callable[..., torch.Tensor], int, int, int], ...]
    registers: int
    outputs: tuple[int, ...]

    def run(self, inputs: list[torch.Tensor], registers: Sequence[torch.Tensor] = ()) -> list[torch.Tensor]:
        """Return the outputs, given tensors of one shape.

        `registers`, as many such tensors as it needs, are overwritten. Without them nothing is written into,
        so that a compiler can fuse it.
        """
        values = inputs + (list(registers) or inputs[:1] * self.registers)
        for operation, left, right, into in self.steps:
            out = registers[into] if registers else None
            values[len(inputs) + into] = operation(values[left], values[right], out=out)
        return [values[place] for place in self.outputs]


@dataclass(frozen=True, slots=True, eq=False)
class _Value:
    """An input, or the minimum or maximum of two other values."""

    operation: Callable[..., torch.Tensor] = torch.clone
    sources: tuple[_Value, ...] = ()
    born: int = field(default_factory=itertools.count().__next__)


def _low(left: _Value, right: _Value) -> _Value:
    return _Value(torch.minimum, (left, right))


def _high(left: _Value, right: _Value) -> _Value:
    return _Value(torch.maximum, (left, right))


def _sort(values: Sequence[_Value]) -> list[_Value]:
    done = list(values)
    for i, j in _COMPARATORS[len(done)]:
        done[i], done[j] = _low(done[i], done[j]), _high(done[i], done[j])
    return done


def _merge(left: Sequence[_Value], right: Sequence[_Value]) -> list[_Value]:
    """Merge two sorted lists (Batcher 1968, doi:10.1145/1468075.1468121)."""
    if not left or not right:
        return [*left, *right]
    if len(left) == len(right) == 1:
        return [_low(left[0], right[0]), _high(left[0], right[0])]
    odd, even = _merge(left[0::2], right[0::2]), _merge(left[1::2], right[1::2])
    done = odd[:1]
    for low, high in zip(even, odd[1:], strict=False):
        done += [_low(low, high), _high(low, high)]
    return done + even[len(odd) - 1 :] + odd[len(even) + 1 :]


def _select(left: Sequence[_Value], right: Sequence[_Value], rank: int) -> _Value:
    """Return the rank-th smallest of two sorted lists: the least of max(left_i, right_(rank - i))."""
    terms = []
    for i in range(max(0, rank - len(right)), min(rank, len(left)) + 1):
        pair = (*left[i - 1 : i], *right[rank - i - 1 : rank - i])
        terms.append(functools.reduce(_high, pair))
    return functools.reduce(_low, terms)


def _program(size: int, network: Callable[[list[_Value]], list[_Value]]) -> Program:
    """Keep what the outputs of a network need and give every value a register, reused once it is dead."""
    inputs = [_Value() for _ in range(size)]
    outputs = network(inputs)
    needed, new = set(outputs), set(outputs)
    while new:
        new = {source for value in new for source in value.sources} - needed
        needed |= new
    order = sorted(needed - set(inputs), key=lambda value: value.born)
    last = {source: value for value in order for source in value.sources}
    place = {value: number for number, value in enumerate(inputs)}
    free: list[int] = []
    registers, steps = 0, []
    for value in order:
        left, right = (place[source] for source in value.sources)
        # Both sources are read before the result is written, so a dying source may hold it.
        dying = {place[source] for source in value.sources if last[source] is value and source not in outputs}
        free += [register for register in dying if register >= len(inputs)]
        if not free:
            free.append(len(inputs) + registers)
            registers += 1
        place[value] = free.pop()
        steps.append((value.operation, left, right, place[value] - len(inputs)))
    return Program(tuple(steps), registers, tuple(place[value] for value in outputs))


def _median_of_columns(values: list[_Value]) -> list[_Value]:
    """The median of two merged pairs of columns, 10 values each, and one sorted column of five."""
    both = _merge(values[:10], values[10:20])
    # Of the twenty, only ranks 8 to 13 can be the 13th of the twenty-five.
    return [_select(both[7:13], values[20:], 6)]


def _median_of_nine(values: list[_Value]) -> list[_Value]:
    """The median of three sorted columns of three: of the largest low, the middle middle, the least high."""
    low, high = functools.reduce(_high, values[0::3]), functools.reduce(_low, values[2::3])
    return _sort([low, _sort(values[1::3])[1], high])[1:2]


SORT_3, SORT_5 = _program(3, _sort), _program(5, _sort)
MERGE_PAIRS = _program(10, lambda values: _merge(values[:5], values[5:]))
MEDIAN_9, MEDIAN_25 = _program(9, _median_of_nine), _program(25, _median_of_columns)


@functools.cache
def _compiled(program: Program) -> Callable[..., list[torch.Tensor]]:
    return torch.compile(program.run, dynamic=True)


class MedianFilter:
    """Median filter with its memory; edges repeat, as in OpenCV's `medianBlur`.

    Args:
        size: Side of the window, px: 3 or 5.
        compiled: Fuse it by `torch.compile`; the bits stay the same.
    """

    def __init__(self, size: int, compiled: bool = False) -> None:
        self.size, self.compiled = size, compiled
        self._programs = (SORT_3, MEDIAN_9) if size == 3 else (SORT_5, MERGE_PAIRS, MEDIAN_25)
        self._counts = [0 if compiled else program.registers for program in self._programs]
        self._memory = torch.empty(0)

    def reserve(self, count: int, height: int, width: int, device: torch.device) -> None:
        """Take the memory for `count` planes, which then stays where it is for as many or fewer."""
        size = sum(self._counts) * count * height * (width + self.size - 1)
        if self._memory.numel() < size or self._memory.device != device:
            self._memory = torch.empty(size, device=device)

    def __call__(self, planes: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Filter float32 (..., H, W) into `out`, of the same shape, which may be `planes`, and return it."""
        height, width = planes.shape[-2:]
        reach = self.size // 2
        padded = F.pad(planes.reshape(-1, height, width), (reach,) * 4, mode="replicate")
        self.reserve(len(padded), height, width, planes.device)
        shape = torch.Size((sum(self._counts), len(padded), height, padded.shape[-1]))
        registers = self._memory[: shape.numel()].view(shape).split(self._counts)

        def run(number: int, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
            program = self._programs[number]
            if self.compiled:
                return _compiled(program)(inputs)
            return program.run(inputs, registers[number][..., : inputs[0].shape[-1]].unbind(0))

        columns = run(0, [padded[:, k : k + height] for k in range(self.size)])
        if self.size == 3:
            inputs = [column[..., k : k + width] for k in range(3) for column in columns]
        else:
            pairs = run(1, [column[..., k : k + width + 3] for k in (0, 1) for column in columns])
            inputs = [pair[..., k : k + width] for k in (0, 2) for pair in pairs]
            inputs += [column[..., 4 : 4 + width] for column in columns]
        [median] = run(-1, inputs)
        return out.copy_(median.reshape(out.shape))
