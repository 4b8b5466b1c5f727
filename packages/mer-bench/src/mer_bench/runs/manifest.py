"""The manifest of a run: everything that decides its result, written before anything is trained."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mer_bench import __version__
from mer_bench.models.registry import Registered
from mer_bench.protocols.composite import composite_deviations
from mer_bench.protocols.folds import FoldSet
from mer_bench.runs.data import BenchData
from mer_bench.runs.directory import SCHEMA_VERSION
from mer_bench.settings import Resolved, RunSettings


def versions(package: str) -> dict[str, str]:
    """Returns the versions that decide a result: Python, ours, the model's package, numpy and torch."""
    found = {"python": platform.python_version(), "mer-bench": __version__, "model": package}
    for name in ("mer-flow", "numpy", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def source_commit() -> str:
    """Returns the git commit of this source tree, with `+` where it has changes; empty outside a checkout."""
    here = Path(__file__).parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A package installed below somebody else's checkout is not part of it.
    if git("ls-files", "--error-unmatch", "errors.py") is None:
        return ""
    changed = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
    return (git("rev-parse", "HEAD") or "") + ("+" if changed else "")


def build_manifest(
    registered: Registered,
    run: RunSettings,
    resolved: Resolved,
    data: BenchData,
    folds: FoldSet,
    parameters: int | None,
) -> dict[str, Any]:
    """Writes down a run.

    Args:
        registered: The model and its package.
        run: The run's settings.
        resolved: The model's options and recipe.
        data: Maps and labels.
        folds: The fold set.
        parameters: Trainable parameters; None for a classifier.

    Returns:
        Plain values. `identity` holds what decides a result, and `digest` is its SHA-256.
    """
    spec, population = registered.spec, data.population
    recipe = None if resolved.recipe is None else resolved.recipe.record()
    options = json.loads(json.dumps(resolved.options, default=str))
    identity = {
        "model": spec.name,
        "options": options,
        "recipe": recipe,
        "protocol": run.protocol,
        "scheme": population.scheme,
        "view": data.view,
        "normalisation": data.normalisation,
        "shuffle_labels": data.shuffle_seed,
        "data": data.digest(),
        "folds": folds.digest(),
    }
    text = json.dumps(identity, sort_keys=True)
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "model": spec.name,
        "protocol": run.protocol,
        "identity": identity,
        "seeds": sorted(run.seeds),
        "title": spec.title,
        "package": registered.package,
        "citation": spec.citation,
        "exactness": spec.exactness,
        "filled_in": list(spec.filled_in),
        "selects_on_test": spec.selects_on_test,
        "parameters": parameters,
        "variant": resolved.variant,
        "default_variant": {"name": spec.default_variant, "parameters": spec.parameters},
        "changes": json.loads(json.dumps(resolved.changes, default=str)),
        "settings": asdict(run),
        "classes": list(population.classes),
        "store": data.store,
        "store_digest": data.store_digest,
        "passed_over": [list(pair) for pair in data.passed_over],
        "dropped": dict(data.dropped),
        "warnings": list(folds.warnings),
        "deviations": list(composite_deviations(population)) if run.protocol == "cde" else [],
        "versions": versions(registered.package),
        "commit": source_commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "samples": {
            "sample_ids": population.sample_ids.tolist(),
            "subjects": population.subjects.tolist(),
            "databases": population.databases.tolist(),
            "labels": population.labels.tolist(),
        },
        "folds": [
            {
                "name": fold.name,
                "train": fold.train.tolist(),
                "test": fold.test.tolist(),
                "inner": fold.inner.tolist(),
            }
            for fold in folds.folds
        ],
    }
