"""From a store to arrays a model can be trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mer_flow.labels import Labelled, LabelScheme, apply_scheme, get_scheme
from mer_flow.samples import SampleTable
from mer_flow.store.reader import FlowStore
from mer_flow.store.schema import provided_by
from mer_flow.views.layouts import cut_view
from mer_flow.views.names import ViewName, parse_views
from mer_flow.views.normalise import (
    NORMALISATIONS,
    OF_SCALED_MAPS,
    normalise_images,
    normalise_maps,
    normalise_scaled_maps,
)
from mer_flow.views.resample import area_resize
from mer_flow.work.errors import MissingDependencyError, UsageError, ViewError
from mer_flow.work.libraries import extra_command
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    import pandas as pd
    from torch.utils.data import TensorDataset

#: Samples per step: bounds memory (224 px: 13 MB of flow) and keeps the matrix products in cache.
BATCH = 32

#: Luma weights of ITU-R BT.601, as OpenCV and Pillow turn colour into grey.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class ViewData:
    """A labelled view of a store.

    Attributes:
        maps: (N, C, H, W) float32; C is 3 (u, v, strain) for flow, 2 for `faces`, K for `clips`, three times
            as many for frames in colour (red, green, blue of one frame after another), and the sum of its
            parts for a combined view.
        labels: (N,) int64, index into `classes`.
        subjects: (N,) str, unique across databases.
        databases: (N,) str.
        sample_ids: (N,) str.
        samples: What the sheets say of each sample.
        view: Canonical name of the view.
        dropped: Reason -> number of samples without a class.
        source_digest: Digest of the store's content for these databases.
    """

    maps: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    databases: np.ndarray
    sample_ids: np.ndarray
    samples: SampleTable
    classes: tuple[str, ...]
    scheme: str
    view: str
    normalisation: str
    dropped: dict[str, int]
    source_digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        counts = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        classes = ", ".join(f"{name} {count}" for name, count in zip(self.classes, counts, strict=True))
        return f"ViewData({self.view}:{self.normalisation}, maps {self.maps.shape}, {self.scheme}: {classes})"

    def table(self) -> pd.DataFrame:
        """Return the samples, a row each: the columns of the SampleTable, and `label`, the class's name."""
        return self.samples.to_frame().assign(label=np.array(self.classes)[self.labels])

    def dataset(self) -> TensorDataset:
        """Return a torch Dataset of `(map (C, H, W) float32, label int64)`, which shares memory with `maps`.

        Raises:
            MissingDependencyError: PyTorch is absent.
        """
        try:
            import torch
            from torch.utils.data import TensorDataset
        except ImportError as error:
            raise MissingDependencyError(
                f"ViewData.dataset needs torch ({error}): {extra_command('torch')}; "
                "maps and labels are numpy arrays without it"
            ) from error
        return TensorDataset(torch.from_numpy(self.maps), torch.from_numpy(self.labels))


