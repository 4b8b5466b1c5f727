"""Normalisations of a view, by name.

`raw`: u and v in px of the view's own map, strain dimensionless.
`scaled`: one fixed scale for every sample: u and v of `FLOW_LIMIT` px of a 224 px face become ±1 and are
clipped there, strain of `STRAIN_LIMIT` becomes 1. The same movement has the same value in every view and at
every size; zero stays zero.
`minmax`: each channel of each sample to [0, 1], as STSTNet's published maps; zero and magnitude are lost. A
constant channel becomes 0.
`minmax-255`: the same times 255, as those maps are fed by their authors' code.
`centred`: for maps that have lost their zero, as most of a face keeps still: u and v of each sample from
their medians, strain from its minimum; in the unit of the maps, px of the view's map or, of min-max scaled
ones, their range.
`centred-rms`: these, each channel over its own root mean square, then u and v clipped to ±`RMS_FLOW_LIMIT`,
strain to `RMS_STRAIN_LIMIT`. A channel of zeros stays zero.

Images (`faces`, `clips`): `raw` is 0 to 255, `scaled`, `centred` and `centred-rms` are that / 255, and
`minmax` and `minmax-255` go by frame and colour channel. In a combined view each part follows its own rule.
"""

from __future__ import annotations

import numpy as np

NORMALISATIONS = ("raw", "scaled", "minmax", "minmax-255", "centred", "centred-rms")

#: What maps can give that came min-max scaled, without their zero and their unit.
OF_SCALED_MAPS = ("minmax", "minmax-255", "centred", "centred-rms")
_TOPS = {"minmax": 1.0, "minmax-255": 255.0}

#: Side of the face that `FLOW_LIMIT` is stated for.
REFERENCE_SIZE = 224
#: Flow that becomes 1 under `scaled`, px of a 224 px face (eyes 90 px apart). Micro-expressions move skin by
#: up to about 3 px there; averaged over the cells of a 28 × 28 map few values reach it.
FLOW_LIMIT = 3.0
#: Strain that becomes 1 under `scaled`: a 3 px movement that fades within 20 px has 0.1 to 0.15 at its flank.
STRAIN_LIMIT = 0.1

#: Where `centred-rms` clips u and v, and strain, in root mean squares.
RMS_FLOW_LIMIT, RMS_STRAIN_LIMIT = 3.0, 4.0


def normalise_maps(maps: np.ndarray, name: str, pitch: np.ndarray | float, side: int) -> np.ndarray:
    """Normalise flow maps, (M, 3, H, W) float32, in place and return them.

    u and v come in cells of this map; a cell's side is `pitch`, scalar or (M,), px of a face of `side` px.
    """
    if name == "scaled":
        unit = np.asarray(pitch, dtype=np.float32) * np.float32(REFERENCE_SIZE / side / FLOW_LIMIT)
        maps[:, :2] *= unit[:, None, None, None] if unit.ndim else unit
        maps[:, 2] *= np.float32(1 / STRAIN_LIMIT)
        np.clip(maps, -1.0, 1.0, out=maps)
    elif name in _TOPS:
        _minmax(maps, _TOPS[name])
    elif name.startswith("centred"):
        _centre(maps)
        if name == "centred-rms":
            _by_rms(maps)
    return maps


def normalise_scaled_maps(maps: np.ndarray, name: str) -> np.ndarray:
    """Normalise maps that came min-max scaled to 0 to 255, as one of `OF_SCALED_MAPS`; returns new ones."""
    if name == "minmax-255":
        return maps
    maps = maps / np.float32(255)
    return maps if name == "minmax" else normalise_maps(maps, name, 1.0, maps.shape[-1])


def normalise_images(images: np.ndarray, name: str) -> np.ndarray:
    """Normalise images in place and return them: (M, K, H, W) float32, 0 to 255, each colour one of the K."""
    if name == "scaled" or name.startswith("centred"):
        images *= np.float32(1 / 255)
    elif name in _TOPS:
        _minmax(images, _TOPS[name])
    return images


def _minmax(maps: np.ndarray, top: float) -> None:
    """Scale each channel of each sample to [0, top]; a constant one becomes 0."""
    low = maps.min(axis=(-2, -1), keepdims=True)
    span = maps.max(axis=(-2, -1), keepdims=True) - low
    maps -= low
    maps *= np.where(span > 0, np.float32(top) / np.where(span > 0, span, 1), 0).astype(np.float32)


def _centre(maps: np.ndarray) -> None:
    maps[:, :2] -= np.median(maps[:, :2], axis=(-2, -1), keepdims=True)
    maps[:, 2:] -= maps[:, 2:].min(axis=(-2, -1), keepdims=True)


def _by_rms(maps: np.ndarray) -> None:
    rms = np.sqrt(np.square(maps).mean(axis=(-2, -1), keepdims=True))
    maps /= np.where(rms > 0, rms, 1)
    np.clip(maps[:, :2], -RMS_FLOW_LIMIT, RMS_FLOW_LIMIT, out=maps[:, :2])
    np.clip(maps[:, 2:], 0.0, RMS_STRAIN_LIMIT, out=maps[:, 2:])
