"""What a recipe asks of the network itself, beside its parameters and its answers."""

from __future__ import annotations

from torch import nn

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe


def meet_recipe(network: nn.Module, recipe: Recipe) -> None:
    """Tell a network how strongly to augment its features, and refuse what it cannot do.

    Where it can, it has an attribute `isda`, the largest strength of implicit semantic augmentation, which is
    set to the recipe's.

    Raises:
        UsageError: The recipe asks for augmentation and the network has none; it mixes samples and the
            network trains with the label of each; or it contrasts features and there is no linear layer.
    """
    if recipe.mixup and getattr(network, "trains_with_labels", False):
        raise UsageError(
            f"recipe '{recipe.name}' has mixup = {recipe.mixup:g}, but {type(network).__name__} trains with "
            "one label of each sample, and a mixed one has two; set mixup = 0"
        )
    if recipe.supcon and not any(isinstance(module, nn.Linear) for module in network.modules()):
        raise UsageError(
            f"recipe '{recipe.name}' has supcon = {recipe.supcon:g}, but {type(network).__name__} has no "
            "linear layer whose input it could contrast; set supcon = 0"
        )
    if hasattr(network, "isda"):
        network.isda = recipe.isda  # type: ignore[assignment]
    elif recipe.isda:
        raise UsageError(
            f"recipe '{recipe.name}' has isda = {recipe.isda:g}, but {type(network).__name__} has no "
            "implicit semantic augmentation; set isda = 0"
        )
