"""The parameters of TV-L1, as numbers only: importing this loads no backend."""

from __future__ import annotations

from dataclasses import dataclass

from mer_flow.work.errors import UsageError
from mer_flow.work.suggest import unknown

#: No scheme needs more scales, warps or iterations; a typing error may ask for a year.
MOST_STEPS = 10_000
#: Flow backends by name.
FLOW_BACKENDS = ("opencv-tvl1", "torch-tvl1")
#: Short names that mean one of them.
BACKEND_ALIASES = {"opencv": "opencv-tvl1", "torch": "torch-tvl1"}
_CHOICES = {
    "border": ("auto", "zeros", "clamp"), "device": ("auto", "cpu", "cuda"), "compile": ("auto", "on", "off")
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TVL1Params:
    """Parameters of TV-L1 optical flow; the defaults are OpenCV's.

    Zach, Pock and Bischof 2007, doi:10.1007/978-3-540-74936-3_22; parameter names as in Sánchez,
    Meinhardt-Llopis and Facciolo 2013, doi:10.5201/ipol.2013.26.

    Attributes:
        tau: Time step of the dual scheme.
        lambda_: Weight of the data term; smaller is smoother.
        theta: Tightness between the two variables of the splitting.
        nscales: Pyramid levels at most.
        warps: Warps per level.
        epsilon: Stopping threshold on the mean squared update, px.
        inner_iterations: Iterations between two median filterings.
        outer_iterations: Median filterings per warp at most.
        scale_step: Size ratio of neighbouring pyramid levels, 0 to 1.
        gamma: Weight of an additional illumination variable; 0 switches it off.
        median_filtering: Side of the median filter, px; 1 switches it off, else 3 or 5.
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    nscales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8
    gamma: float = 0.0
    median_filtering: int = 5

    def __post_init__(self) -> None:
        whole = ("nscales", "warps", "inner_iterations", "outer_iterations")
        for name in ("tau", "lambda_", "theta", "epsilon", *whole):
            if not getattr(self, name) > 0:
                raise UsageError(f"flow.{name} must be positive, got {getattr(self, name)}")
        for name in whole:
            if getattr(self, name) > MOST_STEPS:
                raise UsageError(f"flow.{name} must be at most {MOST_STEPS:,}, got {getattr(self, name):,}")
        if not 0 < self.scale_step < 1:
            raise UsageError(f"flow.scale_step must lie between 0 and 1, got {self.scale_step}")
        if self.median_filtering not in (1, 3, 5):
            raise UsageError(f"flow.median_filtering must be 1 (off), 3 or 5, got {self.median_filtering}")
        if self.gamma < 0:
            raise UsageError(f"flow.gamma must not be negative, got {self.gamma}")


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How a backend computes: what OpenCV's parameters leave open.

    Attributes:
        border: What a warp finds outside the image: `zeros` nothing, as in OpenCV; `clamp` the edge,
            repeated; `auto` the backend's default, `zeros`.
        device: `cpu`, `cuda`, or `auto`: CUDA where there is a device and the backend can use it.
        check_every: Iterations between two looks at the stopping threshold; 0 is 1 on the CPU, as OpenCV
            does, and 5 on CUDA.
        compile: Whether torch.compile fuses the iteration, which needs a C++ compiler (on the CPU) or Triton
            (on CUDA): `on`, `off`, or `auto`: on CUDA where Triton is installed.
    """

    border: str = "auto"
    device: str = "auto"
    check_every: int = 0
    compile: str = "auto"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown(f"value of flow.{name}", getattr(self, name), known)
        if self.check_every < 0:
            raise UsageError(f"flow.check_every must not be negative, got {self.check_every}")
