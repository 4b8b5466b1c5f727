"""Augmentation of maps and frames: flow is vectors, not colours, and a mirrored face moves the other way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mer_bench.errors import UsageError
from mer_bench.recipe import Recipe
from mer_bench.training.rotation import rotate
from mer_bench.training.seeding import mix, normal, uniform

# A mirrored u is `offset - u`: minus u where flow keeps its sign. Min-max scaling of -u over the image gives
# one minus the scaled u, exactly, as minimum and maximum change places.
MIRROR_OFFSETS = {
    "raw": 0.0,
    "scaled": 0.0,
    "centred": 0.0,
    "centred-rms": 0.0,
    "minmax": 1.0,
    "minmax-255": 255.0,
}
# A rotated vector needs the zero of u and v, and one unit for both; `centred-rms`, whose u and v have each
# their own, turns by an angle that is only about right.
_ZEROED = ("raw", "scaled", "centred", "centred-rms")


@dataclass(frozen=True)
class Part:
    """One part of a view, as a mirror sees it.

    Attributes:
        channels: How many channels it has; of clips, how many a frame has.
        flow: Whether it is flow, whose first channel is u; otherwise frames, which are mirrored and no more.
        tiled: Whether the map is `htnet-N@as-published`, `[[left eye, left lip], [right eye, right lip]]`,
            whose mirror swaps rows of tiles and mirrors each tile, rather than the map as a whole.
        clips: Whether it is clips, whose number of frames only the maps can tell.
        pieced: Whether the map is put together from regions of the face, which do not turn as one.
    """

    channels: int
    flow: bool = True
    tiled: bool = False
    clips: bool = False
    pieced: bool = False


@dataclass(frozen=True)
class Augmenter:
    """Rotate, flip, shift, amplify and blur training maps with noise, at random.

    Attributes:
        flip: Probability of a horizontal mirror.
        shift: Largest translation along each axis, in pixels of the map; edges are repeated.
        noise: Standard deviation of Gaussian noise, in the map's units.
        mirror_offset: A mirrored u is this minus u.
        parts: Of the view, in the order of their channels.
        rotation: Largest angle either way, in degrees.
        gain: Flow is multiplied by a number from 1 - gain to 1 + gain, as that of a movement so much stronger
            (scaling: T. T. Um et al., ICMI 2017, doi:10.1145/3136755.3136817).
    """

    flip: float
    shift: int
    noise: float
    mirror_offset: float
    parts: tuple[Part, ...]
    rotation: float = 0.0
    gain: float = 0.0

    @classmethod
    def from_recipe(cls, recipe: Recipe, view: str) -> Augmenter | None:
        """Make the recipe's augmentation, or None where it has none.

        Args:
            recipe: How to train.
            view: The input as `view:normalisation`, as in `whole-28:minmax-255`; needed for flips, rotations
                and gains only, as which channels are a u, and how a mirrored one is stored, depends on it.

        Raises:
            UsageError: Flips, rotations or gains are asked for and the view does not say how flow is stored,
                or its maps cannot be rotated or have no zero.
        """
        if not (recipe.rotate or recipe.flip or recipe.shift or recipe.noise or recipe.gain):
            return None
        name, _, normalisation = view.partition(":")
        parts = [_part(part) for part in name.split("+")]
        known = normalisation in MIRROR_OFFSETS and None not in parts
        if recipe.flip and not known:
            raise UsageError(_unmirrored(recipe, "flip", view))
        if recipe.rotate:
            _check_zero(recipe, "rotate", view, parts)
        if recipe.gain:
            _check_zero(recipe, "gain", view, parts)
        return cls(
            recipe.flip,
            recipe.shift,
            recipe.noise,
            MIRROR_OFFSETS.get(normalisation, 0.0),
            tuple(part for part in parts if part is not None) if known else (),
            recipe.rotate,
            recipe.gain,
        )

    @classmethod
    def mirror(cls, recipe: Recipe, view: str) -> Augmenter | None:
        """Make what mirrors every map, or None where the recipe's predictions need no mirror.

        Raises:
            UsageError: The view does not say how flow is stored.
        """
        if not recipe.flip_average:
            return None
        try:
            return cls.from_recipe(Recipe(flip=1.0), view)
        except UsageError:
            raise UsageError(_unmirrored(recipe, "flip_average", view)) from None

    def __call__(self, maps: Tensor, key: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            maps: `(..., B, C, H, W)` float32, channels as the view's parts have them.
            key: Stream keys with the leading axes of `maps`, int64; equal keys give equal augmentation.

        Returns:
            New maps of the same shape.

        Raises:
            UsageError: The channels are not those of the view.
        """
        batch, channels, height, width = maps.shape[-4:]
        spans = _spans(self.parts, channels) if self.flip or self.rotation or self.gain else []
        if self.rotation:
            angles = (2.0 * uniform(mix(key + 14), batch) - 1.0) * math.radians(self.rotation)
            maps = rotate(maps, angles, [start for part, start, _ in spans if part.flow])
        rows = torch.arange(height, device=maps.device)
        columns = torch.arange(width, device=maps.device)
        y = rows.expand(*key.shape, batch, height)
        x = columns.expand(*key.shape, batch, width)
        if self.shift:
            span = 2 * self.shift + 1
            y = (y - self._moves(mix(key + 10), batch, span)).clamp(0, height - 1)
            x = (x - self._moves(mix(key + 11), batch, span)).clamp(0, width - 1)
        if self.flip:
            mirrored = (uniform(mix(key + 12), batch) < self.flip).unsqueeze(-1)
            maps = self._mirror(maps, y, x, mirrored, spans)
        elif self.shift:
            maps = _pick(maps, y, x)
        if self.gain:
            strength = 1.0 + self.gain * (2.0 * uniform(mix(key + 15), batch) - 1.0)
            strength = strength[..., None, None, None]
            pieces = [
                maps[..., start:end, :, :] * (strength if part.flow else 1.0) for part, start, end in spans
            ]
            maps = torch.cat(pieces, dim=-3)
        if self.noise:
            maps = maps + self.noise * normal(mix(key + 13), maps.shape[-4:].numel()).view(maps.shape)
        return maps

    def _mirror(
        self, maps: Tensor, y: Tensor, x: Tensor, mirrored: Tensor, spans: Sequence[tuple[Part, int, int]]
    ) -> Tensor:
        """Pick rows and columns, which come shifted, and mirror the samples that are to be."""
        height, width = maps.shape[-2:]
        half = width // 2
        whole = y, torch.where(mirrored, width - 1 - x, x)
        tiles = (
            torch.where(mirrored, (y + height // 2) % height, y),
            torch.where(mirrored, x // half * half + (half - 1 - x % half), x),
        )
        if len({part.tiled for part, *_ in spans}) == 1:
            maps = _pick(maps, *(tiles if spans[0][0].tiled else whole))
        else:
            pieces = [
                _pick(maps[..., start:end, :, :], *(tiles if part.tiled else whole))
                for part, start, end in spans
            ]
            maps = torch.cat(pieces, dim=-3)
        turned = mirrored[..., None, None]
        pieces = []
        for part, start, end in spans:
            if part.flow:
                u = maps[..., start : start + 1, :, :]
                pieces.append(torch.where(turned, self.mirror_offset - u, u))
                start += 1
            pieces.append(maps[..., start:end, :, :])
        return torch.cat(pieces, dim=-3)

    def _moves(self, key: Tensor, batch: int, span: int) -> Tensor:
        # float32 may round the product up to `span` itself.
        moves = (uniform(key, batch) * span).to(torch.int64).clamp(max=span - 1)
        return (moves - self.shift).unsqueeze(-1)


def _part(name: str) -> Part | None:
    """Read one part of a view's name; None where it is of no known family."""
    family, _, rest = name.partition("-")
    layout = rest.partition("@")[2]
    if family in ("whole", "regions", "htnet"):
        tiled = family == "htnet" and layout == "as-published"
        return Part(3, tiled=tiled, pieced=family != "whole")
    if family in ("faces", "clips"):
        per_frame = 3 if layout == "rgb" else 1
        return Part(per_frame * (2 if family == "faces" else 1), flow=False, clips=family == "clips")
    return None


def _unmirrored(recipe: Recipe, field: str, view: str) -> str:
    return (
        f"recipe '{recipe.name}' flips maps ({field} = {getattr(recipe, field)}), "
        f"but how the view {view!r} stores a mirrored u is unknown; give a view whole-N, regions-N, "
        f"htnet-N, faces-N, clips-N or several joined by +, with one of {', '.join(MIRROR_OFFSETS)}, "
        f"as in 'whole-28:scaled', or set {field} = {'false' if field == 'flip_average' else 0}"
    )


def _check_zero(
    recipe: Recipe, field: Literal["rotate", "gain"], view: str, parts: Sequence[Part | None]
) -> None:
    """Refuse to turn or to amplify a view that is unknown or stores flow without its zero.

    Pieces of a face do not turn as one either.
    """
    turns = field == "rotate"
    verb, value = "rotates" if turns else "amplifies", getattr(recipe, field)
    asked = f"recipe '{recipe.name}' {verb} maps ({field} = {value:g})"
    families = "whole-N, faces-N or clips-N, flow" if turns else "flow"
    remedy = f"read {families} as {', '.join(_ZEROED)}, or set {field} = 0"
    known, normalisation = [part for part in parts if part is not None], view.partition(":")[2]
    if len(known) < len(parts) or normalisation not in MIRROR_OFFSETS:
        raise UsageError(f"{asked}, but what the view {view!r} stores is unknown; {remedy}")
    if turns and any(part.pieced for part in known):
        raise UsageError(f"{asked}, but those of {view!r} are pieced together from regions; {remedy}")
    if normalisation not in _ZEROED and any(part.flow for part in known):
        raise UsageError(f"{asked}, but '{normalisation}' leaves flow without its zero; {remedy}")


def _spans(parts: Sequence[Part], channels: int) -> list[tuple[Part, int, int]]:
    """Return each part with its first channel and the one after its last."""
    per_frame = sum(part.channels for part in parts if part.clips)
    fixed = sum(part.channels for part in parts if not part.clips)
    frames, left = divmod(channels - fixed, per_frame) if per_frame else (1, channels - fixed)
    if left or frames < 1:
        raise UsageError(
            f"maps have {channels} channels, but the view's parts have {fixed}"
            f"{f' and {per_frame} for each frame of a clip' if per_frame else ''}; "
            "state the view that the maps were read with"
        )
    spans, start = [], 0
    for part in parts:
        end = start + part.channels * (frames if part.clips else 1)
        spans.append((part, start, end))
        start = end
    return spans


def _pick(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    maps = maps.gather(-2, y[..., :, None, :, None].expand(maps.shape))
    return maps.gather(-1, x[..., :, None, None, :].expand(maps.shape))
