"""Median filters of 3x3 and 5x5 px as pruned sorting networks: elementwise minima and maxima on any device.

Neighbouring windows share work: columns are sorted once, pairs of sorted columns are merged once (Batcher's
odd-even merge), and only the ranks that can be the median go on. 94 minima and maxima per pixel in place of
226 of the usual 113-comparator network, to the same bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


class _Builder:
    """Records minima and maxima of numbered values."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.operations: list[tuple[bool, int, int]] = []  # (maximum?, left, right)

    def _add(self, maximum: bool, left: int, right: int) -> int:
        self.operations.append((maximum, left, right))
        return self.inputs + len(self.operations) - 1

    def low(self, left: int, right: int) -> int:
        return self._add(False, left, right)

    def high(self, left: int, right: int) -> int:
        return self._add(True, left, right)

    def compare(self, values: list[int], i: int, j: int) -> None:
        values[i], values[j] = self.low(values[i], values[j]), self.high(values[i], values[j])

    def sort(self, values: Sequence[int]) -> list[int]:
        """Sorts up to five values with the fewest comparators."""
        pairs = {3: ((0, 2), (0, 1), (1, 2)), 5: _SORT_5}[len(values)]
        done = list(values)
        for i, j in pairs:
            self.compare(done, i, j)
        return done

    def merge(self, left: Sequence[int], right: Sequence[int]) -> list[int]:
        """Merges two sorted lists (Batcher 1968, doi:10.1145/1468075.1468121)."""
        if not left or not right:
            return [*left, *right]
        if len(left) == len(right) == 1:
            return [self.low(left[0], right[0]), self.high(left[0], right[0])]
        odd = self.merge(left[0::2], right[0::2])
        even = self.merge(left[1::2], right[1::2])
        done = [odd[0]]
        for i in range(max(len(even), len(odd) - 1)):
            if i < len(even) and i + 1 < len(odd):
                done += [self.low(even[i], odd[i + 1]), self.high(even[i], odd[i + 1])]
            else:
                done.append(even[i] if i < len(even) else odd[i + 1])
        return done

    def select(self, left: Sequence[int], right: Sequence[int], rank: int) -> int:
        """Returns the rank-th smallest of two sorted lists: the least of max(left_i, right_(rank - i))."""
        terms = []
        for i in range(rank + 1):
            j = rank - i
            if i > len(left) or j > len(right):
                continue
            if i == 0 or j == 0:
                terms.append(right[j - 1] if i == 0 else left[i - 1])
            else:
                terms.append(self.high(left[i - 1], right[j - 1]))
        least = terms[0]
        for term in terms[1:]:
            least = self.low(least, term)
        return least

    def program(self, outputs: Sequence[int]) -> Program:
        """Keeps what the outputs need and gives every value a register, reused once its value is dead."""
        needed = set(outputs)
        for number in range(len(self.operations) - 1, -1, -1):
            if self.inputs + number in needed:
                needed.update(self.operations[number][1:])
        kept = [n for n in range(len(self.operations)) if self.inputs + n in needed]
        last = {value: len(kept) for value in outputs}
        for position in range(len(kept) - 1, -1, -1):
            for value in self.operations[kept[position]][1:]:
                last.setdefault(value, position)
        free: list[int] = []
        registers = 0
        place: dict[int, int] = {}
        steps: list[tuple[bool, int, int, int]] = []
        for position, number in enumerate(kept):
            maximum, left, right = self.operations[number]
            first, second = (v if v < self.inputs else self.inputs + place[v] for v in (left, right))
            # Both sources are read before the result is written, so a dying source may hold it.
            for value in {left, right}:
                if value >= self.inputs and last[value] == position:
                    free.append(place[value])
            if not free:
                free.append(registers)
                registers += 1
            place[self.inputs + number] = free.pop()
            steps.append((maximum, first, second, place[self.inputs + number]))
        found = tuple(v if v < self.inputs else self.inputs + place[v] for v in outputs)
        return Program(tuple(steps), registers, found)


_SORT_5 = ((0, 3), (1, 4), (0, 2), (1, 3), (0, 1), (2, 4), (1, 2), (3, 4), (2, 3))


