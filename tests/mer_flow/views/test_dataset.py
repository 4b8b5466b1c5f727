"""The torch Dataset in this process and in spawned workers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_flow.samples import Sample, SampleTable
from mer_flow.store.writer import SampleRecord, StoreWriter, encode_sample
from mer_flow.views import read_view

torch = pytest.importorskip("torch", reason="the Dataset is for torch")

SIDE = 32


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dataset") / "flows.h5"
    emotions = ("negative", "positive", "surprise")
    with StoreWriter(path, {"map_kind": {"kind": "computed", "map_size": SIDE, "values": "px"}}) as writer:
        table = SampleTable(
            Sample(f"smic/s{i}/c", "smic", f"smic/s{i}", "c", 1, 5, 9, "sheet", emotions[i % 3], "", 0, 100.0)
            for i in range(11)
        )
        writer.begin("smic", table)
        for i, sample in enumerate(table):
            record = SampleRecord(sample, np.random.default_rng(i).normal(size=(3, SIDE, SIDE)) ** 2)
            writer.commit(sample.sample_id, encode_sample(record))
        writer.finish()
    return path


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
