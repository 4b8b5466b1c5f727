"""Augmentation of flow maps: they are vectors, not colours, and a mirrored face moves the other way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mer_bench.errors import UsageError
from mer_bench.training.recipes import Recipe
from mer_bench.training.seeding import mix, normal, uniform

# A mirrored u is `offset - u`: minus u where flow keeps its sign. Min-max scaling of -u over the image gives
# one minus the scaled u, exactly, as minimum and maximum change places.
MIRROR_OFFSETS = {"raw": 0.0, "scaled": 0.0, "minmax": 1.0, "minmax-255": 255.0}


@dataclass(frozen=True)
class Augmenter:
    """Random flips, shifts and noise of training maps.

    Attributes:
        flip: Probability of a horizontal mirror.
        shift: Largest translation along each axis, in pixels of the map; edges are repeated.
        noise: Standard deviation of Gaussian noise, in the map's units.
        mirror_offset: A mirrored u is this minus u.
        tiled: Whether the map is `htnet-N@as-published`, `[[left eye, left lip], [right eye, right lip]]`,
            whose mirror swaps rows of tiles and mirrors each tile, rather than the map as a whole.
    """

    flip: float
    shift: int
    noise: float
    mirror_offset: float
    tiled: bool

    @classmethod
    def from_recipe(cls, recipe: Recipe, view: str | None) -> Augmenter | None:
        """Make the recipe's augmentation.

        Args:
            recipe: Gives `flip`, `shift` and `noise`.
            view: The input as `view:normalisation`, as in `whole-28:minmax-255`; needed for flips only, as
                how a mirrored u is stored depends on it.

        Returns:
            The augmentation, or None where the recipe has none.

        Raises:
            UsageError: If flips are asked for and the view does not say how flow is stored.
        """
        if not (recipe.flip or recipe.shift or recipe.noise):
            return None
        name, _, normalisation = (view or "").partition(":")
        kind = name.partition("-")[0]
        layout = name.partition("@")[2]
        if recipe.flip and (normalisation not in MIRROR_OFFSETS or kind not in ("whole", "regions", "htnet")):
            raise UsageError(
                f"recipe '{recipe.name}' flips maps (flip = {recipe.flip}), "
                f"but how the view {view!r} stores a mirrored u is unknown; give a view whole-N, regions-N "
                f"or htnet-N with one of {', '.join(MIRROR_OFFSETS)} as in 'whole-28:scaled', or set flip = 0"
            )
        offset = MIRROR_OFFSETS.get(normalisation, 0.0)
        return cls(
            recipe.flip,
            recipe.shift,
            recipe.noise,
            offset,
            tiled=kind == "htnet" and layout == "as-published",
        )

    def __call__(self, maps: Tensor, key: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            maps: `(..., B, C, H, W)` float32, channel 0 is u.
            key: Stream keys with the leading axes of `maps`, int64; equal keys give equal augmentation.

        Returns:
            New maps of the same shape.
        """
        batch, _, height, width = maps.shape[-4:]
        rows = torch.arange(height, device=maps.device)
        columns = torch.arange(width, device=maps.device)
        y = rows.expand(*key.shape, batch, height)
        x = columns.expand(*key.shape, batch, width)
        if self.shift:
            span = 2 * self.shift + 1
            y = (y - self._moves(mix(key + 10), batch, span)).clamp(0, height - 1)
            x = (x - self._moves(mix(key + 11), batch, span)).clamp(0, width - 1)
        mirrored = None
        if self.flip:
            mirrored = (uniform(mix(key + 12), batch) < self.flip).unsqueeze(-1)
            if self.tiled:
                half = width // 2
                y = torch.where(mirrored, (y + height // 2) % height, y)
                x = torch.where(mirrored, x // half * half + (half - 1 - x % half), x)
            else:
                x = torch.where(mirrored, width - 1 - x, x)
        if self.shift or self.flip:
            maps = maps.gather(-2, y[..., :, None, :, None].expand(maps.shape))
            maps = maps.gather(-1, x[..., :, None, None, :].expand(maps.shape))
        if mirrored is not None:
            u = maps[..., :1, :, :]
            u = torch.where(mirrored[..., None, None], self.mirror_offset - u, u)
            maps = torch.cat([u, maps[..., 1:, :, :]], dim=-3)
        if self.noise:
            maps = maps + self.noise * normal(mix(key + 13), maps.shape[-4:].numel()).view(maps.shape)
        return maps

    def _moves(self, key: Tensor, batch: int, span: int) -> Tensor:
        # float32 may round the product up to `span` itself.
        moves = (uniform(key, batch) * span).to(torch.int64).clamp(max=span - 1)
        return (moves - self.shift).unsqueeze(-1)
