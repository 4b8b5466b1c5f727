"""AHMSA-Net as the bench sees it."""

from __future__ import annotations

import pytest

from ahmsa_model.registration import SPECS
from mer_bench.errors import UsageError

SPEC = SPECS[0]


def test_the_recipes_are_the_papers_and_its_lineages():
    assert SPEC.default_recipe == "paper" and SPEC.default_variant == "paper"
    for name, lr in (("paper", 5e-6), ("lineage", 5e-5)):
        recipe = SPEC.recipes[name]
        assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.optimizer) == (lr, 256, 800, "adam")
        assert (recipe.flip, recipe.shift, recipe.noise, recipe.weight_decay) == (0, 0, 0, 0)
        assert (recipe.schedule, recipe.loss) == ("constant", "cross-entropy")


def test_the_robust_recipe_brings_its_dropout_and_its_input():
    from mer_bench.resolve import resolve
    from mer_bench.settings import gather

    def resolved(*sets):
        return resolve(SPEC, gather(None, ["variant=small", *sets], {}))

    assert resolved("recipe=robust").options == SPEC.variants["small"] | {"dropout": 0.2}
    assert resolved("recipe=robust").changes == {}
    assert resolved("recipe=robust", "dropout=0.3").changes == {"dropout": 0.3}
    assert "dropout" not in resolved().options
    assert SPEC.inputs("small", "robust") == ("regions-28:centred-rms", "whole-28:centred-rms")
    assert SPEC.inputs("small")[0] == "regions-28:scaled"


def test_a_wrong_option_is_the_benchs_usage_error():
    with pytest.raises(
        UsageError, match="model 'ahmsa': unknown AHMSA-Net option 'wdith'; did you mean 'width'"
    ):
        SPEC.build(num_classes=3, wdith=2)
    with pytest.raises(UsageError, match=r"need 4×4 patches"):
        SPEC.build(num_classes=3, map_size=32)


def test_the_bench_types_every_option():
    from mer_bench.resolve import resolve
    from mer_bench.settings import gather

    sets = ["variant=tiny", "blocks=1,1,2", "attention=block", "dropout=0.1", "positional_embedding=false"]
    options = resolve(SPEC, gather(None, sets, {})).options
    assert (tuple(options["blocks"]), options["attention"], options["dropout"]) == ((1, 1, 2), "block", 0.1)
    assert SPEC.build(num_classes=3, **options).levels[0].position is None
    with pytest.raises(Exception, match="unknown setting 'wdith'; did you mean 'width'"):
        resolve(SPEC, gather(None, ["wdith=2"], {}))
