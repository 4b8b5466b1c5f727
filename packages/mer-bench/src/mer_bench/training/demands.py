"""What a recipe asks of the network itself, beside its parameters and its answers."""

from __future__ import annotations

from torch import nn

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe


def meet_recipe(network: nn.Module, recipe: Recipe) -> None:
    """Tell a network how strongly to augment its features.

    Where it can, it has an attribute `isda`, the largest strength of implicit semantic augmentation, which is
    set to the recipe's.

    Raises:
        UsageError: The recipe asks for augmentation and the network has none.
    """
    if hasattr(network, "isda"):
        network.isda = recipe.isda  # type: ignore[assignment]
    elif recipe.isda:
        raise UsageError(
            f"recipe '{recipe.name}' has isda = {recipe.isda:g}, but {type(network).__name__} has no "
            "implicit semantic augmentation; set isda = 0"
        )
