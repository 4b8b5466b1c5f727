"""TV-L1 through OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np

from mer_flow.flow.base import check_finite, check_pairs
from mer_flow.flow.params import TVL1Params
from mer_flow.work.errors import FlowError
from mer_flow.work.libraries import load_cv2


class OpenCVTVL1:
    """OpenCV's DualTVL1OpticalFlow, one object per image size; OpenCV 4 and 5 differ by about 0.01 px."""

    name = "opencv-tvl1"

    def __init__(self, params: TVL1Params) -> None:
        self._cv2 = load_cv2()
        self._params = params
        self._solvers: dict[tuple[int, int], Any] = {}
        self.version = f"cv2 {self._cv2.__version__}"

    def _solver(self, shape: tuple[int, int]) -> Any:
        # A solver that has seen a small image keeps its fewer pyramid levels for the next, larger one.
        if shape not in self._solvers:
            p = self._params
            self._solvers[shape] = self._cv2.optflow.DualTVL1OpticalFlow_create(
                tau=p.tau, lambda_=p.lambda_, theta=p.theta, nscales=p.nscales, warps=p.warps,
                epsilon=p.epsilon, innnerIterations=p.inner_iterations,  # OpenCV's spelling
                outerIterations=p.outer_iterations, scaleStep=p.scale_step, gamma=p.gamma,
                medianFiltering=p.median_filtering,
            )  # fmt: skip
        return self._solvers[shape]

    def compute(self, onset: np.ndarray, apex: np.ndarray) -> np.ndarray:
        """Compute flow as `FlowBackend` says; OpenCV multiplies float images by 255, so they are refused."""
        check_pairs(onset, apex)
        count, height, width = onset.shape
        result = np.empty((count, 2, height, width), dtype=np.float32)
        solver = self._solver((height, width))
        for i in range(count):
            try:
                flow = solver.calc(np.ascontiguousarray(onset[i]), np.ascontiguousarray(apex[i]), None)
            except self._cv2.error as error:
                raise FlowError(f"OpenCV TV-L1 failed on a {width}x{height} px pair: {error}") from error
            result[i] = flow.transpose(2, 0, 1)
        check_finite(result, self.name)
        return result
