"""AHMSAConfig: every choice that makes one AHMSA-Net, and the named variants. No torch here."""

from __future__ import annotations

import itertools
import textwrap
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from ahmsa_model.errors import AHMSAError, ConfigError, unknown_name

#: Levels at most, and blocks of each, and how much wider each may be.
MAX_LEVELS, MAX_PER_LEVEL = 8, 256
#: Trainable values at most: 8 GB in float32, 17 times the paper's.
MAX_PARAMETERS = 2_000_000_000

# The bounds keep a stranger's options from being built for hours before anything refuses them.
Count = Annotated[int, Field(ge=1, le=1 << 16)]
# JSON and `--set` bring lists.
Counts = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MAX_PER_LEVEL)], ...], Field(strict=False, max_length=MAX_LEVELS)
]


class Values(BaseModel):
    """Frozen, strictly typed values that refuse unknown names; a fault is one line of one kind of error.

    Attributes:
        what: What a message calls a value.
        error: What a fault raises.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    what: ClassVar[str]
    error: ClassVar[type[AHMSAError]]

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self.error(self._told(error.errors()[0])) from None

    @classmethod
    def _told(cls, fault: ErrorDetails) -> str:
        name, given = ".".join(map(str, fault["loc"])), fault["input"]
        if fault["type"] == "extra_forbidden":
            return unknown_name(cls.what, name, cls.model_fields)
        if fault["type"] == "literal_error":
            known = cls.model_fields[name].annotation.__args__  # type: ignore[union-attr]
            return f"{cls.what} '{name}': {unknown_name('value', str(given), known)}"
        shown = textwrap.shorten(repr(given), 80, placeholder=" ...")
        return f"{cls.what} '{name}' {fault['msg'].replace('Input should be', 'must be')}, got {shown}"


class AHMSAConfig(Values):
    """One AHMSA-Net (arXiv 2501.02539), as text and Table 3 give it, with the gaps filled in.

    No code was published. "Stated" marks what the paper says; "filled in" a choice made here, with its
    reason.

    Attributes:
        num_classes: Outputs of the head. Stated: 3.
        in_channels: Channels of the flow map: u, v, strain. Stated: 3.
        map_size: Side of the square flow map, px. Stated: 28.
        patch_size: Side of a patch, px; `map_size / patch_size` must be `scale_factor ** (levels - 1)`, so
            that the top level holds one patch, as stated. Stated: 7.
        levels: Of the hierarchy. Stated: 3.
        scale_factor: How much adaptive downsampling shrinks each side. Stated: 2; the paper also tries 3,
            which needs 9×9 patches (map 36 with patch 4 as its "36" suggests, or map 63 with patch 7).
        blocks: Multi-scale attention blocks of each level, finest first. Stated: (2, 2, 8).
        width: Channels of the finest level. Filled in: 256, as HTNet, whose layout Table 3 follows.
        width_multipliers: Channels of each level over `width`. Filled in: 1, 2, 4, ... (or empty), as HTNet.
        heads: Of the finest level, times the level's multiplier on the others; of `width // heads` channels
            each. Filled in: 3, the unlabelled last row of Table 3 and HTNet's value.
        channel_attention: `shared`: one two-layer network for the average-pooled and the max-pooled channels;
            `separate`: one each; `none`: an ablation. Filled in: shared, as CBAM.
        channel_reduction: How much narrower the hidden layer of channel attention is. Filled in: 16, as CBAM.
        attention: `global`: every patch of a level sees every other, as "correlations between different
            optical flow patches" asks; `block`: each sees itself alone, which HTNet's rearrangement amounts
            to at this size; an ablation. Filled in: global.
        feed_forward_expansion: Hidden over outer channels. Filled in: 4, as HTNet.
        residual: Of the three modules of a block. Filled in: yes; twelve blocks hardly train without.
        positional_embedding: A learned vector per patch and level, zero at the start. Filled in: yes;
            attention between patches is blind to position without.
        head_hidden: Hidden units of the MLP head, with GELU; 0 is one linear layer. Filled in: 0, as HTNet.
        dropout: After the attention's and the feed-forward's layers. Filled in: 0; the paper names none.
        norm_eps: Epsilon of LayerNorm, over the channels of each patch. Filled in: 1e-5, as HTNet.

    Raises:
        ConfigError: An option is unknown or of a wrong type or range, the options do not fit together, or
            they make a network of more than `MAX_PARAMETERS`.

    >>> AHMSAConfig(map_size=36, patch_size=4, scale_factor=3).grids
    (9, 3, 1)
    """

    what = "AHMSA-Net option"
    error = ConfigError

    num_classes: int = Field(default=3, ge=2, le=1000)
    in_channels: Count = 3
    map_size: Count = 28
    patch_size: Count = 7
    levels: int = Field(default=3, ge=1, le=MAX_LEVELS)
    scale_factor: int = Field(default=2, ge=2, le=64)
    blocks: Counts = (2, 2, 8)
    width: Count = 256
    width_multipliers: Counts = Field(default=(), validate_default=True)
    heads: Count = 3
    channel_attention: Literal["shared", "separate", "none"] = "shared"
    channel_reduction: Count = 16
    attention: Literal["global", "block"] = "global"
    feed_forward_expansion: Count = 4
    residual: bool = True
    positional_embedding: bool = True
    head_hidden: int = Field(default=0, ge=0, le=1 << 16)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    norm_eps: float = Field(default=1e-5, gt=0)

    @field_validator("width_multipliers")
    @classmethod
    def _double_unless_given(cls, given: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        return given or tuple(2**level for level in range(info.data.get("levels", 0)))

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in ("blocks", "width_multipliers"):
            given = getattr(self, name)
            if len(given) != self.levels:
                raise ConfigError(
                    f"'{name}' names {len(given)} levels {given}, but levels is {self.levels}; "
                    f"give one number per level, as in {name}={(2,) * self.levels}"
                )
        needed = self.scale_factor ** (self.levels - 1)
        if self.map_size != needed * self.patch_size:
            sizes = f"map_size {needed * self.patch_size} with patch_size {self.patch_size}"
            if self.map_size % needed == 0:
                sizes += f" or patch_size {self.map_size // needed} with map_size {self.map_size}"
            raise ConfigError(
                f"{self.levels} levels with scale_factor {self.scale_factor} need {needed}×{needed} patches "
                f"to end in one; map_size {self.map_size} with patch_size {self.patch_size} gives "
                f"{self.map_size / self.patch_size:g} per side. Use {sizes}, or other levels or another "
                "scale_factor"
            )
        if self.heads > self.width:
            raise ConfigError(
                f"option 'heads' is {self.heads}, but width {self.width} leaves a head no channel; "
                f"use at most {self.width} heads"
            )
        if self.parameters > MAX_PARAMETERS:
            raise ConfigError(
                f"these options make a network of {self.parameters:.2g} parameters, more than the "
                f"{MAX_PARAMETERS:.0e} that are built; use a smaller width, multipliers, heads or blocks"
            )
        return self

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

    @property
    def parameters(self) -> int:
        """Trainable values of the network, counted without building it."""
        sides, widths = self.grids, self.widths
        total = (self.in_channels * self.patch_size**2 + 1) * self.width
        for level, (side, width) in enumerate(zip(sides, widths, strict=True)):
            total += side**2 * width * self.positional_embedding + self.blocks[level] * self._of_block(level)
        total += sum((9 * a + 3) * b for a, b in itertools.pairwise(widths))
        top, hidden = widths[-1], self.head_hidden
        last = hidden or top
        return total + 2 * top + hidden * (top + 1) + (last + 1) * self.num_classes

    def _of_block(self, level: int) -> int:
        width, inner = self.widths[level], self.level_heads[level] * self.head_width
        networks = {"none": 0, "shared": 1, "separate": 2}[self.channel_attention]
        channel = networks * 2 * width * max(1, width // self.channel_reduction) + 2 * width * (networks > 0)
        spatial = 2 * width + 4 * width * inner + width
        outer = width * self.feed_forward_expansion
        return channel + spatial + 2 * width + 2 * width * outer + outer + width


_SMALL = {"width": 32, "heads": 2, "blocks": (1, 1, 2), "channel_reduction": 8}

#: Named option sets, each a difference from the defaults.
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "dim128": {"width": 128},
    "dim64": {"width": 64},
    "constant256": {"width_multipliers": (1, 1, 1)},
    "small": _SMALL,
    "tiny": {**_SMALL, "width": 16, "heads": 1, "blocks": (1, 1, 1), "feed_forward_expansion": 2},
    "paper-block": {"attention": "block"},
    "small-block": {**_SMALL, "attention": "block"},
    "small-no-channel": {**_SMALL, "channel_attention": "none"},
    "scale3": {"map_size": 36, "patch_size": 4, "scale_factor": 3},
    **{f"blocks-{n}-{n}-8": {"blocks": (n, n, 8)} for n in (1, 3, 4, 6, 8)},
}


def variant_config(name: str, **options: Any) -> AHMSAConfig:
    """Build the config of a named variant.

    Args:
        name: A key of `VARIANTS`.
        **options: Options that override the variant's.

    Raises:
        ConfigError: The variant or an option is unknown, or a value is wrong.

    >>> variant_config("dim64", num_classes=5).widths
    (64, 128, 256)
    """
    if name not in VARIANTS:
        raise ConfigError(unknown_name("AHMSA-Net variant", name, VARIANTS))
    return AHMSAConfig(**{**VARIANTS[name], **options})
