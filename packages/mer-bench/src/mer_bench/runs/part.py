"""Which folds of a run one call trains: the first few, or one of several shards that share the run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from mer_bench.errors import UsageError
from mer_bench.protocols.folds import Fold


@dataclass(frozen=True)
class Shard:
    """One of `count` calls that train a run together, numbered from 1; each trains every `count`-th fold.

    >>> Shard.parse("3/16")
    Shard(number=3, count=16)
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `3/16`; UsageError where it is something else."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise UsageError(f"--shard {text[:60]}: expected NUMBER/COUNT from 1/COUNT on, as in 3/16")
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def lock(self) -> str:
        """Name of its lock file in a run."""
        return f".lock-{self.number}-of-{self.count}"


@dataclass(frozen=True)
class Part:
    """What one call trains of a run.

    Attributes:
        limit: The first so many folds of the set; the run stays incomplete.
        shard: One share of them; None for all.
    """

    limit: int | None = None
    shard: Shard | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit must be at least 1, got {self.limit}")

    def of(self, seeds: Sequence[int], folds: Sequence[Fold]) -> Mapping[int, Sequence[Fold]]:
        """Return the folds of each seed that this call is to train."""
        step, first = (self.shard.count, self.shard.number - 1) if self.shard else (1, 0)
        wanted = [(seed, fold) for seed in seeds for fold in folds[: self.limit]][first::step]
        return {seed: [fold for other, fold in wanted if other == seed] for seed in seeds}
