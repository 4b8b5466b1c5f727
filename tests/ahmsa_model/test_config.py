"""AHMSAConfig: what is accepted, what is refused, and what the refusal says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ahmsa_model import VARIANTS, AHMSAConfig, ConfigError, variant_config


def test_the_default_is_table_3_of_the_paper():
    config = AHMSAConfig()
    assert (config.levels, config.scale_factor, config.blocks) == (3, 2, (2, 2, 8))
    assert (config.map_size, config.patch_size, config.heads) == (28, 7, 3)
    assert (config.grids, config.widths, config.level_heads) == ((4, 2, 1), (256, 512, 1024), (3, 6, 12))
    assert config.head_width == 85


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_survive_json(name):
    config = variant_config(name)
    assert AHMSAConfig(**json.loads(json.dumps(config.model_dump()))) == config


@pytest.mark.parametrize("size, patch", [(36, 4), (63, 7)])
def test_scale_factor_3_needs_81_patches(size, patch):
    assert AHMSAConfig(map_size=size, patch_size=patch, scale_factor=3).grids == (9, 3, 1)
    with pytest.raises(
        ConfigError, match=r"need 9×9 patches .* map_size 28 with patch_size 7 gives 4 per side"
    ):
        AHMSAConfig(scale_factor=3)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"map_size": 32},
            "gives 4.57143 per side. Use map_size 28 with patch_size 7 or patch_size 8 with map_size 32",
        ),
        ({"blocks": [2, 2]}, r"'blocks' names 2 levels \(2, 2\), but levels is 3"),
        ({"blocks": [2, 0, 8]}, r"'blocks.1' must be greater than or equal to 1, got 0"),
        ({"blocks": 8}, "'blocks' must be a valid tuple, got 8"),
        ({"width_multipliers": [1, 2]}, "'width_multipliers' names 2 levels"),
        ({"width": "256"}, "'width' must be a valid integer, got '256'"),
        ({"width": True}, "'width' must be a valid integer, got True"),
        ({"num_classes": 1}, "'num_classes' must be greater than or equal to 2, got 1"),
        ({"width": 2}, "'heads' is 3, but width 2 leaves a head no channel"),
        ({"dropout": 1.0}, "'dropout' must be less than 1, got 1.0"),
        ({"dropout": "none"}, "'dropout' must be a valid number, got 'none'"),
        ({"norm_eps": 0}, "'norm_eps' must be greater than 0, got 0"),
        ({"residual": 1}, "'residual' must be a valid boolean, got 1"),
        ({"attention": "blocks"}, "'attention': unknown value 'blocks'; did you mean 'block'"),
        ({"channel_attention": "cbam"}, "Known: none, separate, shared"),
        ({"depth": 3}, "unknown AHMSA-Net option 'depth'"),
        ({"patchsize": 7}, "unknown AHMSA-Net option 'patchsize'; did you mean 'patch_size'"),
    ],
)
def test_a_wrong_option_says_what_was_expected(options, message):
    with pytest.raises(ConfigError, match=message):
        AHMSAConfig(**options)


def test_an_unknown_variant_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown AHMSA-Net variant 'tinny'; did you mean 'tiny'"):
        variant_config("tinny")


def test_the_package_and_its_config_import_without_torch():
    code = (
        "import sys, ahmsa_model.cli; heavy = {'torch', 'numpy', 'mer_flow'}\n"
        "assert not (heavy | {'pydantic'}) & set(sys.modules)\n"
        "ahmsa_model.AHMSAConfig(); assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
