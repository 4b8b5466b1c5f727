"""Checkpoints: a round trip loses nothing; every damage is named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter

import pytest
import torch
from huggingface_hub import ModelCard, RepoUrl
from safetensors.torch import load_file, save
from tests.faults.trials import Trials, flipped

from ahmsa_model import AHMSANet, CheckpointError, CheckpointMetadata

from_pretrained = AHMSANet.from_pretrained

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
    network = AHMSANet.from_variant("tiny")
    network.metadata = METADATA
    return network


@pytest.fixture
def folder(tmp_path, network):
    network.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def edit(folder, change):
    """Change `config.json` alone."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def forge(folder, change=lambda content: None, tensors=None):
    """Write both files anew around a change, as somebody might who knows the format."""
    edit(folder, change)
    path = folder / "model.safetensors"
    content = json.loads((folder / "config.json").read_text())
    content.pop("weights_sha256")
    tensors = load_file(path) if tensors is None else tensors
    path.write_bytes(save(tensors, metadata={"checkpoint": json.dumps(content)}))
    vouch(folder)


def vouch(folder):
    """Make `config.json` name the digest of the weights as they are."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit(folder, lambda content: content.update(weights_sha256=digest))


def test_a_round_trip_keeps_every_bit(network, folder):
    loaded = from_pretrained(folder)
    assert (loaded.metadata, loaded.config) == (METADATA, network.config)
    assert loaded.source == str(folder)
    maps = torch.randn(4, 3, 28, 28)
    assert torch.equal(loaded(maps), network.eval()(maps))
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]


def test_a_loaded_network_is_in_evaluation_mode(folder):
    assert not any(module.training for module in from_pretrained(folder).modules())


def test_a_loaded_network_can_be_trained_on(folder):
    network = AHMSANet.from_pretrained(folder).train()
    network(torch.randn(4, 3, 28, 28)).square().sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert tuple(without) == network.untrained_parameters()


def test_saving_twice_gives_the_same_bytes_and_replaces(network, folder, tmp_path):
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    network.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_half_precision_survives(network, tmp_path):
    network.half().save_pretrained(tmp_path)
    assert next(from_pretrained(tmp_path).parameters()).dtype == torch.float16


def test_classes_must_match_the_outputs(network, tmp_path):
    network.metadata = CheckpointMetadata(classes=("a", "b"))
    with pytest.raises(CheckpointError, match=r"name 2 classes .* but the network has 3 outputs"):
        network.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_metadata_must_be_json(network, tmp_path):
    for value in (float("nan"), torch.device("cpu")):
        network.metadata = CheckpointMetadata(training={"loss": value})
        with pytest.raises(CheckpointError, match="cannot be written as JSON"):
            network.save_pretrained(tmp_path)


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
        (lambda c: c.update(format="other"), "lacks 'format': 'mer-checkpoint'"),
        (
            lambda c: c.update(format_version=3, written_by="mer-bench 9.1"),
            "format 3, .* written by mer-bench 9.1: install that one",
        ),
        (lambda c: c.update(model="ststnet"), "a checkpoint of 'ststnet', not of AHMSA-Net"),
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
        (
            lambda c: c["config"].update(width=24),
            r"'embedding.projection.weight' has shape \(16, 147\), but config.json asks for \(24, 147\)",
        ),
    ],
)
def test_a_forged_config_says_what_is_wrong(folder, change, message):
    forge(folder, change)
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda c: c["metadata"].update(normalisation="minmax"),
            'metadata.normalisation is "minmax", and the weights were saved with "scaled"',
        ),
        (
            lambda c: c["metadata"]["pipeline"]["config"]["align"].update(size=200),
            "metadata.pipeline.config.align.size is 200, and the weights were saved with 224",
        ),
        (lambda c: c["metadata"]["classes"].reverse(), "metadata.classes is"),
        (lambda c: c["metadata"].update(pipeline_hash="00"), "metadata.pipeline_hash is"),
        (lambda c: c["metadata"]["training"].pop("seed"), 'metadata.training.seed is "absent"'),
        (lambda c: c["config"].update(dropout=False), "config.dropout is false"),
        (lambda c: c.update(colour="red"), 'colour is "red"'),
    ],
)
def test_a_changed_config_is_named_with_both_values(folder, change, message):
    edit(folder, change)
    with pytest.raises(CheckpointError, match=f"config.json was changed: {message}"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": 10**9}, "'width' must be less than or equal to 65536"),
        ({"width": 65536}, r"make a network of 1.1e\+12 parameters, more than the 2e\+09"),
        ({"levels": 10**9}, "'levels' must be less than or equal to 8"),
        ({"blocks": [1] * 1000}, "'blocks' Tuple should have at most 8 items"),
        ({"blocks": [1] * 10**6}, "config.json has .* bytes, a config at most 1048576"),
        ({"blocks": [1, 1, 10**6]}, "'blocks.2' must be less than or equal to 256"),
        ({"width_multipliers": [1, 1, 10**9]}, "'width_multipliers.2' must be less than"),
        ({"map_size": 10**9, "patch_size": 10**9 // 4}, "'map_size' must be less than"),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else "",
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(folder, options, message):
    forge(folder, lambda content: content["config"].update(options))
    with pytest.raises(CheckpointError, match=message) as refused:
        from_pretrained(folder)
    assert len(str(refused.value)) < 400


def test_a_deep_or_long_config_is_refused(folder):
    path = folder / "config.json"
    path.write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match="is no JSON"):
        from_pretrained(folder)
    with path.open("r+b") as file:
        file.truncate(1 << 25)
    with pytest.raises(CheckpointError, match="has 33554432 bytes, a config at most 1048576"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "many"), [("config.json", 400), ("model.safetensors", 400), ("README.md", 200)]
)
def test_flipped_bits_are_refused_or_change_nothing(name, many, network, folder, record_property):
    maps, outcome = torch.randn(2, 3, 28, 28), Counter()
    expected, path = network.eval()(maps), folder / name
    whole = path.read_bytes()
    trials = Trials(record_property, "bit of AHMSA's", few=20, many=many, share=0.03)
    for bit in trials.among(range(8 * len(whole))):
        path.write_bytes(flipped(whole, bit))
        try:
            loaded = from_pretrained(folder)
        except CheckpointError as error:
            outcome["refused"] += 1
            assert "\n" not in str(error)
        else:
            outcome["harmless"] += 1
            assert torch.equal(loaded(maps), expected) and loaded.metadata == METADATA
    trials.end(outcome.total(), outcome)
    # White space of the config may become another; no prediction reads the card.
    least = {"config.json": 0.8, "model.safetensors": 1.0, "README.md": 0.0}[name]
    assert outcome["refused"] >= least * outcome.total() and (least or not outcome["refused"])


def test_the_card_says_what_the_weights_are_and_survives(network, folder, tmp_path):
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "ahmsa-model" and "micro-expression" in card.data.tags
    assert "71,939 parameters" in card.text and "negative, positive, surprise" in card.text
    assert '"seed": 0' in card.text
    (folder / "README.md").write_text("---\nlicense: other\n---\n# Ours\n")
    from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == (folder / "README.md").read_text()
    network.metadata = METADATA.model_copy(update={"scheme": "five"})
    network.save_pretrained(folder)  # a fresh network's card takes the place of the old one
    assert "five" in (folder / "README.md").read_text()


@pytest.mark.parametrize("source", ["me/my-ahmsa", "a name/with spaces"])
def test_a_hub_id_without_network_says_what_to_do(source, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match=rf"'{source}' is no folder here.*hf download {source}"
    ) as error:
        from_pretrained(source, cache_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_a_push_uploads_the_checkpoint_with_its_card(network, monkeypatch):
    uploaded = {}

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            return RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, repo_id, folder_path, **options):
            uploaded[repo_id] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
            return f"https://huggingface.co/{repo_id}/commit/1"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    assert network.push_to_hub("me/mine", private=True).endswith("/me/mine/commit/1")
    assert sorted(uploaded["me/mine"]) == ["README.md", "config.json", "model.safetensors"]
    assert b"71,939 parameters" in uploaded["me/mine"]["README.md"]


def test_a_downloaded_checkpoint_is_read_without_network(folder, tmp_path):
    """As huggingface_hub lays out its cache."""
    cached = tmp_path / "cache" / "models--me--mine"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, cached / "snapshots" / ("0" * 40))
    loaded = from_pretrained("me/mine", cache_dir=tmp_path / "cache", local_files_only=True)
    assert loaded.metadata == METADATA and loaded.source == "me/mine"


def test_a_push_without_network_says_what_to_do(network, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"cannot be pushed to 'me/mine' .*hf auth login") as error:
        network.push_to_hub("me/mine", token="none")
    assert "\n" not in str(error.value)


def test_damaged_weights_are_refused(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not the file that"):
        from_pretrained(folder)
    for other in (b"no tensors at all", save({"x": torch.zeros(1)})):
        path.write_bytes(other)
        vouch(folder)
        with pytest.raises(CheckpointError, match="is no safetensors file of a checkpoint"):
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
    forge(folder, tensors=tensors)
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(folder)


def test_nothing_is_unpickled(folder):
    """A pickle in place of the weights is refused by its bytes, not by running it."""
    torch.save({"head.1.bias": torch.zeros(3)}, folder / "model.safetensors")
    vouch(folder)
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "endless"])
def test_no_part_of_a_checkpoint_is_read_without_end(name, kind, folder):
    (folder / name).unlink()
    os.mkfifo(folder / name) if kind == "pipe" else (folder / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="a pipe, a socket or a device"):
        from_pretrained(folder)
