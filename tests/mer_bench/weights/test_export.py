"""Exported networks: the same logits for batches of any size, no pickle, the checkpoint's record inside."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mer_bench.specs import network_spec

from mer_bench.errors import RunError, UsageError
from mer_bench.models.registry import Registered, Registry
from mer_bench.recipe import Recipe
from mer_bench.training.network import build_network, fold_generators
from mer_bench.weights.checkpoint import Checkpoint, Metadata, record_of
from mer_bench.weights.export import _sorted_median, export_model
from mer_flow.work.errors import UsageError as FlowUsageError


def kept(registered: Registered, variant: str = "", size: int = 28) -> Checkpoint:
    """Returns an untrained network as a checkpoint would hold it."""
    spec, cpu, shape = registered.spec, torch.device("cpu"), (3, size, size)
    options = dict(spec.variants[variant or spec.default_variant])
    with fold_generators(0, cpu):
        network = build_network(spec, options, 3, shape, cpu, stacked=False)
    metadata = Metadata(classes=("negative", "positive", "surprise"), view="whole-28", normalisation="scaled")
    return Checkpoint(network.eval(), record_of(registered, options, shape, metadata), spec, Path("kept"))


def test_a_torch_program_answers_alike_and_holds_no_pickle(tmp_path: Path) -> None:
    checkpoint, path = kept(Registry().find("ststnet")), tmp_path / "net.pt2"
    found = export_model(checkpoint, path)
    assert found.form == "torch.export" and found.difference <= 1e-6 and found.compared == 38
    extra = {"mer_checkpoint.json": ""}
    with path.open("rb") as file:
        program = torch.export.load(file, extra_files=extra).module()
    maps = torch.randn(7, 3, 28, 28)
    torch.testing.assert_close(program(maps), checkpoint.network(maps))
    assert json.loads(extra["mer_checkpoint.json"])["metadata"]["view"] == "whole-28"
    with zipfile.ZipFile(path) as archive:
        pickled = [name for name in archive.namelist() if archive.read(name)[:2] in (b"PK", b"\x80\x02")]
    assert pickled == []
    with pytest.raises(FlowUsageError, match="exists already"):
        export_model(checkpoint, path)


def test_onnx_answers_alike_on_batches_of_any_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs mer-bench[export]")
    pytest.importorskip("onnxscript", reason="needs mer-bench[export]")
    checkpoint, path = kept(Registry().find("ststnet")), tmp_path / "net.onnx"
    found = export_model(checkpoint, path)
    assert found.form == "ONNX" and 0 < found.difference < 1e-5 and found.size > 0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["mer_checkpoint"])
    assert about["model"] == "ststnet" and about["metadata"]["classes"][0] == "negative"
    maps = np.random.default_rng(1).normal(size=(11, 3, 28, 28)).astype(np.float32)
    (logits,) = session.run(["logits"], {"maps": maps})
    with torch.no_grad():
        np.testing.assert_allclose(logits, checkpoint.network(torch.from_numpy(maps)).numpy(), atol=1e-5)


class CountsItsCalls(torch.nn.Linear):
    """Answers otherwise each time, which no file can."""

    def __init__(self, num_classes: int, in_channels: int = 3, map_size: int = 28) -> None:
        super().__init__(in_channels * map_size**2, num_classes)
        self.calls = 0

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(maps.flatten(1)) + self.calls


class BranchesOnValues(CountsItsCalls):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.nn.Linear.forward(self, maps.flatten(1)) * (1 if maps.sum() > 0 else -1)


@pytest.mark.parametrize(
    "build, message",
    [(CountsItsCalls, "differs from the network by"), (BranchesOnValues, "cannot be exported")],
)
def test_what_no_file_can_say_is_refused_and_leaves_none(build: Any, message: str, tmp_path: Path) -> None:
    spec = network_spec("odd", build, recipes={"short": Recipe()})
    with pytest.raises(RunError, match=message):
        export_model(kept(Registered(spec, "test 1.0")), tmp_path / "net.pt2")
    with pytest.raises(UsageError, match=r"use \.onnx or \.pt2"):
        export_model(kept(Registry().find("ststnet")), tmp_path / "net.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ahmsa:tiny", "bdcnn:small"])
def test_attention_and_operations_that_onnx_lacks_are_written(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs mer-bench[export]")
    model, _, variant = name.partition(":")
    found = export_model(kept(Registry().find(model), variant), tmp_path / "net.onnx")
    assert found.difference < 1e-5 * max(1.0, found.size)


def test_the_median_of_a_sort_is_torchs() -> None:
    x = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(0))
    for dim in (-1, 1):
        for keepdim in (False, True):
            found, expected = _sorted_median(x, dim, keepdim), torch.median(x, dim, keepdim)
            assert torch.equal(found[0], expected.values) and torch.equal(found[1], expected.indices)
