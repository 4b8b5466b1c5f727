"""mer-flow: annotation sheets and frames become one HDF5 store of onset-to-apex optical flow.

Importing this package imports nothing heavy; its names do, on first use:

    import mer_flow as mf

    mf.build("samm", "/data/SAMM", "flows.h5")
    view = mf.read_view("flows.h5", "regions-28", "scaled", scheme="megc3")
    view.maps, view.labels, view.dataset(), view.table()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_flow.databases.registry import databases
    from mer_flow.extraction.build import BuildSummary, build
    from mer_flow.store.reader import FlowStore, open_store
    from mer_flow.views.read import ViewData, read_view
    from mer_flow.work.errors import MerFlowError

__version__ = "0.2.0"

_LAZY = {
    **dict.fromkeys(("BuildSummary", "build"), "extraction.build"),
    "databases": "databases.registry",
    **dict.fromkeys(("FlowStore", "open_store"), "store.reader"),
    **dict.fromkeys(("ViewData", "read_view"), "views.read"),
    "MerFlowError": "work.errors",
}

__all__ = [
    "BuildSummary", "FlowStore", "MerFlowError", "ViewData", "build", "databases", "open_store", "read_view",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mer_flow' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mer_flow.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
