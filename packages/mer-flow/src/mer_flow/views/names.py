"""The names of views: `whole-28`, `regions-28@quadrants`, `faces-112@rgb`, `clips-64+whole-64`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mer_flow.work.errors import UsageError
from mer_flow.work.suggest import unknown

REGION_LAYOUTS = ("quincunx", "quadrants", "mean-centre")
HTNET_LAYOUTS = ("upright", "as-published")
#: Frames with one channel each, or three.
IMAGE_LAYOUTS = ("grey", "rgb")

#: Family -> its layouts, the default first; a family without layouts has one form.
FAMILIES: dict[str, tuple[str, ...]] = {
    "whole": (),
    "regions": REGION_LAYOUTS,
    "htnet": HTNET_LAYOUTS,
    "faces": IMAGE_LAYOUTS,
    "clips": IMAGE_LAYOUTS,
}

#: Families that show frames; the others show flow.
IMAGE_FAMILIES = ("faces", "clips")

#: Spellings to suggest from.
EXAMPLES = (
    *("whole-28", "regions-28", "htnet-28", "clips-112", "faces-112", "clips-112+faces-112"),
    *(f"{family}-28@{layout}" for family in ("regions", "htnet") for layout in FAMILIES[family]),
    *(f"{family}-112@rgb" for family in IMAGE_FAMILIES),
)


@dataclass(frozen=True, slots=True)
class ViewName:
    """A parsed view: a family, the side of the map that comes out, and one of the family's layouts."""

    family: str
    size: int
    layout: str = ""

    def __str__(self) -> str:
        layouts = FAMILIES[self.family]
        named = f"@{self.layout}" if layouts and self.layout != layouts[0] else ""
        return f"{self.family}-{self.size}{named}"

    @property
    def ingredients(self) -> tuple[str, ...]:
        """What a store must hold for it."""
        if self.is_image:
            return (self.family,)
        return ("flow",) if self.family == "whole" else ("flow", "regions")

    @property
    def is_image(self) -> bool:
        """Whether it shows frames; otherwise it shows flow."""
        return self.family in IMAGE_FAMILIES

    def channels(self, clip_length: int = 0) -> int:
        """Count its channels; `clips` needs to know how many frames each clip of the store has.

        >>> parse_view("whole-28").channels(), parse_view("clips-28@rgb").channels(clip_length=6)
        (3, 18)
        """
        frames = {"faces": 2, "clips": clip_length}.get(self.family, 3)
        return frames * (3 if self.layout == "rgb" else 1)


def parse_views(name: str) -> tuple[ViewName, ...]:
    """Parse the name of a view, or of several of one size joined by `+`; their channels follow one another.

    Raises:
        UsageError: A part is no view or occurs twice, or the parts differ in size.

    >>> [str(part) for part in parse_views("clips-64+faces-64@grey")]
    ['clips-64', 'faces-64']
    """
    parts = tuple(parse_view(part) for part in name.split("+"))
    if len({part.size for part in parts}) > 1:
        sizes = ", ".join(f"{part} has {part.size} px" for part in parts)
        raise UsageError(f"view '{name}': the parts of a combined view have one size, but {sizes}")
    if len(set(parts)) < len(parts):
        raise UsageError(f"view '{name}': a part occurs twice; name each part once")
    return parts


def parse_view(name: str) -> ViewName:
    """Parse `<family>-<size>` with an optional `@<layout>`, which is filled in unless given.

    Raises:
        UsageError: Unknown family or layout, a size that the family cannot have, or a combined view.

    >>> parse_view("regions-28"), str(parse_view("regions-28@quincunx"))
    (ViewName(family='regions', size=28, layout='quincunx'), 'regions-28')
    """
    if "+" in name:
        raise UsageError(
            f"view '{name}' is a combination; here one view is needed, as '{name.split('+')[0]}'"
        )
    match = re.fullmatch(r"([a-z]+)-(\d+)(?:@([a-z-]+))?", name)
    if match is None or match[1] not in FAMILIES:
        raise unknown("view", name, EXAMPLES)
    family, size, layouts = match[1], int(match[2]), FAMILIES[match[1]]
    layout = match[3] or (layouts[0] if layouts else "")
    if layout and layout not in layouts:
        if not layouts:
            raise UsageError(f"view '{name}': {family} has no layouts; use '{family}-{size}'")
        raise unknown(f"layout of {family}", layout, layouts)
    step = {"regions": 2 if layout == "quincunx" else 4, "htnet": 4}.get(family, 1)
    if size < 8 or size % step:
        raise UsageError(f"view '{name}': the size must be at least 8 and a multiple of {step}, got {size}")
    return ViewName(family, size, layout)
