"""HSTA (Hao et al., arXiv 2405.03202): hierarchical space-time attention over clips and special frames.

Two branches read a sample: S its special frames, onset and apex, and V six frames of its clip. Every stage
attends within each branch (unimodal space-time attention), then each branch's CLS token attends to the other
branch's patches (crossmodal space-time attention). The structure follows the authors' code
(github.com/OceanSummerDay/HSTA_MER, `_model_hsta.py`), with the options of its script for CAS(ME)^3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.errors import UsageError
from mer_bench.models.layers.frames import ColourNorm, reduced_size
from mer_bench.models.layers.space_time import Stage, TubeletEmbedding, position_table
from mer_bench.models.layers.transformer import init_linear_layers
from mer_bench.models.spec import ModelSpec, Options
from mer_bench.recipe import Recipe

#: Root mean squares on the synthetic databases, of u, v and strain in the view `scaled`, and of what changes
#: between frames in [0, 1].
FLOW_SD = 0.1
CHANGE_SD = 0.02

#: Consecutive frames in one token.
TUBELET = 2


class HSTAOptions(Options):
    """Options of HSTA; the defaults are those of the authors' script for CAS(ME)^3.

    Attributes:
        frames: Frames that V reads, spread evenly over the clip's; an even number.
        reduce_to: Frames larger than this are first reduced to it by area averaging; 0 keeps them.
        differences: Whether the clip's frames and the apex are read as their difference from the onset. This
            is ours: from few samples a network finds no movement in faces as they are.
        special_patch: Side of S's patches, px. Where it does not divide the size (12 at 224) the border at
            the right and the bottom is not read, as in the authors' code.
        clip_patch: Side of V's patches, px; it must divide the size.
        widths: Channels of S and V.
        stages: HSTA stages.
        depths: Blocks of S and V in a stage.
        heads: Of every attention; it must divide both widths.
        dropout: Probability, in blocks, exchanges and on the embedded tokens.
        drop_path: Probability in the last block; it rises from zero in the first.
    """

    frames: int = 6
    reduce_to: int = 0
    differences: bool = False
    special_patch: int = 12
    clip_patch: int = 16
    widths: tuple[int, int] = (384, 768)
    stages: int = 4
    depths: tuple[int, int] = (1, 2)
    heads: int = 12
    dropout: float = 0.2
    drop_path: float = 0.2


class HSTA(nn.Module):
    """The network of the authors' code.

    It reads `3 K + 6` channels: K colour frames of a clip (at least `frames`), then onset and apex, as
    `clips-N@rgb+faces-N@rgb` has them.
    """

    config = HSTAOptions
    special_frames = 2
    special_positions: Tensor
    clip_positions: Tensor

    def __init__(
        self, num_classes: int = 3, in_channels: int = 24, map_size: int = 224, **options: Any
    ) -> None:
        super().__init__()
        given = self.config(**options)
        frames, widths = given.frames, given.widths
        kept = self._clip_length(in_channels, map_size, frames)
        size = reduced_size("HSTA", map_size, given.reduce_to, given.clip_patch)
        if size < given.special_patch:
            raise UsageError(
                f"HSTA: frames of {size} px hold no patch of {given.special_patch} px; read larger ones, or "
                "set special_patch"
            )
        if any(width % given.heads for width in widths):
            raise UsageError(f"HSTA: {given.heads} heads do not divide the widths {widths}")
        self.kept_frames = kept
        self.differences = given.differences
        self.reduction = map_size // size
        # Evenly from the first to the last, both included.
        self.picked = [round(i * (kept - 1) / (frames - 1)) for i in range(frames)]
        self.colour = ColourNorm()
        depth = min(TUBELET, self.special_frames)
        self.special_embedding = TubeletEmbedding(3, depth, given.special_patch, widths[0])
        self.clip_embedding = TubeletEmbedding(3, TUBELET, given.clip_patch, widths[1])
        counts = (size // given.special_patch) ** 2, frames // TUBELET * (size // given.clip_patch) ** 2
        self.special_cls = nn.Parameter(torch.zeros(1, 1, widths[0]))
        self.clip_cls = nn.Parameter(torch.zeros(1, 1, widths[1]))
        for name, count, width in zip(("special", "clip"), counts, widths, strict=True):
            self.register_buffer(f"{name}_positions", position_table(count + 1, width), persistent=False)
        self.dropout = nn.Dropout(given.dropout)
        deepest = max(given.depths)
        rates = torch.linspace(0, given.drop_path, given.stages * deepest, device="cpu").tolist()
        self.stages = nn.ModuleList(
            Stage(widths, given.depths, given.heads, given.dropout, rates[i * deepest : (i + 1) * deepest])
            for i in range(given.stages)
        )
        self.special_norm = nn.LayerNorm(widths[0], eps=1e-6)
        self.clip_norm = nn.LayerNorm(widths[1], eps=1e-6)
        self.head = nn.Linear(sum(widths), num_classes)
        init_linear_layers(self.stages)
        init_linear_layers(self.head)
        for token in (self.special_cls, self.clip_cls):
            nn.init.trunc_normal_(token, std=0.02)

    def _clip_length(self, in_channels: int, map_size: int, frames: int) -> int:
        """Return K, or refuse the channels."""
        if frames < TUBELET or frames % TUBELET:
            raise UsageError(f"HSTA: frames must be an even number, got {frames}")
        kept, left = divmod(in_channels - 3 * self.special_frames, 3)
        if left or kept < frames:
            special, flag = f"whole-{map_size}", ""
            if self.special_frames == 2:
                special, flag = f"faces-{map_size}@rgb", " --keep-faces"
            raise UsageError(
                f"HSTA reads at least {frames} colour frames of a clip and its special frames, "
                f"{3 * (frames + self.special_frames)} channels or more, "
                f"as in clips-{map_size}@rgb+{special}; these maps have {in_channels}. "
                f"Build with `mer-flow build ... --keep-clips {frames}{flag}` (or more), or set frames lower"
            )
        return kept

    def forward(self, maps: Tensor) -> Tensor:
        """Turn `(B, 3 K + 6, H, W)` float32, frames scaled to [0, 1], into `(B, classes)` logits."""
        if self.reduction > 1:
            maps = F.avg_pool2d(maps, self.reduction)
        planes = maps.unflatten(1, (-1, 3))
        clip = planes[:, self.picked]
        # The first frame of a clip is its onset.
        clip = (clip - planes[:, :1]) / CHANGE_SD if self.differences else self.colour(clip)
        special = self.special_input(planes[:, self.kept_frames :])
        special = self._tokens(self.special_embedding(special), self.special_cls, self.special_positions)
        clip = self._tokens(self.clip_embedding(clip), self.clip_cls, self.clip_positions)
        for stage in self.stages:
            special, clip = stage(special, clip)
        ends = self.special_norm(special[:, 0]), self.clip_norm(clip[:, 0])
        return self.head(torch.cat(ends, dim=1))

    def special_input(self, planes: Tensor) -> Tensor:
        """Normalise onset and apex, `(B, 2, 3, H, W)`."""
        if not self.differences:
            return self.colour(planes)
        onset, apex = planes[:, :1], planes[:, 1:]
        return torch.cat((self.colour(onset), (apex - onset) / CHANGE_SD), dim=1)

    def _tokens(self, embedded: Tensor, cls: Tensor, positions: Tensor) -> Tensor:
        tokens = torch.cat((cls.expand(len(embedded), -1, -1), embedded), dim=1)
        return self.dropout(tokens + positions)

    def layer_depths(self) -> dict[str, int]:
        """Tell each parameter's depth: 0 for the embeddings, then a stage each, the head last."""
        depths = {}
        for name, _ in self.named_parameters():
            first, _, rest = name.partition(".")
            if first == "stages":
                depths[name] = int(rest.partition(".")[0]) + 1
            else:
                embeds = first.endswith(("_embedding", "_cls"))
                depths[name] = 0 if embeds else len(self.stages) + 1
        return depths


