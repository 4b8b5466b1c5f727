"""The table at the end of `make kills`: what was tried, and what came of it."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.faults.trials import SOAK_SECONDS, TOLD


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not SOAK_SECONDS:
        return
    counts: dict[str, Counter[str]] = {}
    found: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for told in (value for name, value in report.user_properties if name == TOLD):
                numbers = {key: told[key] for key in ("tried", "promised", "seconds", "wrong")}
                counts.setdefault(told["kind"], Counter()).update(numbers)
                found.setdefault(told["kind"], Counter()).update(told["found"])
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'':24} {'tried':>6} {'promised':>8} {'wrong':>6} {'seconds':>8}  found")
    for kind, one in sorted(counts.items()):
        numbers = f"{one['tried']:6} {one['promised']:8} {one['wrong']:6} {one['seconds']:8.1f}"
        outcomes = ", ".join(f"{name} {count}" for name, count in found[kind].items())
        terminalreporter.write_line(f"{kind:24} {numbers}  {outcomes}")
