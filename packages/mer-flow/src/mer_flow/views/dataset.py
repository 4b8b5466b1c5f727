"""A torch Dataset over a store: reads sample by sample, safe with spawned and forked workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mer_flow.store.reader import FlowStore
from mer_flow.views import ViewReader
from mer_flow.work.errors import MissingDependencyError
from mer_flow.work.libraries import extra_command

try:
    import torch
    from torch.utils.data import Dataset
except ImportError as error:
    raise MissingDependencyError(
        f"mer_flow.views.dataset needs torch: {extra_command('torch')} (mer_flow.views.read_view gives numpy "
        "arrays without it)"
    ) from error


class FlowDataset(Dataset):
    """Labelled maps as `(tensor (C, H, W) float32, label int)`.

    Nothing is read before the first item; each worker process opens the store itself. Whoever trains on a
    whole view many times reads it once with `read_view` instead. Arguments and faults are those of
    `read_view`; `transform`, applied to each tensor, must be picklable for spawned workers. Labels and what
    names the items are as in `ViewData`.
    """

    def __init__(
        self,
        store: FlowStore | Path | str,
        view: str = "whole-28",
        normalisation: str = "scaled",
        *,
        scheme: str = "megc3",
        databases: Sequence[str] | None = None,
        transform: Callable[[torch.Tensor], Any] | None = None,
    ):
        self.reader = ViewReader(store, view, normalisation, scheme=scheme, databases=databases)
        self.transform = transform
        self.labels, self.classes = self.reader.labels, self.reader.classes
        self.subjects, self.databases = self.reader.subjects, self.reader.databases
        self.sample_ids = self.reader.sample_ids

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int]]:
        """Read a batch at once; torch's loader calls this where it exists."""
        tensors: Any = torch.from_numpy(self.reader.read(indices))
        if self.transform is not None:
            tensors = [self.transform(tensor) for tensor in tensors]
        return [(tensor, int(self.labels[i])) for tensor, i in zip(tensors, indices, strict=True)]