class HSTAFlow(HSTA):
    """HSTA with optical flow for its special frames, the authors' option `use_optflow`.

    They draw the tracks of corner points (Lucas and Kanade) from onset to apex and from apex to offset as two
    pictures. Here S reads the dense map of u, v and strain from onset to apex: one frame of three channels,
    so its tubelets are one frame deep.

    The view is `clips-N@rgb+whole-N`, `3 K + 3` channels; options are those of `HSTA`.
    """

    special_frames = 1

    def special_input(self, planes: Tensor) -> Tensor:
        """Bring u, v and strain, `(B, 1, 3, H, W)` scaled, to the size that normalised frames have."""
        return planes / FLOW_SD


AUTHORS = Recipe(
    name="authors", epochs=150, batch_size=32, optimizer="adamw", lr=6.25e-5, weight_decay=0.05,
    schedule="cosine", final_lr=1.25e-7, warmup_epochs=5, balanced=True, drop_last=True, layer_decay=0.9,
)  # fmt: skip
QUICK = Recipe(
    name="quick", epochs=100, batch_size=8, optimizer="adamw", lr=1e-3, weight_decay=0.05,
    schedule="cosine", warmup_epochs=5, balanced=True,
)  # fmt: skip

_SMALL = {"reduce_to": 112, "widths": (96, 192), "heads": 3}
_TINY = {
    "reduce_to": 28, "special_patch": 7, "clip_patch": 14, "widths": (48, 96), "stages": 2, "depths": (1, 1),
    "heads": 3, "dropout": 0.0, "drop_path": 0.0,
}  # fmt: skip
#: Filled in alike for either kind of special frames.
_SAME = (
    "The published folds are cut by sample: of the 54 to 71 subjects in each test fold, 54 to 66 are in its "
    "training fold too, so its figures are no measure for new subjects; here folds are disjoint by subject.",
    "V reads six frames spread evenly from onset to offset; the authors draw six at random from the first 51 "
    "frames, anew in every epoch, and merge several such draws in testing.",
    "Frames are the store's aligned faces; the authors resize whole frames to 224 px.",
    "Recipe authors decays all weights; the authors' optimiser file is unpublished, and the one that it "
    "derives from spares biases and norms.",
    "Their scripts add macro-expression clips to the training folds; here none are added.",
    "Variant small has widths and heads that the authors' code registers as tiny, at 112 px; variant tiny "
    "and recipe quick are ours, for short trainings.",
)

