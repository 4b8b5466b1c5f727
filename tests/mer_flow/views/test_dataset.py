"""The torch Dataset in this process and in spawned workers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.mer_flow.stores import sample_of, write_store

from mer_flow.views import read_view

torch = pytest.importorskip("torch", reason="the Dataset is for torch")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    emotions = ("negative", "positive", "surprise")
    rows = [
        (sample_of("smic", f"s{i}", "c", emotions[i % 3]), np.random.default_rng(i).uniform(size=(3, 32, 32)))
        for i in range(11)
    ]
    return write_store(tmp_path_factory.mktemp("dataset") / "flows.h5", rows).path


def halve(tensor: Any) -> Any:
    return tensor / 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_what_the_view_gives(path: Path, workers: int) -> None:
    from torch.utils.data import DataLoader

    from mer_flow.views.dataset import FlowDataset

    expected = read_view(str(path), "whole-16", "scaled")
    dataset = FlowDataset(str(path), "whole-16", "scaled", transform=halve)
    dataset[0]  # the handle is open when the workers start
    context = "spawn" if workers else None
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context=context)
    batches = list(loader)
    maps, labels = (torch.cat(items) for items in zip(*batches, strict=True))
    assert len(batches) == 3
    assert torch.equal(maps, torch.from_numpy(expected.maps) / 2)
    assert maps.dtype == torch.float32
    assert labels.tolist() == expected.labels.tolist()
    assert labels.dtype == torch.int64


def test_items_and_what_names_them(path: Path) -> None:
    from mer_flow.views.dataset import FlowDataset

    dataset = FlowDataset(str(path), "whole-16", "minmax", scheme="megc3", databases=["smic"])
    expected = read_view(str(path), "whole-16", "minmax")
    assert len(dataset) == 11
    assert np.allclose(dataset[-1][0].numpy(), expected.maps[10])
    assert dataset[-1][1] == expected.labels[10]
    with pytest.raises(IndexError):
        dataset[11]
    assert dataset.subjects.tolist() == [f"smic/s{i}" for i in range(11)]
    assert dataset.classes == ("negative", "positive", "surprise")
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[3][0], dataset[3][0])
