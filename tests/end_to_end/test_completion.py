"""A shell is told the names that can come next, and nothing heavy is loaded for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.end_to_end.test_cli_light import HEAVY

MODULES = {"mer-flow": "mer_flow.cli", "mer-bench": "mer_bench.cli", "ahmsa": "ahmsa_model.cli"}


def complete(line: str) -> set[str]:
    """What follows `line`, whose last word has been begun, as bash is told it."""
    words = line.split(" ")
    script = (
        f"import sys; sys.argv = [{words[0]!r}]\n"
        f"from {MODULES[words[0]]} import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules and name != 'numpy']\n"
        "assert not heavy, heavy\n"
    )
    variable = f"_{words[0].replace('-', '_').upper()}_COMPLETE"
    asked = {variable: "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {item.partition(",")[2] for item in done.stdout.split()}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("mer-bench run st", {"ststnet"}),
        ("mer-bench run majority ahm", {"ahmsa"}),
        ("mer-bench fit off", {"off-apexnet"}),
        ("mer-bench models htn", {"htnet"}),
        ("mer-bench check --conformance bi", {"bi-woof"}),
        ("mer-bench run --protocol ", {"cde", "loso", "hde", "cross-db", "kfold"}),
        ("mer-bench protocols lo", {"loso"}),
        ("mer-bench run --train-db s", {"smic", "samm"}),
        ("mer-bench run --scheme objective", {"objective-5"}),
        ("mer-flow build --db cas", {"casme2", "casme3"}),
        ("mer-flow info --scheme casme3", {"casme3-3", "casme3-4", "casme3-7"}),
        ("mer-flow exp", {"export"}),
        ("ahmsa pre", {"predict"}),
    ],
)
def test_names_are_completed(line: str, names: set[str]) -> None:
    assert complete(line) == names
