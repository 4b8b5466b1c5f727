"""A quick pipeline, and small synthetic trees."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from mer_flow.config import PipelineConfig, load_config
from mer_flow.synthetic import make_tree


@pytest.fixture(scope="session")
def fast() -> tuple[str, ...]:
    """Settings of a small and quick, but whole pipeline: dlib, regions, TV-L1, stabilising."""
    flow = ("flow.scale_step=0.5", "flow.warps=2", "flow.epsilon=0.05")
    return ("align.size=64", "regions.backend=dlib", *flow)


@pytest.fixture(scope="session")
def quick(fast: tuple[str, ...]) -> Callable[..., PipelineConfig]:
    """Returns quick(*settings): the quick configuration and what more is set."""
    return lambda *settings: load_config(sets=(*fast, *settings))


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns tree(database): a tree of six samples."""
    root = tmp_path_factory.mktemp("trees")

    @cache
    def made(database: str) -> Path:
        make_tree(root / database, database, subjects=2, clips_per_subject=3, seed=1)
        return root / database

    return made
