"""The flow backends by name, and what `auto` means for them on this machine."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec

from mer_flow.flow.base import FlowBackend
from mer_flow.flow.params import BACKEND_ALIASES, FLOW_BACKENDS, BackendOptions, TVL1Params
from mer_flow.flow.torch_tvl1 import version
from mer_flow.work.errors import UsageError
from mer_flow.work.libraries import load_cv2, load_torch, torch_version
from mer_flow.work.suggest import unknown


def get_backend(
    name: str, params: TVL1Params | None = None, options: BackendOptions | None = None
) -> FlowBackend:
    """Build a flow backend.

    Args:
        name: As in `flow.backend`.
        params: Parameters of TV-L1; None takes the defaults.
        options: Border, device and so on; None takes the defaults.

    Raises:
        UsageError: An unknown name, or an option that the backend or this machine cannot meet.
        MissingDependencyError: Its library is absent or broken.
    """
    options = resolve_options(name, options or BackendOptions())
    if _named(name) == "opencv-tvl1":
        from mer_flow.flow.opencv import OpenCVTVL1

        return OpenCVTVL1(params or TVL1Params())
    load_torch()
    _require_device(options)
    from mer_flow.flow.torch_tvl1.backend import TorchTVL1

    return TorchTVL1(params or TVL1Params(), options)


def resolve_options(name: str, options: BackendOptions) -> BackendOptions:
    """Replace every `auto` by what it means for a backend on this machine.

    Args:
        name: As in `flow.backend`.
        options: Any options.

    Returns:
        Options that name what is really done.

    Raises:
        UsageError: An unknown name, or an option that the backend cannot meet.
    """
    if _named(name) == "opencv-tvl1":
        only = BackendOptions("zeros", "cpu", 1, "off")
        for key, value in asdict(options).items():
            if value not in ("auto", 0, getattr(only, key)):
                raise UsageError(
                    f"opencv-tvl1 knows flow.{key}={getattr(only, key)} only, got {value}; "
                    "set flow.backend=torch-tvl1"
                )
        return only
    device, compiled = options.device, options.compile
    if device == "auto":
        device = "cuda" if finds_cuda() else "cpu"
    if compiled == "auto":
        compiled = "on" if device == "cuda" and find_spec("triton") else "off"
    border = "zeros" if options.border == "auto" else options.border
    return BackendOptions(border, device, options.check_every or (5 if device == "cuda" else 1), compiled)


def backend_version(name: str, options: BackendOptions) -> str:
    """Return the `version` of a backend of resolved options, without loading PyTorch where that can wait.

    Raises:
        UsageError: CUDA is asked for and there is no such device.
        MissingDependencyError: The backend's library is absent or broken.
    """
    if _named(name) == "opencv-tvl1":
        return f"cv2 {load_cv2().__version__}"
    _require_device(options)
    return version(torch_version(), options)


def finds_cuda() -> bool:
    """Return whether PyTorch finds a CUDA device; a CPU build need not be loaded for that."""
    return not torch_version().endswith("+cpu") and bool(load_torch().cuda.is_available())


def _require_device(options: BackendOptions) -> None:
    if options.device == "cuda" and not finds_cuda():
        raise UsageError(
            f"flow.device is cuda, but torch {torch_version()} finds no CUDA device here; "
            "use --device cpu, or install a CUDA build of PyTorch and its driver"
        )


def _named(name: str) -> str:
    name = BACKEND_ALIASES.get(name, name)
    if name not in FLOW_BACKENDS:
        raise unknown("flow backend", name, FLOW_BACKENDS)
    return name
