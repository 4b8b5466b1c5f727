"""Which values a sample may have: what an import accepts, `mer-flow verify` passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from mer_flow.store import schema
from mer_flow.store.schema import SMALL, MapKind

#: How far outside the map points may lie, as a share of its side: the crop may cut chin and brows.
MARGINS = {"landmarks": 0.5, "regions": 0.0}
#: What scaling in float32 may put beyond 0 and 255.
ROUNDING = 1e-3


def wrong_values(arrays: Mapping[str, np.ndarray], kind: MapKind) -> Iterator[str]:
    """Say what is wrong with one sample's values.

    Args:
        arrays: Ingredient name -> its array, as in a `SampleRecord`.
        kind: Of the maps.
    """
    side = kind.map_size
    for name, array in arrays.items():
        if array.dtype.kind != "f" or (name in SMALL and np.isnan(array).all()):
            continue
        finite = np.isfinite(array)
        if not finite.all():
            yield f"{int((~finite).sum())} {name} value(s) are not finite"
        elif name == "flow" and kind.values == "minmax-255":
            if array.min() < -ROUNDING or array.max() > 255 + ROUNDING:
                yield f"values from {array.min():g} to {array.max():g}, expected 0 to 255"
        elif name == "flow":
            if (largest := float(np.abs(array[:2]).max())) > side:
                yield f"a flow of {largest:.0f} px on a {side} px map"
            if array[2].min() < 0:
                yield f"a strain of {array[2].min():g}; a norm cannot be negative"
        elif name in MARGINS:
            margin = MARGINS[name] * side
            outside = np.flatnonzero(((array < -margin) | (array > side + margin)).any(axis=1))
            if outside.size:
                what = schema.REGIONS[outside[0]] if name == "regions" else f"landmark {outside[0]}"
                x, y = array[outside[0]]
                yield f"{what} lies at ({x:.1f}, {y:.1f}), outside the {side} px map"
