"""How networks are read: logits into what is recorded, as the recipe asks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mer_bench.recipe import Recipe
from mer_bench.training.augmentation import Augmenter
from mer_bench.training.losses import logit_offsets


class Reading:
    """Takes the prior of the training classes out of logits, and averages a map with its mirror.

    The prior: Menon et al., ICLR 2021, arXiv:2007.07314, eq. 9. The mean over a map and its mirror is one of
    probabilities, recorded as its logarithm: Krizhevsky et al., NeurIPS 2012, section 4.1, with flips alone.

    Args:
        recipe: Its `prior` and `flip_average`.
        view: The input as `view:normalisation`.
        counts: `(F, classes)` int64 training samples per class.

    Raises:
        UsageError: Maps of the view cannot be mirrored.
    """

    def __init__(self, recipe: Recipe, view: str, counts: Tensor) -> None:
        self._offset = logit_offsets(counts, recipe.prior).unsqueeze(1) if recipe.prior else None
        self._mirror = Augmenter.mirror(recipe, view)

    @classmethod
    def of_recipe(cls, recipe: Recipe, view: str, counts: Tensor) -> Reading | None:
        """Return a recipe's reading, or None where logits are recorded as they are."""
        return cls(recipe, view, counts) if recipe.prior or recipe.flip_average else None

    def __call__(self, predict: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
        """Return `(F, M, classes)` for maps `(F, M, C, H, W)`: logits, or log probabilities."""
        logits = self._adjusted(predict(maps))
        if self._mirror is None:
            return logits
        # The key decides nothing: every map is mirrored.
        mirrored = self._mirror(maps, torch.zeros(len(maps), dtype=torch.int64, device=maps.device))
        both = torch.stack([logits, self._adjusted(predict(mirrored))])
        return torch.logsumexp(F.log_softmax(both.float(), dim=-1), dim=0) - math.log(2.0)

    def _adjusted(self, logits: Tensor) -> Tensor:
        return logits if self._offset is None else logits - self._offset
