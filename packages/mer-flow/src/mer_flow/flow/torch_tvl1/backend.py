"""TV-L1 in PyTorch: OpenCV's algorithm and parameters, one pair at a time on the CPU, batches on CUDA."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch

from mer_flow.flow.base import check_finite, check_pairs
from mer_flow.flow.params import BackendOptions, TVL1Params
from mer_flow.flow.torch_tvl1 import version
from mer_flow.flow.torch_tvl1.cuda import bytes_per_pair, fitting_batch, free_memory
from mer_flow.flow.torch_tvl1.images import level_shapes, power_of_two, resize
from mer_flow.flow.torch_tvl1.median import MedianFilter
from mer_flow.flow.torch_tvl1.solver import Level, Settings
from mer_flow.work.errors import FlowError, UsageError

#: Batch sizes whose memory is kept at a time.
_KEPT_PLANS = 2


class TorchTVL1:
    """Zach, Pock and Bischof 2007, doi:10.1007/978-3-540-74936-3_22, as in OpenCV's DualTVL1OpticalFlow.

    What differs: positions of a warp are exact (OpenCV 4 rounds them to 1/32 px), the border may go on
    instead of being zero, and the stopping threshold may be looked at every few iterations only. A pair's
    flow does not depend on its companions in a batch.

    Args:
        params: The parameters, with OpenCV's meaning; `gamma` must be 0.
        options: Border, device and so on, none of them `auto`.
        batch: Pairs computed at once; None takes one on the CPU, where more do not pay, and on CUDA what fits
            into memory.

    Raises:
        UsageError: `gamma` is not 0.
    """

    name = "torch-tvl1"

    def __init__(self, params: TVL1Params, options: BackendOptions, batch: int | None = None) -> None:
        if params.gamma:
            raise UsageError(
                f"torch-tvl1 has no illumination variable, got flow.gamma={params.gamma}; "
                "set flow.gamma=0, or flow.backend=opencv-tvl1"
            )
        self.version = version(torch.__version__, options)
        self._batch = batch
        self._settings = Settings(params, options, alone=options.device == "cpu" and (batch or 1) == 1)
        self._plans: OrderedDict[tuple[int, int, int], list[Level]] = OrderedDict()

    def compute(self, onset: np.ndarray, apex: np.ndarray) -> np.ndarray:
        """Compute flow as `FlowBackend` says; it also fails where memory runs out."""
        check_pairs(onset, apex)
        count, height, width = onset.shape
        result = np.empty((count, 2, height, width), dtype=np.float32)
        batch = self._batch_for(height, width)
        start = 0
        while start < count:
            part = slice(start, start + batch)
            try:
                result[part] = self._compute(onset[part], apex[part])
            except torch.cuda.OutOfMemoryError as error:
                self._plans.clear()
                torch.cuda.empty_cache()
                if batch == 1:
                    raise self._too_large(height, width) from error
                self._batch = batch = batch // 2
                continue
            except RuntimeError as error:
                remedy = "; set flow.compile=off" if self._settings.compiled else ""
                raise FlowError(f"torch-tvl1 failed on {width}x{height} px: {error}{remedy}") from error
            start += batch
        check_finite(result, self.name)
        return result

    def _batch_for(self, height: int, width: int) -> int:
        if self._batch is not None:
            return self._batch
        if self._settings.alone:
            return 1
        kept = max((key[0] for key in self._plans if key[1:] == (height, width)), default=0)
        batch = max(kept, fitting_batch(height, width, free_memory(self._settings.device)))
        if not batch:
            raise self._too_large(height, width)
        return batch

    def _too_large(self, height: int, width: int) -> FlowError:
        need, free = bytes_per_pair(height, width), free_memory(self._settings.device)
        return FlowError(
            f"one pair of {width}x{height} px needs about {need / 2**20:.0f} MB of GPU memory and "
            f"{free / 2**20:.0f} MB are free; end other programs on the GPU, set a smaller align.size, or "
            "use --device cpu"
        )

    @torch.no_grad()
    def _compute(self, onset: np.ndarray, apex: np.ndarray) -> np.ndarray:
        """Compute one batch, coarse to fine."""
        count, height, width = onset.shape
        # A last, smaller batch is filled up to a power of two: few sizes, each prepared once.
        size = count if self._settings.alone else power_of_two(count)
        filled = [*range(count), *[count - 1] * (size - count)]
        levels = self._levels(size, height, width)
        device, step = self._settings.device, self._settings.params.scale_step
        pyramid = [[torch.from_numpy(frames[filled]).to(device).float() for frames in (onset, apex)]]
        for level in levels[1:]:
            pyramid.append([resize(images, level.size, step) for images in pyramid[-1]])
        flow = torch.zeros(2, *pyramid[-1][0].shape, device=device)
        for number in range(len(levels) - 1, -1, -1):
            first, last = pyramid[number]
            flow = levels[number].solve(first, last, flow)
            if number:
                flow = resize(flow, levels[number - 1].size) / step
        return np.asarray(flow[:, :count].movedim(1, 0).cpu().numpy())

    def _levels(self, count: int, height: int, width: int) -> list[Level]:
        """Return the pyramid of a batch size, its memory kept between calls, finest level first."""
        key, settings, p = (count, height, width), self._settings, self._settings.params
        if key not in self._plans:
            while len(self._plans) >= _KEPT_PLANS:
                self._plans.popitem(last=False)
            median = None
            if p.median_filtering > 1:
                median = MedianFilter(p.median_filtering, settings.compiled)
                median.reserve(2 * count, height, width, settings.device)
            shapes = level_shapes(height, width, p.nscales, p.scale_step)
            self._plans[key] = [Level((count, *shape), settings, median) for shape in shapes]
        self._plans.move_to_end(key)
        return self._plans[key]
