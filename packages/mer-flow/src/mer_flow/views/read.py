"""From a store to arrays a model can be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mer_flow.errors import UsageError, ViewError
from mer_flow.labels import Labelled, apply_scheme, get_scheme
from mer_flow.resample import area_resize
from mer_flow.schema import PROVIDED_BY
from mer_flow.store import FlowStore
from mer_flow.suggest import unknown
from mer_flow.views.layouts import htnet_maps, region_maps, whole_maps
from mer_flow.views.names import ViewName, parse_view
from mer_flow.views.normalise import NORMALISATIONS, normalise_images, normalise_maps

#: Samples per step: bounds memory (224 px: 13 MB of flow) and keeps the matrix products in cache.
BATCH = 32

#: Luma weights of ITU-R BT.601, as OpenCV and Pillow turn colour into grey.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class ViewData:
    """A labelled view of a store.

    Attributes:
        maps: (N, C, H, W) float32; C is 3 (u, v, strain) for flow, 2 for `faces`, K for `clips`.
        labels: (N,) int64, index into `classes`.
        subjects: (N,) str, unique across databases.
        databases: (N,) str.
        sample_ids: (N,) str.
        classes: Class names of the scheme.
        scheme: Label scheme.
        view: Canonical name of the view.
        normalisation: Name of the normalisation.
        dropped: Reason -> number of samples without a class.
        source_digest: Digest of the store's content for these databases.
    """

    maps: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    databases: np.ndarray
    sample_ids: np.ndarray
    classes: tuple[str, ...]
    scheme: str
    view: str
    normalisation: str
    dropped: dict[str, int]
    source_digest: str

    def __len__(self) -> int:
        return len(self.labels)


class ViewReader:
    """The labelled samples of a store, their maps read on request; picklable.

    Args:
        store: The store, or its path.
        view: As in `whole-28`, `regions-28@quadrants`.
        normalisation: One of `NORMALISATIONS`.
        scheme: Label scheme.
        databases: Databases to read; unless given, those of the store that the scheme has classes for.

    Attributes:
        labels: (N,) int64.
        subjects: (N,) str.
        databases: (N,) str.
        sample_ids: (N,) str.
        classes: Class names.
        dropped: Reason -> number of samples.

    Raises:
        UsageError: Unknown view, normalisation, scheme or database.
        ViewError: The store cannot give this view, or no sample has a class.
    """

    def __init__(
        self,
        store: FlowStore | str,
        view: str = "whole-28",
        normalisation: str = "scaled",
        *,
        scheme: str = "megc3",
        databases: Sequence[str] | None = None,
    ):
        self.store = store if isinstance(store, FlowStore) else FlowStore(store)
        self.view = parse_view(view)
        self.normalisation = normalisation
        self.scheme = get_scheme(scheme).name
        self.classes = get_scheme(scheme).classes
        self.chosen = _choose(self.store, scheme, databases)
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
        self.sample_ids = np.array([sample.sample_id for _, _, sample, _ in rows], dtype=str)
        self.dropped: dict[str, int] = {}
        for labelled in self.chosen.values():
            for reason in labelled.dropped.values():
                self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self._at = np.array([i for _, i, _, _ in rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        channels = {"faces": 2}.get(self.view.family, 3)
        if self.view.family == "clips":
            channels = self.store.clips(next(iter(self.chosen)), 0).shape[0]
        return channels, self.view.size, self.view.size

    def read(self, index: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Reads the maps of some samples.

        Args:
            index: Positions in `labels`, in any order; all unless given.

        Returns:
            (M, C, H, W) float32.

        Raises:
            ViewError: A sample lacks plausible region centres.
            StoreError: The store is damaged.
        """
        wanted = np.arange(len(self)) if index is None else np.asarray(index, dtype=np.int64)
        maps = np.empty((len(wanted), *self.shape), dtype=np.float32)
        for database in dict.fromkeys(self.databases[wanted].tolist()):
            rows = np.flatnonzero(self.databases[wanted] == database)
            regions = self.store.regions(database) if "regions" in self.view.ingredients else None
            for first in range(0, len(rows), BATCH):
                batch = rows[first : first + BATCH]
                picked = wanted[batch]
                maps[batch] = self._batch(database, picked, regions)
        return maps

    def _batch(self, database: str, picked: np.ndarray, regions: np.ndarray | None) -> np.ndarray:
        at = self._at[picked]
        if self.view.family in ("faces", "clips"):
            read = self.store.faces if self.view.family == "faces" else self.store.clips
            return normalise_images(
                area_resize(_grey(read(database, at)), self.view.size), self.normalisation
            )
        side = self.store.map_size
        if self.store.values == "minmax-255":
            maps = self.store.read_flow(database, at)
            return maps if self.normalisation == "minmax-255" else maps / np.float32(255)
        names = self.sample_ids[picked].tolist()
        pitch: np.ndarray | float = side / self.view.size
        if self.view.family == "whole" and self.view.size == side:
            maps = self.store.read_flow(database, at)
        else:
            flow = self.store.read_flow(database, at, channels=2)
            if self.view.family == "whole":
                maps = whole_maps(flow, self.view.size)
            else:
                assert regions is not None, "a view of regions reads them first"
                if self.view.family == "htnet":
                    maps = htnet_maps(flow, regions[at], self.view.layout, self.view.size, names)
                else:
                    maps, pitch = region_maps(flow, regions[at], self.view.layout, self.view.size, names)
        return normalise_maps(maps, self.normalisation, pitch, side)


