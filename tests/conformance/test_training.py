"""Every registered network memorises, repeats itself, and trains stacked as it trains alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mer_bench.conformance import TRAINING_CHECKS, Check, Subject
from mer_bench.models.registry import Registry

CASES = [
    pytest.param(entry.spec.name, check, id=f"{entry.spec.name}-{check.name}")
    for entry in Registry()
    if entry.spec.kind == "network"
    for check in TRAINING_CHECKS
]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_network_trains(name: str, check: Check, subject: Callable[[str], Subject]) -> None:
    check(subject(name))
