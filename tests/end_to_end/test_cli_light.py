"""`--help` answers without loading anything heavy, and every command teaches."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mer_bench.cli
import mer_flow.cli

HEAVY = (
    "torch",
    "cv2",
    "dlib",
    "mediapipe",
    "pandas",
    "sklearn",
    "h5py",
    "skimage",
    "pydantic",
    "rich",
    "numpy",
)
COMMANDS = {
    "mer_flow.cli": [*mer_flow.cli.COMMANDS],
    "mer_bench.cli": [*mer_bench.cli.COMMANDS],
    "ahmsa_model.cli": ["predict", "explain", "info", "variants"],
}


@pytest.mark.parametrize(
    ("module", "command"), [(m, c) for m, names in COMMANDS.items() for c in ["", *names]]
)
def test_help_is_light(module: str, command: str) -> None:
    arguments = [*([command] if command else []), "--help"]
    script = (
        f"import sys; sys.argv = ['x', *{arguments!r}]\n"
        f"from {module} import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert "\\b" not in done.stdout


@pytest.mark.parametrize("module", COMMANDS)
def test_a_mistyped_command_is_answered_with_the_nearest(module: str) -> None:
    wrong = COMMANDS[module][0][:-1]
    done = subprocess.run([sys.executable, "-m", module, wrong], capture_output=True, text=True)
    assert done.returncode == 2
    assert COMMANDS[module][0] in done.stderr
