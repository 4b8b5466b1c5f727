"""Every registered model, ours and any installed plug-in's, keeps what a model must keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mer_bench.conformance import Check, Subject, checks_for, write_reference_store
from mer_bench.models.registry import Registry
from mer_flow.views import parse_views

OURS = ("mer-bench ", "ahmsa-model ")
CASES = [
    pytest.param(entry.spec.name, check, id=f"{entry.spec.name}-{check.name}")
    for entry in Registry()
    for check in checks_for(entry.spec)
]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """Returns subject(name): a model of the registry, under test, read from one reference store."""
    store = write_reference_store(tmp_path_factory.mktemp("conformance") / "reference.h5")
    registry, known = Registry(), dict[str, Subject]()

    def of(name: str) -> Subject:
        if name not in known:
            known[name] = Subject(registry.get(name), store)
        return known[name]

    return of


@pytest.mark.parametrize(("name", "check"), CASES)
def test_model_conforms(name: str, check: Check, subject: Callable[[str], Subject]) -> None:
    check(subject(name))


def test_every_plugin_gives_its_models() -> None:
    registry = Registry()
    assert registry.failures == ()
    assert registry.duplicates == {}


@pytest.mark.parametrize("name", [e.spec.name for e in Registry() if e.package.startswith(OURS)])
def test_ours_read_what_the_published_maps_can_give(name: str) -> None:
    """Flow models run on STSTNet's published maps, which are whole faces, min-max scaled."""
    views = Registry().get(name).views
    reads_flow = all(part.family not in ("faces", "clips") for part in parse_views(views[0].split(":")[0]))
    assert not reads_flow or {"whole-28:minmax", "whole-28:minmax-255", "whole-28:centred-rms"} & set(views)
