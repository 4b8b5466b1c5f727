"""The command line of mer-flow: one module per command under `mer_flow.commands`, loaded on use."""

from __future__ import annotations

import importlib
import sys

import click

from mer_flow import __version__
from mer_flow.errors import MerFlowError, UsageError

#: Command name -> (module under mer_flow.commands, one-line help shown without importing it).
COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("doctor", "List every problem of a database tree at once, and what to do."),
    "samples": ("samples", "Read an annotation sheet alone: counts, corrections, dropped rows."),
    "build": ("build", "Turn a database's sheet and frames into flow in a store."),
    "info": ("info", "Show what a store holds."),
    "show": ("show", "Draw contact sheets and colour-coded maps from a store."),
    "verify": ("verify", "Check every checksum, shape and value of a store."),
    "spot": ("spot", "Spot apex frames, or measure the spotters against a sheet."),
    "import": ("exchange", "Import other people's flow maps into a store."),
    "export": ("exchange", "Export a store to other people's layouts."),
    "models": ("models", "Fetch and verify landmark model files."),
    "demo": ("demo", "Make the synthetic database in all four layouts and build it."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command runs or shows its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the command names in teaching order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mer_flow.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolves a command name, suggesting the nearest one for an unknown name."""
        from mer_flow.suggest import unknown

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(str(unknown("command", args[0], COMMANDS)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mer-flow")
def cli() -> None:
    """From micro-expression annotation sheets and frames to one HDF5 store of optical flow.

    Start with `mer-flow demo` (no database needed), or `mer-flow doctor --db samm --root DIR` on your copy.

    Exit codes: 0 done, 1 something is incomplete or failed (listed), 2 usage.
    """


def main() -> None:
    """Runs the command line; a mer-flow error becomes one clear message and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except click.Abort:
        click.echo("interrupted; what was committed is kept, the same command continues", err=True)
        sys.exit(130)
    except MerFlowError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
