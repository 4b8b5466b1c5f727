"""`mer-bench check`: environment, plug-ins and store."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("check", short_help="Check environment, plug-ins and store.")
@click.option(
    "--store", type=click.Path(path_type=Path), help="The store; else the variable MER_BENCH_STORE."
)
@click.option("--scheme", default="megc3", show_default=True, help="Label scheme.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_command(store: Path | None, scheme: str, as_json: bool) -> None:
    """Says what would keep a run from working: versions, devices, plug-ins, and what the store can feed.

    Exit code 1 where a plug-in fails or the store cannot be read.
    """
    from mer_bench.checks import check_environment, check_plugins, check_store

    lines = check_environment()
    found, problems = check_plugins()
    lines += found
    more, faults = check_store(store, scheme)
    lines += more
    problems += faults
    if as_json:
        click.echo(json.dumps({"facts": lines, "problems": problems}, indent=1))
    else:
        for line in lines:
            click.echo(line)
        for problem in problems:
            click.echo(f"problem: {problem}")
        click.echo("no problem found" if not problems else f"{len(problems)} problem(s)")
    if problems:
        raise click.exceptions.Exit(1)
