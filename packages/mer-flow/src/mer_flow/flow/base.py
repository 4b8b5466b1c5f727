"""The call that every flow backend answers, and the backends by name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

import numpy as np

from mer_flow.flow.params import BACKEND_ALIASES, FLOW_BACKENDS, BackendOptions, TVL1Params
from mer_flow.work.errors import FlowError, UsageError
from mer_flow.work.libraries import load_cv2, load_torch, torch_version
from mer_flow.work.suggest import unknown

#: Of torch-tvl1: raised whenever a change of its code changes a flow by more than rounding.
TORCH_REVISION = 1


class FlowBackend(Protocol):
    """Dense optical flow of image pairs.

    Attributes:
        name: As in `flow.backend`.
        version: What decides the last digits, as in `cv2 4.11.0`.
    """

    name: str
    version: str

    def compute(self, onset: np.ndarray, apex: np.ndarray) -> np.ndarray:
        """Computes the displacement from onset to apex.

        Args:
            onset: uint8 (N, H, W) grey.
            apex: uint8 (N, H, W) grey.

        Returns:
            float32 (N, 2, H, W): u (+x right), v (+y down), px, finite.

        Raises:
            FlowError: The inputs do not fit, or the result is not finite.
        """
        ...


def get_backend(
    name: str, params: TVL1Params | None = None, options: BackendOptions | None = None
) -> FlowBackend:
    """Builds a flow backend.

    Args:
        name: As in `flow.backend`.
        params: Its parameters; None takes the defaults.
        options: Border, device and so on; None takes the defaults.

    Returns:
        The backend.

    Raises:
        UsageError: An unknown name, or an option that the backend or this machine cannot meet.
        MissingDependencyError: Its library is absent or broken.
    """
    name = BACKEND_ALIASES.get(name, name)
    options = resolve_options(name, options or BackendOptions())
    if name == "opencv-tvl1":
        from mer_flow.flow.opencv import OpenCVTVL1

        return OpenCVTVL1(params or TVL1Params())
    load_torch()
    from mer_flow.flow.torch_tvl1 import TorchTVL1

    return TorchTVL1(params or TVL1Params(), options)


def resolve_options(name: str, options: BackendOptions) -> BackendOptions:
    """Replaces every `auto` by what it means for a backend on this machine.

    Args:
        name: As in `flow.backend`.
        options: Any options.

    Returns:
        Options that name what is really done.

    Raises:
        UsageError: An unknown name, or an option that the backend cannot meet.
        MissingDependencyError: The backend's library is absent or broken.
    """
    name = BACKEND_ALIASES.get(name, name)
    if name not in FLOW_BACKENDS:
        raise unknown("flow backend", name, FLOW_BACKENDS)
    border = "zeros" if options.border == "auto" else options.border
    if name == "opencv-tvl1":
        only = BackendOptions("zeros", "cpu", 1, "off")
        asked = {"border": border, "device": options.device, "check_every": options.check_every,
                 "compile": options.compile}  # fmt: skip
        for key, value in asked.items():
            if value not in ("auto", 0, getattr(only, key)):
                raise UsageError(
                    f"opencv-tvl1 knows flow.{key}={getattr(only, key)} only, got {value}; "
                    "set flow.backend=torch-tvl1"
                )
        return only
    device = options.device
    if device == "auto":
        device = "cuda" if finds_cuda() else "cpu"
    compiled = options.compile
    if compiled == "auto":
        compiled = "on" if device == "cuda" and find_spec("triton") else "off"
    return BackendOptions(border, device, options.check_every or (5 if device == "cuda" else 1), compiled)


def backend_version(name: str, options: BackendOptions) -> str:
    """Returns what decides the last digits of a backend's flow, without loading PyTorch where that can wait.

    Args:
        name: As in `flow.backend`.
        options: Resolved options.

    Returns:
        The same as the backend's `version`.

    Raises:
        UsageError: CUDA is asked for and there is no such device.
        MissingDependencyError: The backend's library is absent or broken.
    """
    if BACKEND_ALIASES.get(name, name) == "opencv-tvl1":
        return f"cv2 {load_cv2().__version__}"
    if options.device == "cuda" and not finds_cuda():
        raise no_cuda()
    compiled = ", compiled" if options.compile == "on" else ""
    return f"{TORCH_REVISION}, torch {torch_version()}, {options.device}{compiled}"


def finds_cuda() -> bool:
    """Returns whether PyTorch finds a CUDA device; a CPU build need not be loaded for that."""
    return not torch_version().endswith("+cpu") and bool(load_torch().cuda.is_available())


def no_cuda() -> UsageError:
    """Returns the error for CUDA asked for where there is none."""
    return UsageError(
        f"flow.device is cuda, but torch {torch_version()} finds no CUDA device here; "
        "use --device cpu, or install a CUDA build of PyTorch and its driver"
    )


def check_pairs(onset: np.ndarray, apex: np.ndarray) -> None:
    """Raises FlowError unless both are uint8 (N, H, W) of one shape."""
    for label, frames in (("onset", onset), ("apex", apex)):
        if frames.dtype != np.uint8 or frames.ndim != 3:
            raise FlowError(f"flow wants {label} as uint8 (N, H, W) grey, got {frames.dtype} {frames.shape}")
    if onset.shape != apex.shape:
        raise FlowError(f"flow wants frames of one shape, got onset {onset.shape} and apex {apex.shape}")


def check_finite(flow: np.ndarray, name: str) -> None:
    """Raises FlowError naming the first pair whose flow is not finite."""
    bad = ~np.isfinite(flow).all(axis=(1, 2, 3))
    if bad.any():
        raise FlowError(
            f"{name} returned a flow that is not finite for pair {int(np.argmax(bad))} of {len(flow)}; "
            "go back to the default flow parameters"
        )
