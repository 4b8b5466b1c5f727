"""What the command lines share: commands imported on use, and errors as one message and an exit code."""

from __future__ import annotations

import importlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import click

from mer_flow.work.errors import MerFlowError, UsageError
from mer_flow.work.suggest import unknown


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command runs or shows its own help.

    Args:
        package: The package of the command modules; module `x` of command `c-d` exports `c_d_command`.
        table: Command name -> (module, one-line help shown without importing it), in teaching order.
    """

    def __init__(self, package: str, table: Mapping[str, tuple[str, str]], **attributes: Any):
        super().__init__(**attributes)
        self.package = package
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in teaching order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self.table:
            return None
        module = importlib.import_module(f"{self.package}.{self.table[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command name, suggesting the nearest one for an unknown name."""
        if args and not args[0].startswith("-") and args[0] not in self.table:
            raise click.UsageError(str(unknown("command", args[0], self.table)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])


def run_command_line(
    group: click.Group,
    interrupted: str,
    errors: tuple[type[Exception], ...] = (MerFlowError,),
    usage_errors: tuple[type[Exception], ...] = (UsageError,),
) -> None:
    """Run a command line and exits: 0 done, 1 incomplete or failed, 2 usage, 130 interrupted.

    Args:
        group: The commands.
        interrupted: What to say after Ctrl-C.
        errors: Errors that carry their whole message; others are faults and keep their trace.
        usage_errors: Those of them that exit with 2.
    """
    for stream in (sys.stdout, sys.stderr):  # a path need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
        # Ended at once, we leave locks to multiprocessing's tracker, which would warn that it frees them.
        filters = os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, filters))
    try:
        # Outside standalone mode click returns the code of an `Exit` that a command raises.
        code = group.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except click.Abort:
        click.echo(interrupted, err=True)
        sys.exit(130)
    except OSError as error:  # a full disk, a folder that may not be written: the user's to mend
        where = f"{error.filename}: " if error.filename else ""
        remedy = "Check that the path exists, that you may use it and that the disk has room."
        click.echo(f"error: {where}{error.strerror or error}. {remedy}", err=True)
        sys.exit(1)
    except (MemoryError, RecursionError) as error:
        what = "memory ran out" if isinstance(error, MemoryError) else "a value is nested too deeply"
        click.echo(f"error: {what}. Give a smaller input; nothing recorded before is lost.", err=True)
        sys.exit(1)
    except errors as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, usage_errors) else 1)
    sys.exit(code if isinstance(code, int) else 0)


def _stop(number: int, frame: FrameType | None) -> None:
    """Answer the first Ctrl-C at once, with what is still waited for; the second one ends at once."""
    signal.signal(signal.SIGINT, _end)
    others = len(multiprocessing.active_children())
    if others:
        processes = f"{others} worker process{'es' if others > 1 else ''}"
        _answer(f"stopping: what is unfinished in {processes} is given up; press Ctrl-C again to end at once")
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    for process in multiprocessing.active_children():
        process.kill()
    _answer("ended at once; what was recorded is kept, the same command continues")
    os._exit(130)


def _answer(line: str) -> None:
    """Write to standard error, over a live line; the signal may have come in the midst of another write."""
    over = "\r\x1b[K" if os.isatty(2) else ""
    os.write(2, f"{over}{line}\n".encode())
