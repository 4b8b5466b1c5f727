"""mer-bench: honest benchmarks for micro-expression recognition.

Importing this package imports nothing heavy; its names do, on first use:

    import mer_bench as mb

    result = mb.evaluate("ststnet", "maps.h5", protocol="cde", seeds=3)
    result.table(), result.predictions, result.plot_confusion(), result.run
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_bench.api.evaluate import evaluate, splitter
    from mer_bench.api.result import Result
    from mer_bench.errors import MerBenchError
    from mer_bench.recipe import Recipe
    from mer_bench.scores.predictions import Scores, score

__version__ = "0.2.0"

_LAZY = {
    **dict.fromkeys(("evaluate", "splitter"), "api.evaluate"),
    "Result": "api.result",
    "MerBenchError": "errors",
    "Recipe": "recipe",
    **dict.fromkeys(("Scores", "score"), "scores.predictions"),
}

__all__ = ["MerBenchError", "Recipe", "Result", "Scores", "evaluate", "score", "splitter"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mer_bench' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mer_bench.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