_FACES = ModelSpec(
    name="hsta",
    title="HSTA",
    build=HSTA,
    kind="network",
    views=("clips-224@rgb+faces-224@rgb:scaled", "clips-112@rgb+faces-112@rgb:scaled"),
    recipes={"authors": AUTHORS, "quick": QUICK},
    variants={"paper": {}, "small": _SMALL, "tiny": {**_TINY, "differences": True}},
    variant_views={
        "small": ("clips-112@rgb+faces-112@rgb:scaled",),
        "tiny": ("clips-28@rgb+faces-28@rgb:scaled",),
    },
    citation=(
        "H. Hao, S. Wang, H. Ben, Y. Hao, Y. Wang, W. Wang: Hierarchical Space-Time Attention for "
        "Micro-Expression Recognition. arXiv 2405.03202, 2024"
    ),
    parameters=81_883_011,
    exactness="exact",
    filled_in=(
        *_SAME,
        "Variant tiny reads frames as differences from the onset; from plain faces it learns nothing.",
    ),
    selects_on_test=None,
    licence="The authors' repository (OceanSummerDay/HSTA_MER) carries no licence; this is code of our own.",
)

SPECS = (
    _FACES,
    replace(
        _FACES,
        name="hsta-flow",
        title="HSTA (flow)",
        build=HSTAFlow,
        views=("clips-224@rgb+whole-224:scaled", "clips-112@rgb+whole-112:scaled"),
        variants={"paper": {}, "small": _SMALL, "tiny": _TINY},
        variant_views={
            "small": ("clips-112@rgb+whole-112:scaled",),
            "tiny": ("clips-28@rgb+whole-28:scaled",),
        },
        parameters=81_717_123,
        exactness="reconstructed",
        filled_in=(
            "Special frames are the dense u, v and strain from onset to apex, divided by 0.1; the authors' "
            "option use_optflow draws tracked corners as two pictures, onset to apex and apex to offset.",
            *_SAME,
        ),
    ),
)
