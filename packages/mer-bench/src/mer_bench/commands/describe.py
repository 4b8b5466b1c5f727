"""What `mer-bench models` says of one model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mer_bench.registry import Registered
from mer_bench.settings import option_types
from mer_bench.training.recipes import Recipe


def model_fields(entry: Registered) -> dict[str, Any]:
    """Returns a model's metadata as plain values."""
    spec = entry.spec
    return {
        "name": spec.name,
        "title": spec.title,
        "kind": spec.kind,
        "package": entry.package,
        "parameters": spec.parameters,
        "views": list(spec.views),
        "variants": {
            name: {k: _plain(v) for k, v in options.items()} for name, options in spec.variants.items()
        },
        "default_variant": spec.default_variant,
        "recipes": {name: asdict(recipe) for name, recipe in spec.recipes.items()},
        "default_recipe": spec.default_recipe,
        "options": sorted(option_types(spec)[0]),
        "exactness": spec.exactness,
        "filled_in": list(spec.filled_in),
        "selects_on_test": spec.selects_on_test,
        "citation": spec.citation,
        "licence": spec.licence,
        "pretraining": spec.pretraining,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def describe_recipe(recipe: Recipe) -> str:
    """Returns what a recipe says apart from defaults, in one line."""
    default = Recipe()
    always = ("epochs", "batch_size", "optimizer", "lr")
    values = asdict(recipe)
    changed = [k for k in values if k not in always and k != "name" and values[k] != getattr(default, k)]
    return ", ".join(f"{key} {values[key]}" for key in (*always, *changed))


def describe_model(entry: Registered) -> str:
    """Returns a model's metadata as text for people."""
    spec = entry.spec
    selects = {True: "yes", False: "no", None: "unknown"}[spec.selects_on_test]
    lines = [
        f"{spec.name}: {spec.title} ({spec.kind}, {spec.exactness}; {entry.package})",
        f"  source: {spec.citation}",
        f"  parameters: {f'{spec.parameters:,}' if spec.parameters else '–'}",
        f"  input, best first: {', '.join(spec.views)}",
        f"  its authors' code selects on test: {selects}",
    ]
    if spec.licence:
        lines.append(f"  licence: {spec.licence}")
    if spec.pretraining:
        lines.append(f"  pre-trained on: {spec.pretraining}")
    for name, options in spec.variants.items():
        default = " (default)" if name == spec.default_variant else ""
        lines.append(
            f"  variant {name}{default}: {', '.join(f'{k}={v}' for k, v in options.items()) or 'as built'}"
        )
    for name, recipe in spec.recipes.items():
        default = " (default)" if name == spec.default_recipe else ""
        lines.append(f"  recipe {name}{default}: {describe_recipe(recipe)}")
    known = sorted(option_types(spec)[0])
    if known:
        lines.append(f"  options for --set: {', '.join(known)}")
    lines += [f"  filled in: {sentence}" for sentence in spec.filled_in]
    return "\n".join(lines)
