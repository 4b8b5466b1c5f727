"""`mer-bench models`: what the registry holds."""

from __future__ import annotations

import json
import shutil

import click

from mer_bench.cli.options import MODEL_NAMES
from mer_flow.cli.options import json_option


@click.command("models", short_help="List the registered models.")
@click.argument("name", required=False, shell_complete=MODEL_NAMES)
@json_option
def models_command(name: str | None, as_json: bool) -> None:
    """List every registered model, or say all about NAME.

    Models enter through the entry-point group `mer_bench.models`; a plug-in that fails is listed with its
    error and does not keep the others from working (exit code 1).
    """
    from mer_bench.cli.describe import WIDTH, describe_model, list_models, model_fields
    from mer_bench.models.registry import Registry

    registry = Registry()
    if name is not None:
        entry = registry.find(name)
        click.echo(json.dumps(model_fields(entry), indent=1) if as_json else describe_model(entry))
        return
    entries = list(registry)
    problems = [str(failure) for failure in registry.failures]
    problems += [
        f"model '{name}' is registered {len(packages)} times, by {', '.join(packages)}; "
        "none of them can be used"
        for name, packages in registry.duplicates.items()
    ]
    if as_json:
        click.echo(json.dumps({"models": [model_fields(e) for e in entries], "problems": problems}, indent=1))
    else:
        click.echo(list_models(entries, shutil.get_terminal_size((WIDTH, 24)).columns))
        for problem in problems:
            click.echo(f"failed: {problem}", err=True)
    if problems:
        raise click.exceptions.Exit(1)
