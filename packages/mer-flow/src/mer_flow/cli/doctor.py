"""`mer-flow doctor`: every problem of a database tree at once."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from mer_flow.cli.options import database_options, json_option

if TYPE_CHECKING:
    from mer_flow.databases.source import Source

#: Findings shown per kind unless --all is given.
EXAMPLES = 5


@click.command("doctor", short_help="List every problem of a database tree at once, and what to do.")
@database_options
@click.option(
    "--max-gap",
    type=click.IntRange(0),
    help="Frames a substitute for a missing frame may lie away.  [default: as in a build]",
)
@click.option(
    "--deep", is_flag=True, help="Decode every frame from onset to offset, not only onset and apex."
)
@click.option("--all", "show_all", is_flag=True, help="List every finding, not only the first of each kind.")
@json_option
def doctor_command(source: Source, max_gap: int | None, deep: bool, show_all: bool, as_json: bool) -> None:
    """Find every problem of a database tree before any work starts, with sample, row and remedy.

    \b
    Examples:
      mer-flow doctor --db casme2 --root CASME2
      mer-flow doctor --db samm --root SAMM --deep --all

    Exit codes: 0 complete, 1 problems found, 2 usage.
    """
    from mer_flow.config import FramesConfig
    from mer_flow.databases.layout import resolve_root
    from mer_flow.doctor import KINDS, examine, of_machine
    from mer_flow.work.progress import Progress

    with Progress(f"doctor {source.database}", quiet=as_json) as progress:

        def advance(done: int, total: int) -> None:
            if done == 1:
                progress.expect(total)
            progress.advance()

        found = examine(
            source.database,
            resolve_root(source.database, source.root),
            sheet=source.sheet,
            release=source.release,
            max_gap=FramesConfig().nearest_limit if max_gap is None else max_gap,
            deep=deep,
            on_sample=advance,
        )
    found.problems[:0] = of_machine()
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
        sys.exit(0 if found.complete else 1)

    click.echo(f"{source.database} at {found.root}")
    if found.samples:
        release = f", release {found.release}" if found.release else ""
        click.echo(f"  sheet {found.sheet or 'none (folders)'}: {found.version}{release}")
        click.echo(f"  {found.samples} samples, {found.subjects} subjects")
    for kind, problems in found.by_kind().items():
        severity, remedy = KINDS[kind]
        click.echo(f"\n{severity}: {kind} ({len(problems)})\n  {remedy}")
        shown = problems if show_all else problems[:EXAMPLES]
        for problem in shown:
            row = f" (row {problem.row})" if problem.row else ""
            place = f"{problem.sample_id}{row}: " if problem.sample_id else ""
            click.echo(f"  - {place}{problem.detail}")
        if len(shown) < len(problems):
            click.echo(f"  ... and {len(problems) - len(shown)} more (--all lists them)")
    verdict = (
        "complete: every sample can be built as it stands" if found.complete else "not complete: see above"
    )
    click.echo(f"\n{verdict}")
    sys.exit(0 if found.complete else 1)
