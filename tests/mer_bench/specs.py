"""What a test must say of a network of its own to train it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mer_bench.models.spec import ModelSpec


def network_spec(name: str, build: Callable[..., Any], **more: Any) -> ModelSpec:
    """Returns the spec of a network that reads whole flow maps."""
    said = {"views": ("whole-28:scaled",), "citation": "", "exactness": "baseline"}
    return ModelSpec(name=name, title=name.title(), build=build, kind="network", **{**said, **more})
