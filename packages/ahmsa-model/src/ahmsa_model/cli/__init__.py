"""The command line `ahmsa`; torch is imported only by the command that needs it."""

from __future__ import annotations

import sys

import click

from ahmsa_model import __version__
from ahmsa_model.cli.describe import info_command, variants_command
from ahmsa_model.cli.explain import explain_command
from ahmsa_model.cli.predict import predict_command
from ahmsa_model.errors import AHMSAError, ConfigError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ahmsa")
def cli() -> None:
    """AHMSA-Net for micro-expression recognition: look at its variants, classify and explain your own frames.

    Score it with `mer-bench run ahmsa`; train one to keep with `mer-bench fit ahmsa`.

    Exit codes: 0 done, 1 failed (the reason is printed), 2 usage.
    """


for _command in (variants_command, info_command, predict_command, explain_command):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; an error of this package becomes one clear message and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except AHMSAError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
