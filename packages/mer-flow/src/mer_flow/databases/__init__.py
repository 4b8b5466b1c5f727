"""The databases: one module each, found through entry points and loaded on use."""

import sys
from types import ModuleType
from typing import Any

from mer_flow.databases.registry import get_database

__all__ = ["get_database"]


class _Callable(ModuleType):
    """Lets `mer_flow.databases()` list them, though the package has the name already."""

    def __call__(self) -> Any:
        from mer_flow.databases.registry import databases

        return databases()


sys.modules[__name__].__class__ = _Callable
