"""`mer-flow doctor`: every problem of a database tree at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from mer_flow.cli.options import database_options

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
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
def doctor_command(
    database: str,
    root: Path | None,
    sheet: Path | None,
    release: str,
    max_gap: int | None,
    deep: bool,
    show_all: bool,
    as_json: bool,
) -> None:
    """Find every problem of a database tree before any work starts, with sample, row and remedy.

    \b
    Examples:
      mer-flow doctor --db casme2 --root CASME2
      mer-flow doctor --db samm --root SAMM --deep --all

    Exit codes: 0 complete, 1 problems found, 2 usage.
    """
    from mer_flow.config import FramesConfig
    from mer_flow.databases.doctor import KINDS, examine
    from mer_flow.databases.layout import resolve_root
    from mer_flow.work.progress import Progress

    progress: Progress | None = None

    def advance(_: int, total: int) -> None:
        nonlocal progress
        if progress is None:
            progress = Progress(f"doctor {database}", total, quiet=as_json)
        progress.advance()

    limit = FramesConfig().nearest_limit if max_gap is None else max_gap
    found = examine(
        database,
        resolve_root(database, root),
        sheet=sheet,
        release=release,
        max_gap=limit,
        deep=deep,
        on_sample=advance,
    )
    if progress is not None:
        progress.close()
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
        sys.exit(0 if found.complete else 1)

    click.echo(f"{database} at {found.root}")
    if found.samples:
        release_text = f", release {found.release}" if found.release else ""
        click.echo(f"  sheet {found.sheet or 'none (folders)'}: {found.version}{release_text}")
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
    click.echo(
        "\ncomplete: every sample can be built as it stands"
        if found.complete
        else "\nnot complete: see above"
    )
    sys.exit(0 if found.complete else 1)
