"""The command line of mer-bench: one module per command under `mer_bench.commands`, loaded on use."""

from __future__ import annotations

import importlib
import sys

import click

from mer_bench import __version__
from mer_bench.errors import MerBenchError, UsageError
from mer_flow.errors import MerFlowError
from mer_flow.errors import UsageError as FlowUsageError

#: Command name -> one-line help, shown without importing the command.
COMMANDS: dict[str, str] = {
    "models": "List the registered models, with input, parameters and source.",
    "protocols": "List the protocols, or the folds that one cuts from a store.",
    "run": "Train a model under a protocol and score it; resumes by itself.",
    "status": "Say how far runs have come: folds done, missing, damaged.",
    "report": "Tabulate complete runs beside published scores.",
    "compare": "Test whether two runs differ, subject by subject.",
    "check": "Check environment, plug-ins and store.",
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
        module = importlib.import_module(f"mer_bench.commands.{cmd_name}")
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
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mer-bench")
def cli() -> None:
    """Honest benchmarks for micro-expression recognition: any model, the same folds, the same scores.

    Start with `mer-bench models`, then `mer-bench run ststnet --protocol cde --store FILE`.

    Exit codes: 0 done, 1 something is incomplete or failed (listed), 2 usage.
    """


def main() -> None:
    """Runs the command line; an error of ours becomes one clear message and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except click.Abort:
        click.echo("interrupted; finished folds are kept, the same command continues", err=True)
        sys.exit(130)
    except (MerBenchError, MerFlowError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, (UsageError, FlowUsageError)) else 1)
    # A click Exit raised inside a command comes back as its code.
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
