"""Import of CausalNet's published maps: 28x28 PNG, four of each clip, min-max scaled per image.

Source: the maps that accompany Zhang et al., "Rethinking Key-frame-based Micro-expression Recognition: A
Robust and Accurate Framework Against Key-frame Errors", ICCV 2025, https://arxiv.org/abs/2508.06640.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mer_flow.exchange.imports import ImportSummary
from mer_flow.exchange.label_list import stem_key
from mer_flow.exchange.layouts import scan_folder
from mer_flow.exchange.map_folder import MAP_SIZE, import_scan, listed_stems
from mer_flow.work.errors import ExchangeError, UsageError
from mer_flow.work.suggest import unknown

#: Kind of map -> what its file's name has after that of the clip.
SUFFIXES = {
    "onset-apex": "",
    "apex-offset": "_1",
    "onset-apex-direction": "_2",
    "apex-offset-direction": "_3",
}
_FLOW = ("u", "v", "strain")
#: The direction maps are pictures: no channel of theirs is a u or a v.
_COLOURS = ("red", "green", "blue")


def causalnet_pipeline(maps: str) -> dict[str, Any]:
    """Return what a store says about the origin of one kind of CausalNet's maps."""
    return {
        "map_kind": {"kind": "imported", "map_size": MAP_SIZE, "values": "minmax-255"},
        "import": {
            "layout": "causalnet",
            "maps": maps,
            "channels": list(_COLOURS if maps.endswith("direction") else _FLOW),
            "scaled": "per image and channel, to 0..255",
        },
    }


def import_causalnet(
    folder: Path, store: Path, labels: Path | None = None, maps: str = "onset-apex"
) -> ImportSummary:
    """Import one kind of CausalNet's maps into a store; a later call adds what was missing.

    Every row of the list becomes a sample. A row without a usable map is recorded in the store as failed; a
    map that belongs to no row, of whichever kind, is reported.

    Args:
        folder: A flat folder of PNG files named `<subject>_<clip> .png` (flow from onset to apex),
            `..._1 .png` (apex to offset), `..._2 .png` and `..._3 .png` (pictures of their directions).
        store: The HDF5 file to make or extend; each kind has its own.
        labels: A list, the organisers' or HTNet's; the shipped MEGC2019 list unless given.
        maps: One of `SUFFIXES`.

    Raises:
        UsageError: Unknown kind of map.
        ExchangeError: The folder or the list is unusable, or not one file belongs to a row of the list.
        StoreMismatchError: The store exists and holds something else, another kind of map for one.
        StoreBusyError: Another process writes the store.
    """
    if maps not in SUFFIXES:
        raise UsageError(str(unknown("kind of map", maps, SUFFIXES)))
    rows, list_name = listed_stems(labels)
    wanted = {f"{stem}{SUFFIXES[maps]}": row for stem, row in rows.items()}
    others = {
        stem_key(f"{stem}{suffix}") for stem in rows for kind, suffix in SUFFIXES.items() if kind != maps
    }
    if double := sorted(stem for stem in wanted if stem_key(stem) in others):
        raise ExchangeError(
            f"{list_name}: '{double[0]} .png' would be the map of two of its rows, one of {len(double)}; "
            "no clip's name may be another's with _1, _2 or _3 behind it"
        )
    scan = scan_folder(folder, "flat")
    scan.layout = f"causalnet, {maps}"
    scan.maps = {key: found for key, found in scan.maps.items() if key not in others}
    scan.spoilt = {key: why for key, why in scan.spoilt.items() if key not in others}
    return import_scan(scan, wanted, list_name, store, causalnet_pipeline(maps))
