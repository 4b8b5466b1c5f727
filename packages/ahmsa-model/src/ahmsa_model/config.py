"""AHMSAConfig: every choice that makes one AHMSA-Net, and the named variants. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ahmsa_model.errors import ConfigError, unknown_name

Attention = Literal["global", "block"]
ChannelAttention = Literal["shared", "separate", "none"]


@dataclass(frozen=True, slots=True)
class AHMSAConfig:
    """One AHMSA-Net (arXiv 2501.02539), as text and Table 3 give it, with the gaps filled in.

    No code was published. "Stated" marks what the paper says; "filled in" a choice made here, with its
    reason.

    Attributes:
        num_classes: Outputs of the head. Stated: 3.
        in_channels: Channels of the flow map: u, v, strain. Stated: 3.
        map_size: Side of the square flow map, pixels. Stated: 28.
        patch_size: Side of a patch, pixels; `map_size / patch_size` must be `scale_factor ** (levels - 1)`,
            so that the top level holds one patch, as stated. Stated: 7.
        levels: Levels of the hierarchy. Stated: 3.
        scale_factor: How much adaptive downsampling shrinks each side. Stated: 2; the paper also tries 3,
            which needs 9×9 patches (map 36 with patch 4 as its "36" suggests, or map 63 with patch 7).
        blocks: Multi-scale attention blocks of each level, finest first. Stated: (2, 2, 8).
        width: Channels of the finest level. Filled in: 256, as HTNet, whose layout Table 3 follows.
        width_multipliers: Channels of each level over `width`; empty means 1, 2, 4, ... Filled in: doubling,
            as HTNet.
        heads: Heads of the finest level, times the level's multiplier on the others. Filled in: 3, the
            unlabelled last row of Table 3 and HTNet's value; a head has `width // heads` channels (85 of
            256), as HTNet.
        channel_attention: `shared`: one two-layer network for the average-pooled and the max-pooled channels;
            `separate`: one each; `none`: without the module, an ablation. Filled in: shared, as CBAM.
        channel_reduction: How much narrower the hidden layer of channel attention is. Filled in: 16, as CBAM.
        attention: `global`: every patch of a level sees every other, as "correlations between different
            optical flow patches" asks; `block`: each patch sees itself alone, which HTNet's rearrangement
            amounts to at this size; an ablation. Filled in: global.
        feed_forward_expansion: Hidden over outer channels of the feed-forward module. Filled in: 4, as HTNet.
        residual: Whether the three modules of a block are residual. Filled in: yes; twelve blocks hardly
            train without.
        positional_embedding: Whether a level adds a learned vector per patch, zero at the start. Filled in:
            yes; attention between patches is blind to position without.
        head_hidden: Hidden units of the MLP head, with GELU; 0 is one linear layer. Filled in: 0, as HTNet.
        dropout: After the attention's and the feed-forward's layers. Filled in: 0; the paper names none.
        norm_eps: Epsilon of LayerNorm, over the channels of each patch. Filled in: 1e-5, as HTNet.

    Raises:
        ConfigError: An option has the wrong type or range, or the options do not fit together.

    >>> AHMSAConfig(map_size=36, patch_size=4, scale_factor=3).grids
    (9, 3, 1)
    """

    num_classes: int = 3
    in_channels: int = 3
    map_size: int = 28
    patch_size: int = 7
    levels: int = 3
    scale_factor: int = 2
    blocks: tuple[int, ...] = (2, 2, 8)
    width: int = 256
    width_multipliers: tuple[int, ...] = ()
    heads: int = 3
    channel_attention: ChannelAttention = "shared"
    channel_reduction: int = 16
    attention: Attention = "global"
    feed_forward_expansion: int = 4
    residual: bool = True
    positional_embedding: bool = True
    head_hidden: int = 0
    dropout: float = 0.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            _check_int(name, getattr(self, name), least)
        for name in ("blocks", "width_multipliers"):
            object.__setattr__(self, name, _int_tuple(name, getattr(self, name)))
        for name in ("residual", "positional_embedding"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"option '{name}' must be true or false, got {getattr(self, name)!r}")
        for name in ("dropout", "norm_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigError(f"option '{name}' must be a number, got {value!r}")
            object.__setattr__(self, name, float(value))
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"option 'dropout' must lie in [0, 1), got {self.dropout}")
        if not self.norm_eps > 0.0:
            raise ConfigError(f"option 'norm_eps' must be above 0, got {self.norm_eps}")
        _check_name("attention", self.attention, get_args(Attention))
        _check_name("channel_attention", self.channel_attention, get_args(ChannelAttention))
        self._check_levels()
        self._check_grid()
        if self.heads > self.width:
            raise ConfigError(
                f"option 'heads' is {self.heads}, but width {self.width} leaves a head no channel; "
                f"use at most {self.width} heads"
            )

    def _check_levels(self) -> None:
        if len(self.blocks) != self.levels:
            raise ConfigError(
                f"'blocks' names {len(self.blocks)} levels {self.blocks}, but levels is {self.levels}; "
                f"give one number of blocks per level, as in blocks={(2,) * self.levels}"
            )
        if not self.width_multipliers:
            object.__setattr__(self, "width_multipliers", tuple(2**level for level in range(self.levels)))
        if len(self.width_multipliers) != self.levels:
            raise ConfigError(
                f"'width_multipliers' names {len(self.width_multipliers)} levels "
                f"{self.width_multipliers}, but levels is {self.levels}; give one each, or none to double"
            )

    def _check_grid(self) -> None:
        needed = self.scale_factor ** (self.levels - 1)
        if self.map_size != needed * self.patch_size:
            sizes = [f"map_size {needed * self.patch_size} with patch_size {self.patch_size}"]
            if self.map_size % needed == 0:
                sizes.append(f"patch_size {self.map_size // needed} with map_size {self.map_size}")
            raise ConfigError(
                f"{self.levels} levels with scale_factor {self.scale_factor} need {needed}×{needed} patches "
                f"to end in one; map_size {self.map_size} with patch_size {self.patch_size} gives "
                f"{self.map_size / self.patch_size:g} per side. Use {' or '.join(sizes)}, "
                "or other levels or another scale_factor"
            )

    @property
    def grids(self) -> tuple[int, ...]:
        """Patches along one side at each level, finest first; the last is 1."""
        return tuple(self.scale_factor ** (self.levels - 1 - level) for level in range(self.levels))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at each level, finest first."""
        return tuple(self.width * multiplier for multiplier in self.width_multipliers)

    @property
    def level_heads(self) -> tuple[int, ...]:
        """Attention heads at each level, finest first."""
        return tuple(self.heads * multiplier for multiplier in self.width_multipliers)

    @property
    def head_width(self) -> int:
        """Channels of one attention head, the same at every level."""
        return self.width // self.heads

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as JSON-ready values, in order."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> AHMSAConfig:
        """Builds a config from plain values, as read from JSON.

        Args:
            options: Option name to value; absent options take their default.

        Returns:
            The validated config.

        Raises:
            ConfigError: An option is unknown (the nearest is suggested) or its value is wrong.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(unknown_name("AHMSA-Net option", name, known))
        return cls(**options)


#: Smallest value of each whole-number option.
_LEAST = {
    "num_classes": 2,
    "in_channels": 1,
    "map_size": 1,
    "patch_size": 1,
    "levels": 1,
    "scale_factor": 2,
    "width": 1,
    "heads": 1,
    "channel_reduction": 1,
    "feed_forward_expansion": 1,
    "head_hidden": 0,
}

_SMALL = {"width": 32, "heads": 2, "blocks": (1, 1, 2), "channel_reduction": 8}

#: Named option sets, each a difference from the defaults.
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "dim128": {"width": 128},
    "dim64": {"width": 64},
    "constant256": {"width_multipliers": (1, 1, 1)},
    "small": dict(_SMALL),
    "tiny": {
        "width": 16,
        "heads": 1,
        "blocks": (1, 1, 1),
        "channel_reduction": 8,
        "feed_forward_expansion": 2,
    },
    "paper-block": {"attention": "block"},
    "small-block": {**_SMALL, "attention": "block"},
    "small-no-channel": {**_SMALL, "channel_attention": "none"},
    "scale3": {"map_size": 36, "patch_size": 4, "scale_factor": 3},
    "blocks-1-1-8": {"blocks": (1, 1, 8)},
    "blocks-3-3-8": {"blocks": (3, 3, 8)},
    "blocks-4-4-8": {"blocks": (4, 4, 8)},
    "blocks-6-6-8": {"blocks": (6, 6, 8)},
    "blocks-8-8-8": {"blocks": (8, 8, 8)},
}


def variant_config(name: str, **options: Any) -> AHMSAConfig:
    """Builds the config of a named variant.

    Args:
        name: A key of `VARIANTS`.
        **options: Options that override the variant's.

    Returns:
        The validated config.

    Raises:
        ConfigError: The variant or an option is unknown, or a value is wrong.

    >>> variant_config("dim64", num_classes=5).widths
    (64, 128, 256)
    """
    if name not in VARIANTS:
        raise ConfigError(unknown_name("AHMSA-Net variant", name, VARIANTS))
    return AHMSAConfig.from_dict({**VARIANTS[name], **options})


def _check_int(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"option '{name}' must be a whole number of at least {least}, got {value!r}")


def _int_tuple(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"option '{name}' must be a list of whole numbers, one per level, got {value!r}")
    for item in value:
        _check_int(f"{name}[...]", item, 1)
    return tuple(value)


def _check_name(option: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"option '{option}': {unknown_name('value', str(value), known)}")
