"""`mer-bench check`: environment, plug-ins and store, or what every model must keep."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mer_bench.cli.options import MODEL_NAMES, store_option
from mer_flow.cli.options import SCHEME_NAMES, json_option


@click.command("check", short_help="Check environment, plug-ins and store; or a model.")
@store_option
@click.option(
    "--scheme", default="megc3", show_default=True, shell_complete=SCHEME_NAMES, help="Label scheme."
)
@click.option(
    "--conformance",
    "models",
    multiple=True,
    metavar="NAME",
    shell_complete=MODEL_NAMES,
    help="Examine a model; may be repeated; all for all.",
)
@json_option
def check_command(store: Path | None, scheme: str, models: tuple[str, ...], as_json: bool) -> None:
    """Say what would keep a run from working: versions, devices, plug-ins, and what the store can feed.

    With --conformance it takes a model through the suite that the models shipped with mer-bench have to pass:
    shapes, gradients, parameter count, memorising 16 samples, the same result for the same seed, saving and
    loading, folds stacked and one by one. It brings its own small store and takes a few seconds per model.

    Exit code 1 where a plug-in fails, the store cannot be read or a model does not conform.
    """
    if models:
        _check_models(models, as_json)
        return
    from mer_bench.cli.environment import look_around

    facts, problems = look_around(store, scheme)
    if as_json:
        click.echo(json.dumps({"facts": facts, "problems": problems}, indent=1))
    else:
        for line in facts:
            click.echo(line)
        for problem in problems:
            click.echo(f"problem: {problem}")
        click.echo("no problem found" if not problems else f"{len(problems)} problem(s)")
    if problems:
        raise click.exceptions.Exit(1)


def _check_models(names: tuple[str, ...], as_json: bool) -> None:
    import tempfile
    from dataclasses import asdict

    from mer_bench.conformance import Finding, Subject, examine, write_reference_store
    from mer_bench.models.registry import Registry

    registry = Registry()
    wanted = registry.names if "all" in names else tuple(dict.fromkeys(names))
    specs = [registry.get(name) for name in wanted]
    found: dict[str, list[Finding]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = write_reference_store(Path(folder) / "reference.h5")
        for spec in specs:
            found[spec.name] = []
            for finding in examine(Subject(spec, store)):
                found[spec.name].append(finding)
                if not as_json:
                    word = "ok" if finding.passed else "FAILED"
                    click.echo(
                        f"{spec.name}  {word:6}  {finding.check} ({finding.seconds:.1f} s): {finding.detail}"
                    )
    failed = {name: sum(not finding.passed for finding in each) for name, each in found.items()}
    if as_json:
        click.echo(json.dumps({name: [asdict(f) for f in each] for name, each in found.items()}, indent=1))
    else:
        for name, each in found.items():
            click.echo(
                f"{name}: {f'{failed[name]} of {len(each)} checks failed' if failed[name] else 'conforms'}"
            )
    if any(failed.values()):
        raise click.exceptions.Exit(1)
