"""TV-L1 in PyTorch: OpenCV's algorithm and parameters, one pair at a time on the CPU, batches on CUDA."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch

from mer_flow.flow.base import backend_version, check_finite, check_pairs
from mer_flow.flow.params import BackendOptions, TVL1Params
from mer_flow.flow.torch_tvl1.cuda import bytes_per_pair, fitting_batch, free_memory
from mer_flow.flow.torch_tvl1.median import MedianFilter
from mer_flow.flow.torch_tvl1.pyramid import level_shapes, resize
from mer_flow.flow.torch_tvl1.solver import Level, Settings
from mer_flow.flow.torch_tvl1.warp import gradient, padded
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
        options: Border, device and so on, resolved by `mer_flow.flow.base.resolve_options`.
        batch: Pairs computed at once; None takes one on the CPU, where more do not pay, and on CUDA what fits
            into memory.

    Attributes:
        name: `torch-tvl1`.
        version: Revision of this code, PyTorch's version, the kind of device, and whether it is compiled.

    Raises:
        UsageError: `gamma` is not 0, or there is no CUDA device.
    """

    name = "torch-tvl1"

    def __init__(self, params: TVL1Params, options: BackendOptions, batch: int | None = None) -> None:
        if params.gamma:
            raise UsageError(
                f"torch-tvl1 has no illumination variable, got flow.gamma={params.gamma}; "
                "set flow.gamma=0, or flow.backend=opencv-tvl1"
            )
        self._params, self._batch = params, batch
        self.version = backend_version(self.name, options)
        self._device = torch.device(options.device)
        cuda = self._device.type == "cuda"
        self._settings = Settings(
            params,
            options.border,
            options.check_every,
            compiled=options.compile == "on",
            graphs=cuda,
            alone=not cuda and (batch or 1) == 1,
        )
        self._plans: OrderedDict[tuple[int, int, int], _Plan] = OrderedDict()

    def compute(self, onset: np.ndarray, apex: np.ndarray, initial: np.ndarray | None = None) -> np.ndarray:
        """Computes the displacement from onset to apex.

        Args:
            onset: uint8 (N, H, W) grey.
            apex: uint8 (N, H, W) grey.
            initial: float32 (N, 2, H, W) px to start from, taken with `use_initial_flow` only; None is zero.

        Returns:
            float32 (N, 2, H, W): u (+x right), v (+y down), px.

        Raises:
            FlowError: The inputs do not fit, memory runs out, or the result is not finite.
        """
        check_pairs(onset, apex)
        count, height, width = onset.shape
        if initial is not None and initial.shape != (count, 2, height, width):
            raise FlowError(f"initial flow must be {(count, 2, height, width)}, got {initial.shape}")
        result = np.empty((count, 2, height, width), dtype=np.float32)
        batch = self._batch_for(height, width)
        start = 0
        while start < count:
            part = slice(start, start + batch)
            given = initial[part] if initial is not None and self._params.use_initial_flow else None
            try:
                result[part] = self._compute(onset[part], apex[part], given)
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
        if self._device.type == "cpu":
            return 1
        kept = max((plan.count for plan in self._plans.values() if plan.fits(height, width)), default=0)
        batch = max(kept, fitting_batch(height, width, free_memory(self._device)))
        if not batch:
            raise self._too_large(height, width)
        return batch

    def _too_large(self, height: int, width: int) -> FlowError:
        need, free = bytes_per_pair(height, width) / 2**20, free_memory(self._device) / 2**20
        return FlowError(
            f"one pair of {width}x{height} px needs about {need:.0f} MB of GPU memory and {free:.0f} MB are "
            "free; end other programs on the GPU, set a smaller align.size, or use --device cpu"
        )

    @torch.no_grad()
    def _compute(self, onset: np.ndarray, apex: np.ndarray, initial: np.ndarray | None) -> np.ndarray:
        count, height, width = onset.shape
        # A last, smaller batch is filled up to a power of two: few sizes, each prepared once.
        size = count if self._settings.alone else 1 << (count - 1).bit_length()
        filled = [*range(count), *[count - 1] * (size - count)]
        key = (size, height, width)
        if key not in self._plans:
            while len(self._plans) >= _KEPT_PLANS:
                self._plans.popitem(last=False)
            self._plans[key] = _Plan(size, height, width, self._settings, self._device)
        self._plans.move_to_end(key)
        start = None if initial is None else torch.from_numpy(initial[filled].astype(np.float32))
        flow = self._plans[key].run(
            torch.from_numpy(onset[filled]).to(self._device).float(),
            torch.from_numpy(apex[filled]).to(self._device).float(),
            None if start is None else start.to(self._device).movedim(1, 0),
        )
        return np.asarray(flow[:, :count].movedim(1, 0).cpu().numpy())


class _Plan:
    """The pyramid of one batch size, its memory kept between calls."""

    def __init__(self, count: int, height: int, width: int, settings: Settings, device: torch.device) -> None:
        p = settings.params
        self.count = count
        self._step, self._border, self._device = p.scale_step, settings.border, device
        self._shapes = level_shapes(height, width, p.nscales, p.scale_step)
        median = MedianFilter(p.median_filtering, settings.compiled) if p.median_filtering > 1 else None
        if median is not None:
            median.reserve(2 * count, height, width, device)
        self.levels = [Level(count, *shape, settings, device, median) for shape in self._shapes]

    def fits(self, height: int, width: int) -> bool:
        """Returns whether it is for images of this size."""
        return self._shapes[0] == (height, width)

    def run(self, onset: torch.Tensor, apex: torch.Tensor, initial: torch.Tensor | None) -> torch.Tensor:
        """Computes the flow of a batch, coarse to fine: float32 (2, N, H, W)."""
        onsets, apexes = [onset], [apex]
        for shape in self._shapes[1:]:
            onsets.append(resize(onsets[-1], shape, self._step))
            apexes.append(resize(apexes[-1], shape, self._step))
        flow = torch.zeros(2, self.count, *self._shapes[-1], device=self._device)
        if initial is not None:
            flow = initial
            for shape in self._shapes[1:]:
                flow = resize(flow, shape, self._step) * self._step
        for number in range(len(self.levels) - 1, -1, -1):
            images = torch.stack([apexes[number], *gradient(apexes[number])], dim=1)
            images = padded(images, self._border)
            flow = self.levels[number].solve(onsets[number], images, flow)
            if number:
                flow = resize(flow, self._shapes[number - 1]) / self._step
        return flow
