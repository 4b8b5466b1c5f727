"""`mer-flow verify`: is a store sound?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

from mer_flow.cli.options import json_option


@click.command("verify", short_help="Check every checksum, shape and value of a store.")
@click.argument("store", type=click.Path(path_type=Path))
@json_option
def verify_command(store: Path, as_json: bool) -> None:
    """Read all of STORE and list every problem; exit code 1 if there is any."""
    from mer_flow.store.verify import verify_store

    checked = 0

    def count() -> None:
        nonlocal checked
        checked += 1

    problems = verify_store(store, on_sample=count)
    if as_json:
        listed = [{"kind": item.kind, "where": item.where, "message": item.message} for item in problems]
        content = {"path": str(store), "samples": checked, "sound": not problems, "problems": listed}
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
    elif problems:
        for item in problems:
            click.echo(str(item))
        kinds = ", ".join(f"{kind} {n}" for kind, n in Counter(item.kind for item in problems).items())
        opened = not (len(problems) == 1 and problems[0].kind == "unreadable" and not problems[0].where)
        mend = " `mer-flow build --repair` with the database's --db and --root builds what is damaged again."
        remedy = mend if opened else ""  # else the one problem says it
        click.echo(f"\n{len(problems)} problem(s) in {store}: {kinds}.{remedy}")
    else:
        click.echo(f"{store} is sound: {checked} samples read, every checksum, shape and value right.")
    if problems:
        raise click.exceptions.Exit(1)
