"""The names of views: `whole-28`, `regions-28@quadrants`, `htnet-28`, `faces-112`, `clips-64`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mer_flow.errors import UsageError
from mer_flow.suggest import unknown
from mer_flow.views.layouts import HTNET_LAYOUTS, REGION_LAYOUTS

#: Family -> its layouts, the default first; a family without layouts has one form.
FAMILIES: dict[str, tuple[str, ...]] = {
    "whole": (),
    "regions": REGION_LAYOUTS,
    "htnet": HTNET_LAYOUTS,
    "faces": (),
    "clips": (),
}

#: Spellings to suggest from.
EXAMPLES = (
    "whole-28",
    "regions-28",
    *(f"regions-28@{layout}" for layout in REGION_LAYOUTS),
    "htnet-28",
    *(f"htnet-28@{layout}" for layout in HTNET_LAYOUTS),
    "faces-112",
    "clips-112",
)


@dataclass(frozen=True, slots=True)
class ViewName:
    """A parsed view.

    Attributes:
        family: `whole`, `regions`, `htnet`, `faces` or `clips`.
        size: Side of the map that comes out.
        layout: Arrangement of the regions; empty for a family without layouts.
    """

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
        if self.family in ("faces", "clips"):
            return (self.family,)
        return ("flow",) if self.family == "whole" else ("flow", "regions")


def parse_view(name: str) -> ViewName:
    """Parses the name of a view.

    Args:
        name: `<family>-<size>` with an optional `@<layout>`.

    Returns:
        The parsed name; the default layout is filled in.

    Raises:
        UsageError: Unknown family or layout, or a size that the family cannot have.

    >>> parse_view("regions-28"), str(parse_view("regions-28@quincunx"))
    (ViewName(family='regions', size=28, layout='quincunx'), 'regions-28')
    """
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
