"""The command line of mer-flow: one module per command under `mer_flow.cli`, loaded on use."""

from __future__ import annotations

import click

from mer_flow import __version__
from mer_flow.cli.group import LazyGroup, run_command_line

#: Command name -> (module under mer_flow.cli, one-line help shown without importing it).
COMMANDS: dict[str, tuple[str, str]] = {
    "databases": ("databases", "List the databases that can be read, and who brings them."),
    "doctor": ("doctor", "List every problem of a database tree at once, and what to do."),
    "samples": ("samples", "Read an annotation sheet alone: counts, corrections, dropped rows."),
    "build": ("build", "Turn a database's sheet and frames into flow in a store."),
    "info": ("info", "Show what a store holds."),
    "show": ("show", "Draw contact sheets of a store, or a page to browse it."),
    "verify": ("verify", "Check every checksum, shape and value of a store."),
    "spot": ("spot", "Spot apex frames, or measure the spotters against a sheet."),
    "import": ("exchange", "Import other people's flow maps into a store."),
    "export": ("exchange", "Export a store to other people's layouts."),
    "models": ("models", "Fetch and verify landmark model files."),
    "demo": ("demo", "Make the synthetic database in all four layouts and build it."),
}


@click.group(
    cls=LazyGroup,
    package="mer_flow.cli",
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="mer-flow")
def cli() -> None:
    """From micro-expression annotation sheets and frames to one HDF5 store of optical flow.

    Start with `mer-flow demo` (no database needed), or `mer-flow doctor --db samm --root DIR` on your copy.

    Exit codes: 0 done, 1 something is incomplete or failed (listed), 2 usage.
    """


def main() -> None:
    """Run the command line; a mer-flow error becomes one clear message and an exit code."""
    run_command_line(cli, "interrupted; what was committed is kept, the same command continues")
