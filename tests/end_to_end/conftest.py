"""The command lines, called in this process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import pytest

MODULES = {"mer-flow": "mer_flow.cli", "mer-bench": "mer_bench.cli", "ahmsa": "ahmsa_model.cli"}


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Calls `mer-flow`, `mer-bench` or `ahmsa`; returns exit code, standard output and standard error."""
    monkeypatch.delenv("MER_BENCH_STORE", raising=False)

    def run(program: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        code = None
        try:
            importlib.import_module(MODULES[program]).main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return run
