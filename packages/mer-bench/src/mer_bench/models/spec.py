"""ModelSpec: what the bench must know of a model, network or handcrafted, ours or a third party's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import field_validator

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe
from mer_flow.work.settings import Settings

#: Of a model: a part of the name of its run directories, so that nothing leads out of a folder.
_NAME = re.compile(r"\w[\w.+-]{0,99}", re.ASCII)


class Options(Settings):
    """Base of the options of a builder that has many of them, which its attribute `config` names.

    Whole numbers are counts and sizes: none may be negative.
    """

    what = "option"
    error = UsageError

    @field_validator("*")
    @classmethod
    def _not_negative(cls, value: Any) -> Any:
        several = value if isinstance(value, tuple) else (value,)
        if any(isinstance(one, int) and one < 0 for one in several):
            raise ValueError(f"expected no negative number, got {value}")
        return value


@dataclass(frozen=True)
class ModelSpec:
    """One model of the registry.

    Attributes:
        name: Registry name, kebab-case.
        title: The name a table prints.
        build: Called as `build(num_classes=C, in_channels=3, map_size=28, **options)`. For a network it
            returns an `nn.Module` from `(B, 3, H, W)` float32 to logits `(B, C)`; for a classifier an object
            with scikit-learn's `fit(X, y)` and `predict(X)`, `predict_proba` or `decision_function` where it
            has one, and `features(maps, view)` where it fits features rather than maps: `(n, C, H, W)` to
            `(n, D)`, called once per sample of a run with that sample alone. Maps that it cannot take it
            refuses with a `UsageError`.
        kind: `network` or `classifier`.
        views: Acceptable inputs, best first, each `view:normalisation` as in `regions-28:scaled`. The bench
            takes the first that the store can give, and records which.
        citation: Authors, title, venue, DOI or arXiv number.
        exactness: `exact` where the specification is known whole, `reconstructed` where choices were filled
            in, or `baseline`.
        recipes: Named training recipes; empty for a classifier.
        default_recipe: Which one a run uses unless told otherwise; the first unless given.
        variants: Named option sets for `build`, as in `{"paper": {}, "tiny": {"width": 16}}`.
        default_variant: Which one a run uses unless told otherwise; the first unless given.
        variant_views: Inputs of the variants that read others than `views`, best first, as in
            `{"tiny": ("clips-28+faces-28:scaled",)}`; a small network on large maps wastes memory.
        recipe_options: Options for `build` that a named recipe comes with, over those of the variant, as in
            `{"robust": {"dropout": 0.2}}`.
        recipe_views: Inputs of the recipes that ask for others than the variant, best first.
        parameters: Published or computed count of the default variant with 3 classes; None for a
            classifier.
        filled_in: Every choice that the source leaves open, one sentence each.
        selects_on_test: Whether the authors' own code picks the epoch on the test subject; None where
            unknown.
        licence: Note on the authors' code and weights.
        pretraining: Data the weights come from; empty for training from scratch.
    """

    name: str
    title: str
    build: Callable[..., Any]
    kind: Literal["network", "classifier"]
    views: tuple[str, ...]
    citation: str
    exactness: Literal["exact", "reconstructed", "baseline"]
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    default_recipe: str = ""
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}})
    default_variant: str = ""
    variant_views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    recipe_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recipe_views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parameters: int | None = None
    filled_in: tuple[str, ...] = ()
    selects_on_test: bool | None = None
    licence: str = ""
    pretraining: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"model {self.name!r}: a name has up to 100 letters, digits and '-', '_', '.', '+', and "
                "begins with a letter or digit, as in my-model; run directories are called after it"
            )
        named: dict[str, Mapping[str, Any]] = {"variant": self.variants}
        if self.kind == "network":
            named["recipe"] = self.recipes
        for what, known in named.items():
            default = getattr(self, f"default_{what}") or next(iter(known), "")
            if default not in known:
                raise UsageError(
                    f"model '{self.name}': default {what} '{default}' is not among {list(known)}"
                )
            object.__setattr__(self, f"default_{what}", default)
        for what, known in (
            *(("variant_views", self.variants), ("recipe_views", self.recipes)),
            ("recipe_options", self.recipes),
        ):
            strangers = sorted(set(getattr(self, what)) - set(known))
            if strangers:
                raise UsageError(
                    f"model '{self.name}': {what} names {strangers}, which are not among {list(known)}"
                )
        if not all((self.views, *self.variant_views.values(), *self.recipe_views.values())):
            raise UsageError(
                f"model '{self.name}' names no view; give at least one such as 'whole-28:scaled'"
            )

    def inputs(self, variant: str = "", recipe: str = "") -> tuple[str, ...]:
        """Return the inputs that a variant reads under a recipe (the defaults unless given), best first."""
        of_variant = self.variant_views.get(variant or self.default_variant, self.views)
        return self.recipe_views.get(recipe or self.default_recipe, of_variant)


@dataclass(frozen=True)
class Registered:
    """One model of the registry and the distribution that brings it, with its version."""

    spec: ModelSpec
    package: str
