"""Every registered model, ours and any installed plug-in's, keeps what a model must keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mer_bench.conformance import TRAINING_CHECKS, Check, Subject, checks_for
from mer_bench.registry import Registry

CASES = [
    pytest.param(entry.spec.name, check, id=f"{entry.spec.name}-{check.name}")
    for entry in Registry()
    for check in checks_for(entry.spec)
    if check not in TRAINING_CHECKS
]


def test_every_plugin_gives_its_models() -> None:
    registry = Registry()
    assert registry.failures == ()
    assert registry.duplicates == {}


@pytest.mark.parametrize(("name", "check"), CASES)
def test_model_conforms(name: str, check: Check, subject: Callable[[str], Subject]) -> None:
    check(subject(name))
