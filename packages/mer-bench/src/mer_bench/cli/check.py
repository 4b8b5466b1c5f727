"""`mer-bench check`: finished runs, what every model must keep, or environment, plug-ins and store."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mer_bench.cli.options import MODEL_NAMES, only_store, stores_option
from mer_bench.errors import UsageError
from mer_flow.cli.options import SCHEME_NAMES, json_option


@click.command("check", short_help="Audit finished runs; or check a model, or environment and store.")
@click.argument("targets", nargs=-1, metavar="[RUN|MODEL]...")
@stores_option
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
def check_command(
    targets: tuple[str, ...], stores: tuple[Path, ...], scheme: str, models: tuple[str, ...], as_json: bool
) -> None:
    """Audit finished runs, examine models, or say what would keep a run from working here.

    A RUN directory, or a folder of them, is audited from its files alone: digests, folds (no subject on two
    sides), subjects spelled two ways, clips under two names, row order, normalisation, selection, and the
    scores, computed anew. With --store its inputs are read anew, too, each sample alone. What no file shows:
    a copy that was shifted or rotated; a setting that was tried out on the test subjects before.

    A MODEL is taken through the suite that the models shipped with mer-bench have to pass: shapes, gradients,
    parameter count, memorising 16 samples, the same result for the same seed, saving and loading, folds
    stacked and one by one. It brings its own small store and takes a few seconds per model.

    With neither: versions, devices, plug-ins, and what the store can feed.

    \b
    Examples:
      mer-bench check runs/ststnet-cde-afe030e51817
      mer-bench check runs --store maps.h5
      mer-bench check ststnet
      mer-bench check --store maps.h5

    Exit code 1 where a run, a model, a plug-in or the store does not pass.
    """
    runs = [Path(target) for target in targets if Path(target).is_dir()]
    models = (*models, *(target for target in targets if not Path(target).is_dir()))
    for name in models:
        if runs or ("/" in name and ".py" not in name):
            raise UsageError(f"'{name}' is no folder of a run; give run directories, or names of models")
    if runs:
        _audit(runs, stores, as_json)
        return
    if models:
        _check_models(models, as_json)
        return
    from mer_bench.cli.environment import look_around

    facts, problems = look_around(only_store(click.get_current_context(), None, stores), scheme)
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


def _audit(folders: list[Path], stores: tuple[Path, ...], as_json: bool) -> None:
    from dataclasses import asdict

    from mer_bench.conformance.audit import NOT_VISIBLE, audit_run
    from mer_bench.errors import RunError
    from mer_bench.runs.directory import runs_below

    found = {}
    for folder in folders:
        runs = runs_below(folder)
        if not runs:
            raise RunError(f"{folder} is no run directory and holds none")
        for run in runs:
            found[str(run)] = list(audit_run(run, stores))
            failed = sum(not finding.passed for finding in found[str(run)])
            if as_json:
                continue
            for one in found[str(run)]:
                word = "FAILED" if not one.passed else "–" if one.detail.startswith(NOT_VISIBLE) else "ok"
                click.echo(f"{run.name}  {word:6}  {one.check}: {one.detail}")
            click.echo(
                f"{run}: {f'{failed} of {len(found[str(run)])} checks failed' if failed else 'passes'}"
            )
    if as_json:
        click.echo(json.dumps({name: [asdict(f) for f in each] for name, each in found.items()}, indent=1))
    if not all(finding.passed for each in found.values() for finding in each):
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
