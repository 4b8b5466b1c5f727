"""Prediction with a kept network: a run's numbers, honest scores, every refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mer_bench.errors import CheckpointError, DataError
from mer_bench.models.registry import Registry
from mer_bench.scores.predictions import score
from mer_bench.settings import Request, RunSettings, TrainingSettings
from mer_bench.weights.checkpoint import read_checkpoint, write_checkpoint
from mer_bench.weights.fit import fit
from mer_bench.weights.predict import BATCH, predict, read_inputs
from mer_flow.views import read_view
from mer_flow.work.errors import MerFlowError


@pytest.fixture(scope="module")
def folder(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """STSTNet, trained on samm and smic alone."""
    out = tmp_path_factory.mktemp("kept") / "net"
    run = RunSettings(model="ststnet", db=("samm", "smic"), view="whole-28", normalisation="scaled")
    options = {"epochs": 20, "lr": 3e-3, "batch_size": 12, "flip_average": True, "prior": 0.5}
    fit(Registry().find("ststnet"), Request(run, options, TrainingSettings(device="cpu")), small_store, out)
    return out


def test_probabilities_are_those_of_the_network_as_its_recipe_reads_it(
    folder: Path, tmp_path: Path, write_store: Callable[..., Path]
) -> None:
    store = write_store(tmp_path / "many.h5", clips=11)
    kept = read_checkpoint(folder)
    found = predict(kept, store)
    view = read_view(str(store), "whole-28", "scaled")
    assert len(view) > BATCH, "more than one batch"
    order = np.argsort(view.sample_ids)
    maps = torch.from_numpy(view.maps[order])
    mirrored = maps.flip(-1) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    counts = torch.tensor(list(kept.metadata.training["per_class"].values())).float()
    taken = 0.5 * torch.log(counts / counts.sum())
    with torch.no_grad():
        both = [torch.softmax(kept.network(each) - taken, 1) for each in (maps, mirrored)]
    np.testing.assert_allclose(found.probabilities, ((both[0] + both[1]) / 2).numpy(), atol=1e-5)
    assert found.sample_ids.tolist() == view.sample_ids[order].tolist()
    assert found.labels.tolist() == view.labels[order].tolist() and found.notes == ()


def test_a_network_without_a_recipe_is_read_as_it_is(folder: Path, small_store: Path, tmp_path: Path) -> None:
    kept = read_checkpoint(folder)
    about = kept.metadata.changed(training={})
    write_checkpoint(tmp_path, kept.network, kept.record.changed(metadata=about), "")
    found = predict(read_checkpoint(tmp_path), small_store)
    view = read_view(str(small_store), "whole-28", "scaled")
    with torch.no_grad():
        said = torch.softmax(kept.network(torch.from_numpy(view.maps[np.argsort(view.sample_ids)])), 1)
    np.testing.assert_allclose(found.probabilities, said.numpy(), atol=1e-5)
    assert not found.trained_on.any()


def test_only_subjects_that_were_not_trained_on_are_scored(folder: Path, small_store: Path) -> None:
    found = predict(read_checkpoint(folder), small_store)
    assert found.trained_on.tolist() == [name != "casme2" for name in found.databases]
    scores = found.scores()
    assert (scores["new subjects"]["samples"], scores["trained on"]["samples"]) == (18, 36)
    assert scores["new subjects"]["subjects"] == 3 and scores["trained on"]["accuracy"] > 0.8
    table = found.table()
    with pytest.raises(DataError, match=r"36 row\(s\) are of subjects that the network was trained on"):
        score(table, small_store)
    new = table[~table["trained_on"]]
    same = score(new, small_store, protocol="loso", db=("casme2",)).pools["Full"].figures["uf1"].mean
    assert same == pytest.approx(scores["new subjects"]["uf1"])


def test_samples_without_a_class_are_predicted_too(folder: Path, tmp_path: Path) -> None:
    from mer_flow.samples import Sample, SampleTable
    from mer_flow.store.writer import SampleRecord, StoreWriter, encode_sample

    flow = np.random.default_rng(0).normal(size=(3, 28, 28)).astype(np.float32)
    sample = Sample("samm/new/c0", "samm", "samm/new", "c0", 1, 5, 9, "sheet", "", "", 0, 200.0)
    pipeline = {"map_kind": {"kind": "computed", "map_size": 28, "values": "px"}}
    with StoreWriter(tmp_path / "new.h5", pipeline) as writer:
        writer.begin("samm", SampleTable([sample]))
        writer.commit(sample.sample_id, encode_sample(SampleRecord(sample, flow, notes={"fallbacks": []})))
        writer.finish()
    found = predict(read_checkpoint(folder), tmp_path / "new.h5")
    assert found.labels.tolist() == [-1] and found.scores() == {}
    assert found.table()["label"].tolist() == [""] and found.probabilities.sum() == pytest.approx(1)


def test_maps_of_another_pipeline_are_refused_by_name(
    folder: Path, tmp_path: Path, write_store: Callable[..., Path]
) -> None:
    other = write_store(tmp_path / "other.h5", import_of={"layout": "ststnet"})
    with pytest.raises(
        DataError, match=r"import.layout: 'absent' in training, 'ststnet' here.*--other-pipeline"
    ):
        predict(read_checkpoint(folder), other)
    found = predict(read_checkpoint(folder), other, other_pipeline=True)
    assert len(found.notes) == 1 and "made otherwise than those of the training" in found.notes[0]


def test_what_the_network_cannot_read_is_refused(folder: Path, small_store: Path, tmp_path: Path) -> None:
    kept = read_checkpoint(folder)

    def changed(**metadata: Any) -> Any:
        about = kept.metadata.changed(**metadata)
        write_checkpoint(tmp_path, kept.network, kept.record.changed(metadata=about), "")
        return read_checkpoint(tmp_path)

    with pytest.raises(CheckpointError, match="does not name its view"):
        predict(changed(view=""), small_store)
    with pytest.raises(MerFlowError, match="views only reduce"):
        predict(changed(view="whole-56"), small_store)
    with pytest.raises(DataError, match=r"gives whole-14 as maps of \(3, 14, 14\), and the network reads"):
        predict(changed(view="whole-14"), small_store)
    with pytest.raises(MerFlowError, match="casme3"):
        predict(kept, small_store, db=("casme3",))
    assert read_inputs(kept, small_store, 5).shape == (5, 3, 28, 28)


def test_the_command_writes_csv_and_json(folder: Path, small_store: Path, tmp_path: Path, call: Any) -> None:
    command = ("predict", "--checkpoint", folder, "--store", small_store, "--device", "cpu")
    code, out, err = call(*command)
    assert code == 0, err
    assert "new subjects: 18 samples of 3 subjects, uf1 " in out
    assert "trained on: 36 samples of 6 subjects" in out and "(no score: the network was trained" in out
    assert sum(line.startswith("casme2/") for line in out.splitlines()) == 18
    code, out, err = call(*command, "--db", "casme2", "--out", tmp_path / "a" / "p.csv")
    table = pd.read_csv(tmp_path / "a" / "p.csv")
    assert code == 0 and len(table) == 18 and "wrote" in out
    assert list(table.columns[-3:]) == ["p_negative", "p_positive", "p_surprise"]
    code, out, err = call(*command, "--json", "--out", tmp_path / "p.json")
    assert json.loads(out) == json.loads((tmp_path / "p.json").read_text())
    assert len(json.loads(out)["predictions"]) == 54 and json.loads(out)["model"] == "ststnet"
    code, out, err = call("predict", "--checkpoint", tmp_path / "none", "--store", small_store)
    assert code == 1 and "none does not exist" in err and "Traceback" not in err
