"""What `mer-bench models` says of one model."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

from mer_bench.models.registry import Registered
from mer_bench.recipe import Recipe
from mer_bench.resolve import option_types

#: Characters of a line where there is no terminal to ask.
WIDTH = 100
#: What an input and a source keep where they do not fit; `mer-bench models NAME` has them whole.
_INPUT, _SOURCE = 22, 17
_SELECTS = {True: "yes", False: "no", None: "unknown"}


def short_source(citation: str) -> str:
    """Return first author and year of a citation, else its arXiv number, else a dash.

    >>> short_source("S.-T. Liong, Y. S. Gan: STSTNet. IEEE FG 2019. doi:10.1109/FG.2019.8756567")
    'Liong et al. 2019'
    >>> short_source("AHMSA-Net: Adaptive Hierarchical Network. arXiv:2501.02539, 2025.")
    'arXiv:2501.02539'
    """
    authors, colon, rest = citation.partition(": ")
    year = re.search(r"(?<![:\d./-])(?:19|20)\d\d(?![\d-])", rest)
    # Authors are told from a name that ends in a colon by their initials.
    if colon and year and re.match(r"(?:[A-Z]\.[ -]?)+", authors):
        first, *others = authors.split(", ")
        surname = re.sub(r"^(?:[A-Z]\.[ -]?)+", "", first)
        return f"{surname}{' et al.' if others else ''} {year[0]}"
    arxiv = re.search(r"arXiv[: ]\d{4}\.\d{4,5}", citation)
    return arxiv[0].replace(" ", ":") if arxiv else "–"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def list_models(entries: Sequence[Registered], width: int = WIDTH) -> str:
    """Return the list of models for people, no line longer than `width` while names are short."""
    from mer_bench.report.terminal import align

    rows = [["name", "parameters", "input", "specification", "picks on test", "source"]]
    for spec in (entry.spec for entry in entries):
        size = f"{spec.parameters:,}" if spec.parameters else "–"
        source = short_source(spec.citation)
        rows.append([spec.name, size, spec.views[0], spec.exactness, _SELECTS[spec.selects_on_test], source])
    foreign = [
        f"{entry.spec.name} of {entry.package}"
        for entry in entries
        if not entry.package.startswith("mer-bench ")
    ]
    for place, least in ((2, _INPUT), (5, _SOURCE)):
        excess = max(map(len, align(rows, left=len(rows[0])))) - width
        room = max(least, max(len(row[place]) for row in rows) - max(excess, 0))
        rows = [[*row[:place], _cut(row[place], room), *row[place + 1 :]] for row in rows]
    lines = align(rows, left=len(rows[0]))
    lines.append("")
    lines.append("picks on test: whether the authors' own code chooses the epoch on the test subject")
    if foreign:
        lines.append(f"from other packages: {', '.join(foreign)}")
    lines.append("`mer-bench models NAME` says all of one: variants, recipes, options, what was filled in")
    return "\n".join(lines)


def model_fields(entry: Registered) -> dict[str, Any]:
    """Return a model's metadata as plain values."""
    spec = entry.spec
    as_they_are = (
        *("name", "title", "kind", "parameters", "views", "default_variant", "default_recipe", "exactness"),
        *("filled_in", "selects_on_test", "citation", "licence", "pretraining"),
    )
    return {
        **{name: getattr(spec, name) for name in as_they_are},
        "package": entry.package,
        "variants": {name: dict(options) for name, options in spec.variants.items()},
        "variant_views": dict(spec.variant_views),
        "recipe_options": {name: dict(options) for name, options in spec.recipe_options.items()},
        "recipe_views": dict(spec.recipe_views),
        "recipes": {name: recipe.record() for name, recipe in spec.recipes.items()},
        "options": sorted(option_types(spec)[0]),
        "source": short_source(spec.citation),
    }


def describe_recipe(recipe: Recipe) -> str:
    """Return what a recipe says apart from defaults, in one line."""
    default = Recipe().record()
    always = ("epochs", "batch_size", "optimizer", "lr")
    values = recipe.record()
    changed = [k for k in values if k not in always and k != "name" and values[k] != default[k]]
    return ", ".join(f"{key} {values[key]}" for key in (*always, *changed))


def describe_model(entry: Registered) -> str:
    """Return a model's metadata as text for people."""
    spec = entry.spec
    lines = [
        f"{spec.name}: {spec.title} ({spec.kind}, {spec.exactness}; {entry.package})",
        f"  source: {spec.citation}",
        f"  parameters: {f'{spec.parameters:,}' if spec.parameters else '–'}",
        f"  input, best first: {', '.join(spec.views)}",
        f"  its authors' code selects on test: {_SELECTS[spec.selects_on_test]}",
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
        if name in spec.variant_views:
            lines.append(f"  input of {name}, best first: {', '.join(spec.variant_views[name])}")
    for name, recipe in spec.recipes.items():
        default = " (default)" if name == spec.default_recipe else ""
        comes_with = "".join(f", {key}={value}" for key, value in spec.recipe_options.get(name, {}).items())
        lines.append(f"  recipe {name}{default}: {describe_recipe(recipe)}{comes_with}")
        if name in spec.recipe_views:
            lines.append(f"  input of {name}, best first: {', '.join(spec.recipe_views[name])}")
    known = sorted(option_types(spec)[0])
    if known:
        lines.append(f"  options for --set: {', '.join(known)}")
    lines += [f"  filled in: {sentence}" for sentence in spec.filled_in]
    fills = [textwrap.fill(line, WIDTH, subsequent_indent=" " * 6, break_long_words=False) for line in lines]
    return "\n".join(fills)
