"""`mer-flow databases`: which databases can be read, and who brings them."""

from __future__ import annotations

import json
import sys

import click


@click.command("databases")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def databases_command(as_json: bool) -> None:
    """List the databases that can be read, and the packages that bring them.

    Exit codes: 0 done, 1 one of them cannot be used (named), 2 usage.
    """
    from mer_flow.databases.registry import describe_databases

    listed = describe_databases()
    if as_json:
        click.echo(json.dumps(listed, indent=2))
    for entry in [] if as_json else listed:
        if "error" in entry:
            click.echo(f"{entry['name']}: {entry['error']}")
            continue
        twin = ", synthetic twin" if entry["synthetic"] else ""
        releases = ", ".join(entry["releases"])
        click.echo(
            f"{entry['name']}: {entry['title']} ({entry['fps']:g} fps; {releases}{twin}; {entry['package']})"
        )
    sys.exit(1 if any("error" in entry for entry in listed) else 0)
