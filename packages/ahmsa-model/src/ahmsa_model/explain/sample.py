"""Why the network says so of one sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ahmsa_model.checkpoint import AHMSANet
from ahmsa_model.errors import InputError, unknown_name
from ahmsa_model.explain.attention import attention_maps
from ahmsa_model.explain.attribution import (
    Attribution,
    at_random,
    attribute,
    likeness,
    region_shares,
    still_maps,
)
from ahmsa_model.explain.face import USUAL_CENTRES, region_names, region_of_cells
from ahmsa_model.predict import Prediction, flow_errors

if TYPE_CHECKING:
    from mer_flow.store.reader import FlowStore

#: Networks of random weights that an explanation is compared with.
CONTROLS = 5


@dataclass(frozen=True)
class Seen:
    """One sample as the network reads it.

    Attributes:
        name: What it is called.
        map: `(C, N, N)` float32.
        centres: `(5, 2)` px of the aligned face: the region centres, or where they usually lie.
        side: Side of the aligned face, px.
        face: uint8 `(side, side)` or with 3 channels, the aligned apex; None where it is not kept.
    """

    name: str
    map: np.ndarray
    centres: np.ndarray
    side: int
    face: np.ndarray | None = None


@dataclass(frozen=True)
class Explanation:
    """Why the network gives a sample a class.

    Attributes:
        classes: Class names in the order of `probabilities`.
        target: Index of the class that is explained.
        attribution: Of this one sample.
        cells: `(N, N)` int, the region that each cell shows.
        attention: Per level `(blocks, heads, patches, patches)`, as of `attention_maps`.
        control: Mean rank correlation of the integrated gradients with those of `CONTROLS` networks of random
            weights: near 0 where they tell of the network and not of the map alone.
        warnings: What a reader should know.
    """

    seen: Seen
    view: str
    classes: tuple[str, ...]
    probabilities: np.ndarray
    target: int
    attribution: Attribution
    cells: np.ndarray
    attention: list[np.ndarray]
    control: float
    warnings: tuple[str, ...] = field(default=())

    @property
    def shares(self) -> dict[str, float]:
        """Each region's share of the absolute integrated gradients."""
        shares = region_shares(self.attribution.gradients, self.cells)[0]
        return dict(zip(region_names(), shares.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, without maps."""
        drops = dict(zip(region_names(), self.attribution.regions[0].tolist(), strict=True))
        return {
            "sample": self.seen.name,
            "explained": self.classes[self.target],
            "probabilities": dict(zip(self.classes, self.probabilities.tolist(), strict=True)),
            "gradients_share": self.shares,
            "occlusion_drop": drops,
            "gap": float(self.attribution.gap[0]),
            "likeness_to_random_weights": self.control,
            "warnings": list(self.warnings),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Return every map under its name, for `numpy.savez`."""
        levels = {f"attention_level{n}": level for n, level in enumerate(self.attention, start=1)}
        return {
            "map": self.seen.map,
            "gradients": self.attribution.gradients[0],
            "occlusion": self.attribution.occlusion[0],
            "region_of_cells": self.cells,
            **levels,
        }


def explain_map(network: AHMSANet, seen: Seen, target: str | None = None) -> Explanation:
    """Explain what a network says of one map.

    Args:
        network: With its metadata.
        seen: The sample.
        target: Name of the class to explain; the most probable one unless given.

    Raises:
        InputError: There is no such class.
        MissingDependencyError: captum is absent.
    """
    metadata = network.metadata
    maps = seen.map[None]
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(maps).to(next(network.parameters())))[0].double().cpu()
    probabilities = torch.softmax(logits, 0).numpy()
    classes = metadata.classes or tuple(f"class {k}" for k in range(len(logits)))
    if target is not None and target not in classes:
        raise InputError(unknown_name("class", target, classes))
    index = int(probabilities.argmax()) if target is None else classes.index(target)
    with flow_errors():
        cells = region_of_cells(metadata.view, seen.centres, seen.side)
    still, targets = still_maps(maps, metadata.normalisation), np.array([index])
    attribution = attribute(network, maps, still, targets, cells)
    alike = []
    for seed in range(CONTROLS):
        other = at_random(network.config, seed)
        alike.append(likeness(attribution.gradients, attribute(other, maps, still, targets, cells).gradients))
    attention = [level[0] for level in attention_maps(network, maps)]
    found = (attribution, cells, attention, float(np.mean(alike)))
    return Explanation(seen, metadata.view, classes, probabilities, index, *found)


def seen_in(prediction: Prediction) -> Seen:
    """Return what a prediction from frames was made of."""
    extracted = prediction.extracted
    name = f"{prediction.onset or 'onset'} to {prediction.apex or 'apex'}"
    return Seen(name, prediction.map, extracted.regions, extracted.flow.shape[-1], extracted.apex_face)


def seen_in_store(network: AHMSANet, store: FlowStore, sample_id: str) -> Seen:
    """Read one sample of a store as the network reads it.

    Raises:
        InputError: The store lacks the sample, or what the network's view needs.
    """
    from ahmsa_model.predict import view_map

    with flow_errors():
        from mer_flow.pictures.sheet import find_samples
        from mer_flow.views.read import ViewReader

        ((sample, index),) = find_samples(store, [sample_id])
        database, side = sample.database, store.map_size
        centres = USUAL_CENTRES * side
        if store.has(database, "regions"):
            centres = store.regions(database)[index]
        metadata = network.metadata
        if store.values == "px":
            flow = store.read_flow(database, index).astype(np.float32)
            cut = view_map(flow, centres, metadata.view, metadata.normalisation, sample_id)
        else:  # maps that came scaled have one view
            reader = ViewReader(store, metadata.view, metadata.normalisation, scheme=metadata.scheme)
            rows = np.flatnonzero(reader.sample_ids == sample_id)
            if not len(rows):
                raise InputError(f"{sample_id} has no class in scheme {metadata.scheme}; name another sample")
            cut = reader.read(rows)[0]
        face = store.faces(database, index)[1] if store.has(database, "faces") else None
    return Seen(sample_id, cut, centres, side, face)
