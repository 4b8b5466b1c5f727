"""Checkpoints: a round trip loses nothing; every damage is named."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ahmsa_model import (
    AHMSANet,
    CheckpointError,
    CheckpointMetadata,
    from_pretrained,
)

METADATA = CheckpointMetadata(
    classes=("negative", "positive", "surprise"),
    scheme="megc3",
    view="regions-28",
    normalisation="scaled",
    pipeline={"config": {"align": {"size": 224}}, "map_kind": {"kind": "computed"}},
    pipeline_hash="0f" * 32,
    training={"databases": ["samm"], "recipe": {"lr": 5e-6, "epochs": 800}, "seed": 0},
)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return AHMSANet.from_variant("tiny")


@pytest.fixture
def folder(tmp_path, network):
    return network.save_pretrained(tmp_path / "checkpoint", METADATA)


def edit(folder, change):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def vouch(folder):
    """Make `config.json` name the digest of the weights as they are."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit(folder, lambda content: content.update(weights_sha256=digest))


def test_a_round_trip_keeps_every_bit(network, folder):
    loaded = from_pretrained(folder)
    assert loaded.metadata == METADATA
    assert loaded.network.config == network.config
    assert not loaded.network.training
    maps = torch.randn(4, 3, 28, 28)
    assert torch.equal(loaded.network(maps), network.eval()(maps))
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_loaded_network_is_in_evaluation_mode(folder):
    assert not any(module.training for module in from_pretrained(folder).network.modules())


def test_a_loaded_network_can_be_trained_on(folder):
    network = AHMSANet.from_pretrained(folder).train()
    network(torch.randn(4, 3, 28, 28)).square().sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert tuple(without) == network.untrained_parameters()


def test_saving_twice_gives_the_same_bytes_and_replaces(network, folder, tmp_path):
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    network.save_pretrained(folder, METADATA)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_half_precision_survives(network, tmp_path):
    folder = network.half().save_pretrained(tmp_path)
    assert next(from_pretrained(folder).network.parameters()).dtype == torch.float16


def test_classes_must_match_the_outputs(network, tmp_path):
    with pytest.raises(CheckpointError, match=r"name 2 classes .* but the network has 3 outputs"):
        network.save_pretrained(tmp_path, CheckpointMetadata(classes=("a", "b")))
    assert not list(tmp_path.iterdir())


def test_metadata_must_be_json(network, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written as JSON"):
        network.save_pretrained(tmp_path, CheckpointMetadata(training={"loss": float("nan")}))
    with pytest.raises(CheckpointError, match="cannot be written as JSON"):
        network.save_pretrained(tmp_path, CheckpointMetadata(training={"device": torch.device("cpu")}))


def test_an_unwritable_folder_is_named(network, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file cannot be written"):
        network.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read .* config.json and model.safetensors"):
        from_pretrained(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.update(format="other"), "lacks 'format': 'ahmsa-checkpoint'"),
        (lambda c: c.update(format_version=2, ahmsa_model="9.1"), "format 2, .* written by ahmsa-model 9.1"),
        (lambda c: c.pop("config"), "lacks the object 'config'"),
        (
            lambda c: c["config"].update(patchsize=7),
            "unknown AHMSA-Net option 'patchsize'; did you mean 'patch_size'",
        ),
        (lambda c: c["config"].update(map_size=30), "need 4×4 patches"),
        (lambda c: c["metadata"].update(veiw="x"), "unknown checkpoint metadata 'veiw'; did you mean 'view'"),
        (lambda c: c["metadata"].update(view=28), "metadata 'view' must be a valid string, got 28"),
        (
            lambda c: c["metadata"].update(classes="abc"),
            "metadata 'classes' must be a valid tuple, got 'abc'",
        ),
        (lambda c: c["metadata"].update(classes=["a"]), "name 1 classes"),
        (lambda c: c["config"].update(num_classes=4), "name 3 classes .* has 4 outputs"),
    ],
)
def test_a_wrong_config_says_what_is_wrong(folder, change, message):
    edit(folder, change)
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(folder)


def test_a_config_of_another_network_names_the_first_tensor(folder):
    edit(folder, lambda content: content["config"].update(width=24))
    message = (
        r"tensor 'embedding.projection.weight' has shape \(16, 147\), but config.json asks for \(24, 147\)"
    )
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(folder)


def test_damaged_weights_are_refused(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not the file that"):
        from_pretrained(folder)
    path.write_bytes(b"no tensors at all")
    vouch(folder)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("head.1.bias"), "lacks tensor 'head.1.bias'"),
        (lambda t: t.update(extra=torch.zeros(1)), "holds tensor 'extra'"),
        (lambda t: t["head.1.bias"].fill_(float("nan")), "tensor 'head.1.bias' holds NaN"),
        (lambda t: t["head.1.weight"][1, 2].fill_(float("nan")), "tensor 'head.1.weight' holds NaN"),
        (lambda t: t["head.1.weight"][0, 0].fill_(float("inf")), "tensor 'head.1.weight' holds NaN"),
    ],
)
def test_a_wrong_tensor_is_named(folder, change, message):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    vouch(folder)
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(folder)


def test_nothing_is_unpickled(folder):
    """A pickle in place of the weights is refused by its bytes, not by running it."""
    torch.save({"head.1.bias": torch.zeros(3)}, folder / "model.safetensors")
    vouch(folder)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        from_pretrained(folder)
