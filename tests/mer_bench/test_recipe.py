"""Recipes: text is read as the type of its field, and what cannot be is refused."""

from __future__ import annotations

import pytest

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe


def test_fields_are_read_from_text():
    recipe = Recipe(class_weights=".15, .425,.425", balanced="yes", drop_last="true", layer_decay="0.9")
    assert recipe.class_weights == (0.15, 0.425, 0.425)
    assert (recipe.balanced, recipe.drop_last, recipe.layer_decay) == (True, True, 0.9)
    assert Recipe(**recipe.record()) == recipe


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_weights": "1,0,1"}, r"recipe.class_weights must be .*above 0.*, got 0"),
        ({"class_weights": "1,nan,1"}, r"recipe.class_weights must be finite.*, got nan"),
        ({"class_weights": "1,1,1", "loss": "focal"}, "belongs to loss = 'cross-entropy'"),
        ({"layer_decay": "0"}, r"layer_decay must lie in \(0, 1\], got 0"),
        ({"layer_decay": "1.5"}, r"layer_decay must lie in \(0, 1\], got 1.5"),
        ({"isda": "-1"}, r"isda must be .*at least 0"),
        ({"balance": "yes"}, "did you mean 'recipe.balanced'"),
        ({"optimizer": "lion"}, "adam, adamw, sgd"),
        ({"schedule": "poly"}, "constant, cosine, exponential, step"),
        ({"amp": "fp16"}, "bf16, off"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        Recipe(**fields)