def read_view(
    store: FlowStore | str,
    view: str = "whole-28",
    normalisation: str = "scaled",
    *,
    scheme: str = "megc3",
    databases: Sequence[str] | None = None,
) -> ViewData:
    """Reads a whole labelled view into memory.

    Args:
        store: The store, or its path.
        view: As in `whole-28`, `regions-28@quadrants`, `htnet-28`, `faces-112`, `clips-64`.
        normalisation: `raw`, `scaled`, `minmax` or `minmax-255`.
        scheme: Label scheme.
        databases: Databases to read; unless given, those of the store that the scheme has classes for.

    Returns:
        Maps, labels and what names them, database after database in the store's order.

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
        classes=reader.classes,
        scheme=reader.scheme,
        view=str(reader.view),
        normalisation=normalisation,
        dropped=reader.dropped,
        source_digest=reader.store.digest(list(reader.chosen)),
    )


def missing_ingredient(
    store: FlowStore, view: str, normalisation: str, databases: Sequence[str] | None = None
) -> str | None:
    """Says what a store lacks for a view, and how to get it.

    Args:
        store: The store.
        view: As for `read_view`.
        normalisation: As for `read_view`.
        databases: Databases that must have it; all unless given.

    Returns:
        The message of the error that `read_view` would raise; None where nothing is lacking.

    Raises:
        UsageError: Unknown view, normalisation or database.
    """
    name = parse_view(view)
    if normalisation not in NORMALISATIONS:
        raise unknown("normalisation", normalisation, NORMALISATIONS)
    where = f"{store.path} cannot give {name}:{normalisation}"
    if store.values == "minmax-255" and name.family not in ("faces", "clips"):
        return _limits_of_imported(store, name, normalisation, where)
    if name.size > store.map_size:
        return (
            f"{where}: its maps are {store.map_size} px and views only reduce. Ask for at most "
            f"{name.family}-{store.map_size}, or build with a larger aligned face."
        )
    for what in name.ingredients:
        without = [
            database
            for database in (databases if databases is not None else store.databases)
            if len(store.samples(database)) and not store.has(database, what)
        ]
        if without:
            return f"{where}: {', '.join(without)} hold(s) no {what}. Build with {PROVIDED_BY[what]}."
    if name.family == "clips":
        lengths = {
            database: store.clips(database, 0).shape[0]
            for database in (databases if databases is not None else store.databases)
            if len(store.samples(database))
        }
        if len(set(lengths.values())) > 1:
            return (
                f"{where}: clips differ in length: {lengths}. Use the same --keep-clips K for every database."
            )
    return None


def _limits_of_imported(store: FlowStore, name: ViewName, normalisation: str, where: str) -> str | None:
    """Says what cannot be had of maps that came min-max scaled."""
    if name.family != "whole":
        why = "its maps were imported without region centres"
    elif normalisation not in ("minmax", "minmax-255"):
        why = "its maps came min-max scaled per image, without their zero and their unit"
    elif name.size != store.map_size:
        why = f"its maps came min-max scaled at {store.map_size} px, and resized they would no longer be"
    else:
        return None
    return (
        f"{where}: {why}. It gives whole-{store.map_size} with minmax or minmax-255; "
        "for anything else build the database from its frames with `mer-flow build`."
    )


def _choose(store: FlowStore, scheme: str, databases: Sequence[str] | None) -> dict[str, Labelled]:
    """Labels the samples of the databases to read."""
    if databases is not None and isinstance(databases, str):
        raise UsageError(f"databases must be a list of names, got the text '{databases}'")
    asked = tuple(dict.fromkeys(databases)) if databases is not None else store.databases
    labelled = {database: apply_scheme(store.samples(database), scheme) for database in asked}
    if databases is None:
        labelled = {database: item for database, item in labelled.items() if item.labels}
    if not any(item.labels for item in labelled.values()):
        held = ", ".join(f"{name} ({len(store.samples(name))} samples)" for name in asked) or "nothing"
        raise ViewError(
            f"no sample of {store.path} has a class in '{scheme}', "
            f"which is for {', '.join(get_scheme(scheme).databases)}; the store holds {held}. "
            "Choose another --scheme, or build one of those databases."
        )
    return labelled


def _grey(images: np.ndarray) -> np.ndarray:
    """Returns (M, K, S, S) float32 of uint8 (M, K, S, S) or (M, K, S, S, 3)."""
    return images.astype(np.float32) if images.ndim == 4 else images.astype(np.float32) @ LUMA
