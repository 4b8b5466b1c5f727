"""TV-L1 in PyTorch, with OpenCV's parameters and their meaning; this module alone loads no PyTorch."""

from __future__ import annotations

from mer_flow.flow.params import BackendOptions

#: Raised whenever a change of this code changes a flow by more than rounding.
REVISION = 1


def version(torch: str, options: BackendOptions) -> str:
    """Return what decides the last digits of a flow, given PyTorch's version and resolved options."""
    compiled = ", compiled" if options.compile == "on" else ""
    return f"{REVISION}, torch {torch}, {options.device}{compiled}"
