"""One reference store for the whole session, and each model read from it once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mer_bench.conformance import Subject, write_reference_store
from mer_bench.models.registry import Registry


@pytest.fixture(scope="session")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """Returns subject(name): a model of the registry, under test."""
    store = write_reference_store(tmp_path_factory.mktemp("conformance") / "reference.h5")
    registry, known = Registry(), dict[str, Subject]()

    def of(name: str) -> Subject:
        if name not in known:
            known[name] = Subject(registry.get(name), store)
        return known[name]

    return of