@dataclass(frozen=True, slots=True)
class Program:
    """Minima and maxima over inputs and registers.

    Attributes:
        steps: (maximum?, source, source, register); sources count the inputs first, then the registers.
        registers: How many registers it needs.
        outputs: Where the results lie, counted likewise.
    """

    steps: tuple[tuple[bool, int, int, int], ...]
    registers: int
    outputs: tuple[int, ...]

    def run(self, inputs: Sequence[torch.Tensor], registers: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Runs it.

        Args:
            inputs: Tensors of one shape.
            registers: `self.registers` tensors of that shape, overwritten.

        Returns:
            The outputs: registers, or inputs that needed no step.
        """
        values = [*inputs, *registers]
        for maximum, left, right, into in self.steps:
            operation = torch.maximum if maximum else torch.minimum
            operation(values[left], values[right], out=registers[into])
        return [values[place] for place in self.outputs]

    def evaluate(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Returns the outputs without writing into anything, for a compiler to fuse."""
        values = [*inputs, *inputs[:1] * self.registers]
        for maximum, left, right, into in self.steps:
            operation = torch.maximum if maximum else torch.minimum
            values[len(inputs) + into] = operation(values[left], values[right])
        return [values[place] for place in self.outputs]


@functools.cache
def _compiled(program: Program) -> Callable[..., list[torch.Tensor]]:
    return torch.compile(program.evaluate, dynamic=True)


def _sort_columns(size: int) -> Program:
    builder = _Builder(size)
    return builder.program(builder.sort(range(size)))


def _merge_pairs() -> Program:
    builder = _Builder(10)
    return builder.program(builder.merge(range(5), range(5, 10)))


def _median_of_columns() -> Program:
    """The median of two merged pairs of columns, 10 values each, and one sorted column of five."""
    builder = _Builder(25)
    both = builder.merge(range(10), range(10, 20))
    # Of the twenty, only ranks 8 to 13 can be the 13th of the twenty-five.
    return builder.program([builder.select(both[7:13], range(20, 25), 6)])


def _median_of_nine() -> Program:
    """The median of three sorted columns of three: of the largest low, the middle middle, the least high."""
    builder = _Builder(9)
    low = builder.high(builder.high(0, 3), 6)
    high = builder.low(builder.low(2, 5), 8)
    middle = builder.sort([1, 4, 7])[1]
    return builder.program([builder.sort([low, middle, high])[1]])


SORT_3, SORT_5 = _sort_columns(3), _sort_columns(5)
MERGE_PAIRS, MEDIAN_25, MEDIAN_9 = _merge_pairs(), _median_of_columns(), _median_of_nine()


class MedianFilter:
    """Median filter with its memory; edges repeat, as in OpenCV's `medianBlur`.

    Args:
        size: Side of the window, px: 3 or 5.
        compiled: Fuse it by `torch.compile`; the bits stay the same.
    """

    def __init__(self, size: int, compiled: bool = False) -> None:
        self.size, self.compiled = size, compiled
        self._columns, self._last = (SORT_3, MEDIAN_9) if size == 3 else (SORT_5, MEDIAN_25)
        self._counts = (self._columns.registers, MERGE_PAIRS.registers * (size == 5), self._last.registers)
        self._memory = torch.empty(0)

    def reserve(self, count: int, height: int, width: int, device: torch.device) -> None:
        """Takes the memory for `count` planes, which then stays where it is for as many or fewer."""
        size = 0 if self.compiled else sum(self._counts) * count * height * (width + 2 * (self.size // 2))
        if self._memory.numel() < size or self._memory.device != device:
            self._memory = torch.empty(size, device=device)

    def __call__(self, planes: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Filters planes.

        Args:
            planes: float32 (..., H, W).
            out: Where the result goes, same shape; may be `planes`.

        Returns:
            `out`.
        """
        height, width = planes.shape[-2:]
        reach = self.size // 2
        flat = planes.reshape(-1, height, width)
        padded = F.pad(flat, (reach, reach, reach, reach), mode="replicate")
        first, second, third = self._registers(len(flat), height, width + 2 * reach, planes.device)
        columns = self._run(self._columns, [padded[:, k : k + height] for k in range(self.size)], first)
        if self.size == 3:
            inputs = [column[..., k : k + width] for k in range(3) for column in columns]
        else:
            wide = width + 3
            both = [column[..., k : k + wide] for k in (0, 1) for column in columns]
            pairs = self._run(MERGE_PAIRS, both, [register[..., :wide] for register in second])
            inputs = [pair[..., k : k + width] for k in (0, 2) for pair in pairs]
            inputs += [column[..., 4 : 4 + width] for column in columns]
        [median] = self._run(self._last, inputs, [register[..., :width] for register in third])
        out.copy_(median.reshape(out.shape))
        return out

    def _run(
        self, program: Program, inputs: Sequence[torch.Tensor], registers: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        return _compiled(program)(*inputs) if self.compiled else program.run(inputs, registers)

    def _registers(
        self, count: int, height: int, width: int, device: torch.device
    ) -> list[Sequence[torch.Tensor]]:
        self.reserve(count, height, width - 2 * (self.size // 2), device)
        if self.compiled:
            return [(), (), ()]
        shape = (sum(self._counts), count, height, width)
        return _split(self._memory[: math.prod(shape)].view(shape).unbind(0), self._counts)


def _split(items: Sequence[torch.Tensor], counts: Iterable[int]) -> list[Sequence[torch.Tensor]]:
    parts, start = [], 0
    for count in counts:
        parts.append(items[start : start + count])
        start += count
    return parts
