"""ModelSpec: what the bench must know of a model, network or handcrafted, ours or a third party's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe


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
            `(n, D)`, called once per sample of a run with that sample alone.
        kind: `network` or `classifier`.
        views: Acceptable inputs, best first, each `view:normalisation` as in `regions-28:scaled`. The bench
            takes the first that the store can give, and records which.
        recipes: Named training recipes; empty for a classifier.
        default_recipe: Which one a run uses unless told otherwise.
        variants: Named option sets for `build`, as in `{"paper": {}, "tiny": {"width": 16}}`.
        default_variant: Which one a run uses unless told otherwise.
        variant_views: Inputs of the variants that read others than `views`, best first, as in
            `{"tiny": ("clips-28+faces-28:scaled",)}`; a small network on large maps wastes memory.
        citation: Authors, title, venue, DOI or arXiv number.
        parameters: Published or computed count of the default variant with 3 classes; None for a
            classifier.
        exactness: `exact` where the specification is known whole, `reconstructed` where choices were filled
            in, or `baseline`.
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
    default_variant: str = "default"
    variant_views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parameters: int | None = None
    filled_in: tuple[str, ...] = ()
    selects_on_test: bool | None = None
    licence: str = ""
    pretraining: str = ""

    def __post_init__(self) -> None:
        if self.default_variant not in self.variants:
            raise UsageError(
                f"model '{self.name}': default variant '{self.default_variant}' is not among "
                f"{list(self.variants)}"
            )
        if self.kind == "network" and self.default_recipe not in self.recipes:
            raise UsageError(
                f"model '{self.name}': default recipe '{self.default_recipe}' is not among "
                f"{list(self.recipes)}"
            )
        strangers = [name for name in self.variant_views if name not in self.variants]
        if strangers:
            raise UsageError(
                f"model '{self.name}': variant_views names {strangers}, which are not among "
                f"{list(self.variants)}"
            )
        if not self.views or not all(self.variant_views.values()):
            raise UsageError(
                f"model '{self.name}' names no view; give at least one such as 'whole-28:scaled'"
            )

    def inputs(self, variant: str = "") -> tuple[str, ...]:
        """Returns the inputs that a variant reads, best first.

        Args:
            variant: Its name; the default variant unless given.
        """
        return self.variant_views.get(variant or self.default_variant, self.views)
