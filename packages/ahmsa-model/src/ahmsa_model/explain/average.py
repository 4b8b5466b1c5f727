"""Explanations averaged per class: of held-out samples, each by the network that never saw its subject."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ahmsa_model.checkpoint import AHMSANet
from ahmsa_model.errors import InputError, MissingDependencyError
from ahmsa_model.explain.attribution import at_random, attribute, likeness, region_shares, still_maps
from ahmsa_model.explain.face import USUAL_CENTRES, region_names, region_of_cells
from ahmsa_model.predict import flow_errors

#: Side of the face on which averages are drawn, px.
FACE = 224


@dataclass(frozen=True)
class Group:
    """Samples explained by one network: maps `(B, C, N, N)`, labels `(B,)`.

    Attributes:
        difference: How far the network's logits are from those on record; 0 for the network itself.
    """

    network: nn.Module
    maps: np.ndarray
    labels: np.ndarray
    difference: float = 0.0


@dataclass(frozen=True)
class ClassMean:
    """The mean explanation of one class's own samples, each for its true class.

    Attributes:
        samples: How many.
        right: How many of them the network classifies rightly.
        gradients: `(N, N)` float32, mean of the integrated gradients, summed over channels.
        occlusion: `(N, N)` float32, mean fall of the score.
        shares: Region -> mean share of the absolute integrated gradients.
        drops: Region -> mean fall of the score where the region is made still.
    """

    name: str
    samples: int
    right: int
    gradients: np.ndarray
    occlusion: np.ndarray
    shares: dict[str, float]
    drops: dict[str, float]


@dataclass(frozen=True)
class Averages:
    """Mean explanations per class.

    Attributes:
        source: Whose samples and networks, in words.
        difference: Largest difference of the networks' logits from those on record; NaN where they are read
            in another way.
        control: Mean rank correlation with networks of random weights, as in `Explanation`.
    """

    source: str
    view: str
    classes: tuple[ClassMean, ...]
    difference: float
    control: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, without maps."""
        rows = [
            {
                "class": mean.name,
                "samples": mean.samples,
                "right": mean.right,
                "gradients_share": mean.shares,
                "occlusion_drop": mean.drops,
            }
            for mean in self.classes
        ]
        difference = None if np.isnan(self.difference) else self.difference
        return {
            "source": self.source,
            "view": self.view,
            "classes": rows,
            "largest_logit_difference": difference,
            "likeness_to_random_weights": self.control,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Return every map under its name, for `numpy.savez`."""
        found = {}
        for mean in self.classes:
            found[f"gradients_{mean.name}"] = mean.gradients
            found[f"occlusion_{mean.name}"] = mean.occlusion
        return found


def average(
    groups: Iterable[Group], classes: tuple[str, ...], view: str, normalisation: str, source: str
) -> Averages:
    """Explain every sample for its true class and average per class; see `Averages` for `source`.

    Raises:
        InputError: There is no sample.
        MissingDependencyError: captum is absent.
    """
    with flow_errors():
        cells = region_of_cells(view, USUAL_CENTRES * FACE, FACE)
    found = []
    for group in groups:
        still = still_maps(group.maps, normalisation)
        told = attribute(group.network, group.maps, still, group.labels, cells)
        other = at_random(group.network.config, 0)  # type: ignore[arg-type]
        random = attribute(other, group.maps, still, group.labels, cells).gradients
        pairs = zip(told.gradients, random, strict=True)
        with torch.inference_mode():
            said = group.network(torch.from_numpy(group.maps).to(next(group.network.parameters())))
        right = said.argmax(1).cpu().numpy() == group.labels
        alike = [likeness(*pair) for pair in pairs]
        found.append(
            (group.labels, told, region_shares(told.gradients, cells), right, alike, group.difference)
        )
    if not found:
        raise InputError(f"{source}: no sample to explain")
    labels, tolds, shares, rights, alikes, differences = zip(*found, strict=True)
    label, names = np.concatenate(labels), region_names()
    gradients = np.concatenate([part.gradients.sum(1) for part in tolds])
    occlusion = np.concatenate([part.occlusion for part in tolds])
    drops, share = np.concatenate([part.regions for part in tolds]), np.concatenate(shares)
    hits = np.concatenate(rights)
    means = []
    for k, name in enumerate(classes):
        own = label == k
        if not own.any():
            continue
        by_region = [dict(zip(names, table[own].mean(0).tolist(), strict=True)) for table in (share, drops)]
        maps = gradients[own].mean(0), occlusion[own].mean(0)
        means.append(ClassMean(name, int(own.sum()), int(hits[own].sum()), *maps, *by_region))
    return Averages(
        source, view, tuple(means), float(np.max(differences)), float(np.mean(np.concatenate(alikes)))
    )


def average_store(network: AHMSANet, store: Path) -> Averages:
    """Average over the labelled samples of a store; a network may have been trained on these very samples.

    Raises:
        InputError: The store cannot give what the network reads.
    """
    with flow_errors():
        from mer_flow.views.read import read_view

        metadata = network.metadata
        data = read_view(str(store), metadata.view, metadata.normalisation, scheme=metadata.scheme)
    group = Group(network.eval(), data.maps, data.labels)
    source = f"{store.name}: {len(data)} samples, which the network may have been trained on"
    return average([group], data.classes, data.view, data.normalisation, source)


def average_run(
    path: Path,
    store: Path | None = None,
    seed: int | None = None,
    limit: int | None = None,
    on_fold: Callable[[int, int], None] | None = None,
) -> Averages:
    """Average over a run's held-out samples.

    A run keeps what its networks said, not their weights: each fold is trained again from its seed, and its
    logits are compared with those on record.

    Args:
        path: A finished run of AHMSA-Net.
        store: Where its store lies now, unless where it was.
        seed: One of its seeds; the first unless given.
        limit: The first so many folds only.
        on_fold: Called with (folds done, their total).

    Raises:
        InputError: The run is of another model, lacks the seed or a record, or the store has other maps.
        MissingDependencyError: mer-bench or captum is absent.
    """
    try:
        from mer_bench.errors import MerBenchError
        from mer_bench.runs.directory import RunDirectory
        from mer_bench.runs.refit import data_of, refit
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "explaining a run needs mer-bench: pip install -e packages/mer-bench"
        ) from error
    try:
        with flow_errors():
            run = RunDirectory(path)
            manifest = run.manifest
            if manifest.model != "ahmsa":
                raise InputError(f"{path} is a run of '{manifest.model}'; name a run of ahmsa")
            seed = manifest.seeds[0] if seed is None else seed
            if seed not in manifest.seeds:
                raise InputError(f"{path} has no seed {seed}; it has {', '.join(map(str, manifest.seeds))}")
            data = data_of(run, store)
            names = run.fold_names[:limit]

            def groups() -> Iterator[Group]:
                for done, fitted in enumerate(refit(run, data, seed, names), start=1):
                    test = fitted.fold.test
                    labels = data.population.labels[test]
                    yield Group(fitted.network, data.maps[test], labels, fitted.difference)
                    if on_fold is not None:
                        on_fold(done, len(names))

            source = (
                f"{path.name}: held-out samples of {len(names)} of {len(run.fold_names)} folds, seed {seed}, "
                "folds trained again"
            )
            return average(groups(), manifest.classes, data.view, data.normalisation, source)
    except MerBenchError as error:
        raise InputError(str(error)) from error