class ViewReader:
    """The labelled samples of a store, their maps read on request; picklable.

    Arguments and faults are those of `read_view`, attributes those of `ViewData`; a scheme that has no name
    is given as it is.

    Attributes:
        parts: The parts of the view; one unless it is a combination.
    """

    def __init__(
        self,
        store: FlowStore | Path | str,
        view: str = "whole-28",
        normalisation: str = "scaled",
        *,
        scheme: str | LabelScheme = "megc3",
        databases: Sequence[str] | None = None,
    ):
        self.store = store if isinstance(store, FlowStore) else FlowStore(store)
        self.parts = parse_views(view)
        self.view = "+".join(map(str, self.parts))
        self.normalisation = normalisation
        labels = scheme if isinstance(scheme, LabelScheme) else get_scheme(scheme)
        self.scheme, self.classes = labels.name, labels.classes
        self.chosen = _choose(self.store, labels, databases)
        lacking = missing_ingredient(self.store, view, normalisation, list(self.chosen))
        if lacking:
            raise ViewError(lacking)
        rows = [
            (database, i, sample, labelled.labels[sample.sample_id])
            for database, labelled in self.chosen.items()
            for i, sample in enumerate(self.store.samples(database))
            if sample.sample_id in labelled.labels
        ]
        self.labels = np.array([label for *_, label in rows], dtype=np.int64)
        self.subjects = np.array([sample.subject for _, _, sample, _ in rows], dtype=str)
        self.databases = np.array([database for database, *_ in rows], dtype=str)
        self.samples = SampleTable(sample for _, _, sample, _ in rows)
        self.sample_ids = np.array(self.samples.sample_ids, dtype=str)
        reasons = (reason for labelled in self.chosen.values() for reason in labelled.dropped.values())
        self.dropped: dict[str, int] = dict(Counter(reasons))
        self._at = np.array([i for _, i, _, _ in rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        return sum(self._channels()), self.parts[0].size, self.parts[0].size

    def _channels(self) -> list[int]:
        clips = any(part.family == "clips" for part in self.parts)
        frames = len(self.store.clips(self.databases[0], 0)) if clips else 0
        return [part.channels(frames) for part in self.parts]

    def read(self, index: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Read the maps, (M, C, H, W) float32, of M positions in `labels`, in any order; all unless given.

        Raises:
            ViewError: A sample lacks plausible region centres.
        """
        wanted = np.arange(len(self)) if index is None else np.asarray(index, dtype=np.int64)
        maps = np.empty((len(wanted), *self.shape), dtype=np.float32)
        ends = np.cumsum([0, *self._channels()])
        for database in dict.fromkeys(self.databases[wanted].tolist()):
            rows = np.flatnonzero(self.databases[wanted] == database)
            for first in range(0, len(rows), BATCH):
                batch = rows[first : first + BATCH]
                for part, start, end in zip(self.parts, ends[:-1], ends[1:], strict=True):
                    maps[batch, start:end] = self._batch(part, database, wanted[batch])
        return maps

    def _batch(self, part: ViewName, database: str, picked: np.ndarray) -> np.ndarray:
        at, side = self._at[picked], self.store.map_size
        if part.is_image:
            return normalise_images(self._images(part, database, at), self.normalisation)
        if self.store.values == "minmax-255":
            return normalise_scaled_maps(self.store.read_flow(database, at), self.normalisation)
        pitch: np.ndarray | float = 1.0
        if part.family == "whole" and part.size == side:
            maps = self.store.read_flow(database, at)
        else:
            flow = self.store.read_flow(database, at, channels=2)
            regions = None if part.family == "whole" else self.store.regions(database)[at]
            maps, pitch = cut_view(part, flow, regions, self.sample_ids[picked].tolist())
        return normalise_maps(maps, self.normalisation, pitch, side)

    def _images(self, part: ViewName, database: str, at: np.ndarray) -> np.ndarray:
        """Return (M, C, N, N) float32, 0 to 255."""
        read = self.store.faces if part.family == "faces" else self.store.clips
        images = read(database, at)
        if part.layout == "grey":
            grey = images.astype(np.float32)
            return area_resize(grey if images.ndim == 4 else grey @ LUMA, part.size)
        if images.ndim == 4:  # a grey database: its frames are grey in colour too
            return np.repeat(area_resize(images, part.size), 3, axis=1)
        images = images.transpose(0, 1, 4, 2, 3)
        return area_resize(images.reshape(len(images), -1, *images.shape[-2:]), part.size)


def read_view(
    store: FlowStore | Path | str,
    view: str = "whole-28",
    normalisation: str = "scaled",
    *,
    scheme: str = "megc3",
    databases: Sequence[str] | None = None,
) -> ViewData:
    """Read a whole labelled view into memory, database after database in the store's order.

    Args:
        store: The store, or its path.
        view: As in `whole-28`, `regions-28@quadrants`, `htnet-28`, `faces-112@rgb`, `clips-64`, or several of
            one size joined by `+`, as in `clips-64+faces-64`.
        normalisation: One of `NORMALISATIONS`, as in `scaled`.
        scheme: Label scheme.
        databases: Databases to read; unless given, those of the store that the scheme has classes for.

    Raises:
        UsageError: Unknown view, normalisation, scheme or database.
        ViewError: The store cannot give this view, or no sample has a class.
    """
    reader = ViewReader(store, view, normalisation, scheme=scheme, databases=databases)
    return ViewData(
        maps=reader.read(),
        labels=reader.labels,
        subjects=reader.subjects,
        databases=reader.databases,
        sample_ids=reader.sample_ids,
        samples=reader.samples,
        classes=reader.classes,
        scheme=reader.scheme,
        view=reader.view,
        normalisation=normalisation,
        dropped=reader.dropped,
        source_digest=reader.store.digest(list(reader.chosen)),
    )


def missing_ingredient(
    store: FlowStore, view: str, normalisation: str, databases: Sequence[str] | None = None
) -> str | None:
    """Say what a store lacks for a view, and how to get it: the message that `read_view` would raise, if any.

    `databases` must have it, all of them unless given; the other arguments are those of `read_view`.

    Raises:
        UsageError: Unknown view, normalisation or database.
    """
    parts = parse_views(view)
    if normalisation not in NORMALISATIONS:
        raise unknown("normalisation", normalisation, NORMALISATIONS)
    asked = tuple(databases) if databases is not None else store.databases
    held = [database for database in asked if len(store.samples(database))]
    where = f"{store.path} cannot give {'+'.join(map(str, parts))}:{normalisation}"
    reasons, absent = [], {}
    for part in parts:
        if store.values == "minmax-255" and not part.is_image:
            reasons.append(_limits_of_imported(store, part, normalisation))
            continue
        if part.size > store.map_size:
            reasons.append(
                f"its maps are {store.map_size} px and views only reduce. Ask for at most "
                f"{part.family}-{store.map_size}, or build with a larger aligned face."
            )
        for what in part.ingredients:
            absent[what] = [database for database in held if not store.has(database, what)]
    absent = {what: without for what, without in absent.items() if without}
    if absent:
        lacks = "; ".join(f"{', '.join(without)} hold(s) no {what}" for what, without in absent.items())
        reasons.append(f"{lacks}. Build with {provided_by(absent)}.")
    elif any(part.family == "clips" for part in parts):
        lengths = {database: len(store.clips(database, 0)) for database in held}
        if len(set(lengths.values())) > 1:
            reasons.append(f"clips differ in length: {lengths}. Use one --keep-clips K for every database.")
    found = dict.fromkeys(reason for reason in reasons if reason)
    return f"{where}: {' '.join(found)}" if found else None


def _limits_of_imported(store: FlowStore, name: ViewName, normalisation: str) -> str | None:
    """Say what cannot be had of maps that came min-max scaled."""
    if name.family != "whole":
        why = "its maps were imported without region centres"
    elif normalisation not in OF_SCALED_MAPS:
        why = "its maps came min-max scaled per image, without their zero and their unit"
    elif name.size != store.map_size:
        why = f"its maps came min-max scaled at {store.map_size} px, and resized they would no longer be"
    else:
        return None
    return (
        f"{why}. It gives whole-{store.map_size} with {', '.join(OF_SCALED_MAPS)}; "
        "for anything else build the database from its frames with `mer-flow build`."
    )


def _choose(store: FlowStore, scheme: LabelScheme, databases: Sequence[str] | None) -> dict[str, Labelled]:
    """Label the samples of the databases to read."""
    if isinstance(databases, str):
        raise UsageError(f"databases must be a list of names, got the text '{databases}'")
    asked = tuple(dict.fromkeys(databases)) if databases is not None else store.databases
    labelled = {database: apply_scheme(store.samples(database), scheme) for database in asked}
    if databases is None:
        labelled = {database: item for database, item in labelled.items() if item.labels}
    if not any(item.labels for item in labelled.values()):
        held = ", ".join(f"{name} ({len(store.samples(name))} samples)" for name in asked) or "nothing"
        raise ViewError(
            f"no sample of {store.path} has a class in '{scheme.name}', "
            f"which is for {', '.join(scheme.databases)}; the store holds {held}. "
            "Choose another --scheme, or build one of those databases."
        )
    return labelled
