"""Checkpoints: every registered network survives one; every damage, change and absurdity is named."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from tests.faults.trials import Trials, flipped

from mer_bench.errors import CheckpointError
from mer_bench.models.registry import Registry
from mer_bench.training.network import build_network, fold_generators
from mer_bench.weights.checkpoint import Metadata, read_checkpoint, record_of, write_checkpoint

METADATA = Metadata(
    classes=("negative", "positive", "surprise"),
    scheme="megc3",
    view="whole-28",
    normalisation="scaled",
    pipeline={"config": {"align": {"eye_distance": 90}}},
    pipeline_hash="0f" * 32,
    training={"seed": 0, "recipe": {"lr": 1e-3}},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of STSTNet, untrained."""
    registered, shape, cpu = Registry().find("ststnet"), (3, 28, 28), torch.device("cpu")
    with fold_generators(1, cpu):
        network = build_network(registered.spec, {}, 3, shape, cpu, stacked=False)
    write_checkpoint(tmp_path, network, record_of(registered, {}, shape, METADATA), "# card\n")
    return tmp_path


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change `config.json` alone."""
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


def forge(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda content: None, **more: Any) -> None:
    """Write both files anew around a change, as somebody might who knows the format."""
    edit(folder, change)
    path, content = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    content.pop("weights_sha256")
    weights = save({**load_file(path), **more}, metadata={"checkpoint": json.dumps(content)})
    path.write_bytes(weights)
    edit(folder, lambda content: content.update(weights_sha256=hashlib.sha256(weights).hexdigest()))


def test_a_checkpoint_is_three_files_without_pickle(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    found = read_checkpoint(folder)
    assert found.metadata == METADATA and found.notes == () and not found.network.training
    told, defaults = (
        {"num_classes": 3, "in_channels": 3, "map_size": 28},
        {"streams": [3, 5, 8], "padding": 2},
    )
    assert found.record.config == {**told, **defaults, "dropout": 0.5}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.update(format="other"), "is no checkpoint: it lacks 'format': 'mer-checkpoint'"),
        (lambda c: c.update(format_version=1), "has format 1, .*written by mer-bench .*: install that one"),
        (lambda c: c.update(model="ststnot"), "of model 'ststnot', which no installed package has"),
        (lambda c: c.update(model="os.path.join"), "of model 'os.path.join', which no installed package has"),
        (lambda c: c.update(model="majority"), "'majority' is no network"),
        (lambda c: c["config"].pop("map_size"), "'ststnet' is no network, or its config lacks"),
        (lambda c: c["config"].update(num_classes=4), r"has shape \(3, .*asks for \(4,"),
        (lambda c: c["config"].update(num_classes=True), "its config lacks"),
        (lambda c: c["config"].update(wdith=3), "unknown setting 'wdith'"),
        (lambda c: c["metadata"].update(veiw="x"), "unknown setting 'metadata.veiw'; did you mean"),
        (lambda c: c.pop("config"), "config.json.config is missing"),
        (lambda c: c["config"].update(map_size=10**9), "'map_size' is 1000000000; at most 1048576 is built"),
    ],
)  # fmt: skip
def test_a_forged_config_says_what_is_wrong(
    folder: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    forge(folder, change)
    with pytest.raises(CheckpointError, match=message) as refused:
        read_checkpoint(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda c: c["metadata"].update(normalisation="minmax"),
            "metadata.normalisation is minmax, and the weights were saved with scaled",
        ),
        (
            lambda c: c["metadata"]["pipeline"]["config"]["align"].update(eye_distance=80),
            "metadata.pipeline.config.align.eye_distance is 80, and the weights were saved with 90",
        ),
        (lambda c: c["metadata"]["classes"].reverse(), "metadata.classes is"),
        (lambda c: c["metadata"].update(pipeline_hash="00"), "metadata.pipeline_hash is 00"),
        (lambda c: c["metadata"]["training"].update(seed=0.0), "metadata.training.seed is 0.0"),
        (lambda c: c.update(colour="red"), "colour is red, and the weights were saved with absent"),
    ],
)
def test_a_changed_config_is_named_with_both_values(
    folder: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError, match=f"config.json was changed: {message}"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "options",
    [{"width": 10**9}, {"levels": 10**9}, {"blocks": [1, 1, 10**6]}, {"blocks": [1, 1, 200], "width": 64}],
    ids=str,
)
def test_absurd_sizes_of_another_network_are_refused_before_anything_is_allocated(
    folder: Path, options: dict[str, Any]
) -> None:
    asked = {"num_classes": 3, "in_channels": 3, "map_size": 28, "width": 16, "heads": 1, **options}
    forge(folder, lambda content: content.update(model="ahmsa", config=asked))
    with pytest.raises(CheckpointError, match=r"at most|less than|ask for more than"):
        read_checkpoint(folder)


def test_missing_and_damaged_files_are_named(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere does not exist.*hf download"):
        read_checkpoint(folder / "nowhere")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        read_checkpoint(folder)
    (folder / "model.safetensors").write_bytes(whole[:-4])
    with pytest.raises(CheckpointError, match="is not the file that"):
        read_checkpoint(folder)
    (folder / "config.json").write_text('{"a":' * 100_000)
    with pytest.raises(CheckpointError, match="is no JSON"):
        read_checkpoint(folder)
    (folder / "config.json").write_bytes(b" " * (1 << 21))
    with pytest.raises(CheckpointError, match="has 2097152 bytes, a config at most 1048576"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "extra, value, message",
    [
        (True, 0.0, "has beyond the network's own tensor 'extra'"),
        (False, float("nan"), "holds NaN or infinite values"),
        (False, float("-inf"), "holds NaN or infinite values"),
    ],
)
def test_a_wrong_tensor_is_named(folder: Path, extra: bool, value: float, message: str) -> None:
    """One wrong number among many right ones is enough."""
    name, tensor = max(load_file(folder / "model.safetensors").items(), key=lambda item: item[1].numel())
    assert tensor.numel() > 1
    tensor.view(-1)[-1] = value
    forge(folder, **{"extra" if extra else name: tensor})
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "many"), [("config.json", 500), ("model.safetensors", 500), ("README.md", 50)]
)
def test_flipped_bits_are_refused_or_change_nothing(
    name: str, many: int, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    maps, outcome = torch.randn(2, 3, 28, 28), Counter[str]()
    expected, whole = read_checkpoint(folder).network(maps), (folder / name).read_bytes()
    trials = Trials(record_property, "bit of a checkpoint", few=30, many=many, share=0.01)
    for bit in trials.among(range(8 * len(whole))):
        (folder / name).write_bytes(flipped(whole, bit))
        try:
            found = read_checkpoint(folder)
        except CheckpointError as error:
            outcome["refused"] += 1
            assert "\n" not in str(error)
        else:
            outcome["harmless"] += 1
            assert torch.equal(found.network(maps), expected) and found.metadata == METADATA
    trials.end(outcome.total(), outcome)
    # White space of the config may become another; no prediction reads the card.
    least = {"config.json": 0.8, "model.safetensors": 1.0, "README.md": 0.0}[name]
    assert outcome["refused"] >= least * outcome.total() and (least or not outcome["refused"])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_no_part_of_a_checkpoint_is_read_without_end(name: str, kind: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name) if kind == "pipe" else (folder / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="a pipe, a socket or a device"):
        read_checkpoint(folder)
