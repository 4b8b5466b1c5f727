"""The command line's exit codes, as a shell sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mer_flow.cli.group import LazyGroup, run_command_line
from mer_flow.work.errors import StoreError, UsageError
from mer_flow.work.suggest import unknown

OUTCOMES: dict[str, tuple[BaseException | None, int]] = {
    "well": (None, 0),
    "incomplete": (click.exceptions.Exit(1), 1),
    "failed": (StoreError("the disk is full"), 1),
    "unwritable": (PermissionError(13, "Permission denied", "/data/out.csv"), 1),
    "misused": (UsageError("unknown database 'sam'"), 2),
    "misspelt": (click.UsageError("no such option"), 2),
    "interrupted": (KeyboardInterrupt(), 130),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_outcome_has_its_exit_code(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, code = OUTCOMES[name]

    @click.group()
    def group() -> None: ...

    @group.command()
    def work() -> None:
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(sys, "argv", ["x", "work"])
    with pytest.raises(SystemExit) as stop:
        run_command_line(group, "interrupted; work is kept")
    assert stop.value.code == code
    said = capsys.readouterr().err
    words = {key: str(item) for key, (item, _) in OUTCOMES.items()}
    words["unwritable"] = "/data/out.csv: Permission denied. Check that"
    if outcome is not None and name != "incomplete":
        assert "work is kept" in said if name == "interrupted" else words[name] in said


def test_a_fault_of_the_program_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.group()
    def group() -> None: ...

    @group.command()
    def work() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["x", "work"])
    with pytest.raises(ZeroDivisionError):
        run_command_line(group, "")


def test_help_lists_commands_without_importing_them() -> None:
    group = LazyGroup("no.such.package", {"look": ("look", "Look at it.")}, name="x")
    shown = group.get_help(click.Context(group))
    assert "look  Look at it." in shown
    with pytest.raises(click.UsageError, match="did you mean 'look'"):
        group.resolve_command(click.Context(group), ["lok"])


def test_verify_of_a_damaged_store_fails_in_a_shell(tmp_path: Path) -> None:
    (tmp_path / "store.h5").write_bytes(b"no store at all")
    command = [sys.executable, "-m", "mer_flow.cli", "verify", str(tmp_path / "store.h5")]
    assert subprocess.run(command, capture_output=True).returncode == 1


def test_a_long_list_of_valid_names_is_cut_short() -> None:
    message = str(unknown("sample", "c_0401x", [f"c_{i:04d}" for i in range(442)]))
    assert "did you mean 'c_0401'" in message and "and 382 more" in message
    assert len(message) < 700


def test_the_answer_to_ctrl_c_takes_the_place_of_the_live_line() -> None:
    pty = pytest.importorskip("pty")
    terminal, stream = pty.openpty()
    script = (
        "from mer_flow.cli.group import _answer; print('build: 3/9', end='', flush=True); _answer('stopping')"
    )
    subprocess.run([sys.executable, "-c", script], stdout=stream, stderr=stream, check=True)
    os.close(stream)
    assert os.read(terminal, 99) == b"build: 3/9\r\x1b[Kstopping\r\n"
    os.close(terminal)
