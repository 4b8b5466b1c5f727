"""Import of STSTNet's published maps: 28x28 PNG, R, G, B = u, v, strain, each min-max scaled per image.

Source: the maps that accompany Liong et al., "Shallow Triple Stream Three-dimensional CNN (STSTNet) for
Micro-expression Recognition", FG 2019, https://doi.org/10.1109/FG.2019.8756567.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mer_flow.exchange.imports import ImportSummary
from mer_flow.exchange.layouts import scan_folder
from mer_flow.exchange.map_folder import MAP_SIZE, import_scan, listed_stems


def ststnet_pipeline(map_size: int = MAP_SIZE) -> dict[str, Any]:
    """Return what a store says about the origin of imported maps."""
    return {
        "map_kind": {"kind": "imported", "map_size": map_size, "values": "minmax-255"},
        "import": {
            "layout": "ststnet",
            "channels": ["u", "v", "strain"],
            "scaled": "per image and channel, to 0..255",
        },
    }


def import_ststnet(
    folder: Path,
    store: Path,
    labels: Path | None = None,
    *,
    layout: str = "auto",
    map_size: int = MAP_SIZE,
) -> ImportSummary:
    """Import a folder of STSTNet's maps into a store; a later call adds what was missing.

    Every row of the list becomes a sample. A row without a usable map is recorded in the store as failed; a
    map without a row is reported.

    Args:
        folder: A flat folder of PNG files named `<subject>_<clip> .png`, or the LOSO folders
            `<subject>/u_train|u_test/<label>/*.png`.
        store: The HDF5 file to make or extend.
        labels: A list, the organisers' or HTNet's; the shipped MEGC2019 list unless given.
        layout: `flat`, `loso`, or `auto` to recognise it.
        map_size: Expected side of the maps, px.

    Raises:
        ExchangeError: The folder or the list is unusable, or not one file belongs to a row of the list.
    """
    rows, list_name = listed_stems(labels)
    return import_scan(scan_folder(folder, layout), rows, list_name, store, ststnet_pipeline(map_size))
