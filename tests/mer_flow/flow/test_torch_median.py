"""The median networks against OpenCV and a sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mer_flow.flow.torch_tvl1 import median as median_module
from mer_flow.flow.torch_tvl1.median import (
    MEDIAN_9,
    MEDIAN_25,
    MERGE_PAIRS,
    SORT_3,
    SORT_5,
    MedianFilter,
)
from mer_flow.work.libraries import load_cv2


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(16, 16), (33, 47), (90, 64)])
@pytest.mark.parametrize("kind", ["noise", "ties", "tiny"])
def test_the_median_has_the_bits_of_opencv(size: int, shape: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(3)
    planes = rng.normal(size=(2, 3, *shape)).astype(np.float32)
    if kind == "ties":
        planes = np.rint(2 * planes)
    elif kind == "tiny":
        planes *= np.float32(1e-38)
    want = np.stack([[load_cv2().medianBlur(plane, size) for plane in part] for part in planes])
    given = torch.from_numpy(planes)
    got = MedianFilter(size)(given, torch.empty_like(given)).numpy()
    np.testing.assert_array_equal(got, want)
    assert (got != planes).any()


def test_a_filter_may_write_over_its_input_and_be_used_for_other_sizes() -> None:
    median = MedianFilter(5)
    planes = torch.randn(2, 40, 40, generator=torch.Generator().manual_seed(0))
    want = median(planes, torch.empty_like(planes)).clone()
    small = planes[:, :20, :24].contiguous()
    fresh = MedianFilter(5)(small, torch.empty_like(small))
    assert torch.equal(median(small, torch.empty_like(small)), fresh)
    assert torch.equal(median(planes, planes), want)


@pytest.mark.parametrize("size", [3, 5])
def test_without_registers_the_bits_are_the_same(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a compiler is given is the same network; compiling it is tested with the flow."""
    planes = torch.randn(2, 21, 30, generator=torch.Generator().manual_seed(1))
    want = MedianFilter(size)(planes, torch.empty_like(planes))
    monkeypatch.setattr(median_module, "_compiled", lambda program: program.run)
    assert torch.equal(MedianFilter(size, compiled=True)(planes, torch.empty_like(planes)), want)


def test_every_pattern_of_zeros_and_ones_sorts() -> None:
    """A network that sorts all of these sorts everything (Knuth's 0-1 principle)."""
    for program, size in ((SORT_3, 3), (SORT_5, 5)):
        inputs = [torch.tensor([n >> k & 1 for n in range(2**size)]).float() for k in range(size)]
        got = torch.stack(program.run(inputs))
        assert torch.equal(got, torch.stack(inputs).sort(dim=0).values)


def test_every_sorted_pattern_merges_and_gives_its_median() -> None:
    """Columns of zeros and ones are told by their number of ones; the median is 1 from 13 (or 5) ones on."""

    def column(ones: torch.Tensor, size: int) -> list[torch.Tensor]:
        return [(ones >= size - k).float() for k in range(size)]

    a, b = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    merged = MERGE_PAIRS.run([*column(a, 5), *column(b, 5)])
    assert torch.equal(torch.stack(merged), torch.stack(column(a + b, 10)))
    a, b, c = torch.meshgrid(torch.arange(11), torch.arange(11), torch.arange(6), indexing="ij")
    inputs = [*column(a, 10), *column(b, 10), *column(c, 5)]
    [median] = MEDIAN_25.run(inputs)
    assert torch.equal(median, (a + b + c >= 13).float())
    a, b, c = torch.meshgrid(torch.arange(4), torch.arange(4), torch.arange(4), indexing="ij")
    [median] = MEDIAN_9.run([*column(a, 3), *column(b, 3), *column(c, 3)])
    assert torch.equal(median, (a + b + c >= 5).float())
