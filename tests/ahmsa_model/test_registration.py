"""AHMSA-Net as the bench sees it."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
import torch

from ahmsa_model import AHMSAConfig, AHMSANet, count_parameters
from ahmsa_model.registration import SPECS
from mer_bench.errors import UsageError
from mer_flow.views import NORMALISATIONS, parse_view

SPEC = SPECS[0]


def test_the_entry_point_leads_here():
    (point,) = entry_points(group="mer_bench.models", name="ahmsa")
    assert point.load() == SPECS


def test_the_recipes_are_the_papers_and_its_lineages():
    assert SPEC.default_recipe == "paper" and SPEC.default_variant == "paper"
    for name, lr in (("paper", 5e-6), ("lineage", 5e-5)):
        recipe = SPEC.recipes[name]
        assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.optimizer) == (lr, 256, 800, "adam")
        assert (recipe.flip, recipe.shift, recipe.noise, recipe.weight_decay) == (0, 0, 0, 0)
        assert (recipe.schedule, recipe.loss) == ("constant", "cross-entropy")


def test_the_stated_count_is_the_default_variants():
    assert SPEC.parameters == count_parameters(AHMSAConfig())
    assert SPEC.exactness == "reconstructed" and SPEC.filled_in and SPEC.selects_on_test is None


def test_every_view_exists():
    for view in SPEC.views:
        name, normalisation = view.split(":")
        assert parse_view(name).size == 28 and normalisation in NORMALISATIONS


@pytest.mark.parametrize("name", SPEC.variants)
def test_every_variant_builds_on_the_default_view(name):
    with torch.device("meta"):
        network = SPEC.build(num_classes=4, in_channels=3, map_size=28, **SPEC.variants[name])
    assert isinstance(network, AHMSANet) and network.config.num_classes == 4


def test_a_wrong_option_is_the_benchs_usage_error():
    with pytest.raises(
        UsageError, match="model 'ahmsa': unknown AHMSA-Net option 'wdith'; did you mean 'width'"
    ):
        SPEC.build(num_classes=3, wdith=2)
    with pytest.raises(UsageError, match=r"need 4×4 patches"):
        SPEC.build(num_classes=3, map_size=32)


def test_the_bench_types_every_option():
    from mer_bench.settings import gather, resolve

    sets = ["variant=tiny", "blocks=1,1,2", "attention=block", "dropout=0.1", "positional_embedding=false"]
    options = resolve(SPEC, gather(None, sets, {})).options
    assert (tuple(options["blocks"]), options["attention"], options["dropout"]) == ((1, 1, 2), "block", 0.1)
    assert SPEC.build(num_classes=3, **options).levels[0].position is None
    with pytest.raises(Exception, match="unknown setting 'wdith'; did you mean 'width'"):
        resolve(SPEC, gather(None, ["wdith=2"], {}))
