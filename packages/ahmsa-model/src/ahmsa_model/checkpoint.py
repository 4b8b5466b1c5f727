"""Checkpoints: a folder with `config.json` and `model.safetensors`; nothing in it is executed on loading."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from ahmsa_model import __version__
from ahmsa_model.config import AHMSAConfig
from ahmsa_model.errors import CheckpointError, ConfigError, unknown_name
from ahmsa_model.network import AHMSANet

FORMAT = "ahmsa-checkpoint"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class CheckpointMetadata:
    """What one must know to use a network on new images.

    Attributes:
        classes: Class names in the order of the logits; empty where unknown.
        scheme: The label scheme they come from.
        view: The view the network was trained on, as in `regions-28`.
        normalisation: Its normalisation, as in `scaled`.
        pipeline: The store's `pipeline` record: how frames became flow.
        pipeline_hash: The store's `pipeline_hash`.
        training: Where the weights come from: databases, subjects, recipe, seed, epochs; any JSON values.
    """

    classes: tuple[str, ...] = ()
    scheme: str = ""
    view: str = ""
    normalisation: str = ""
    pipeline: Mapping[str, Any] = field(default_factory=dict)
    pipeline_hash: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CheckpointMetadata:
        """Builds metadata from JSON values.

        Args:
            values: Attribute name to value; absent ones are empty.

        Returns:
            The metadata.

        Raises:
            CheckpointError: A key is unknown (the nearest is suggested) or a value has the wrong type.
        """
        known = {item.name: item for item in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise CheckpointError(unknown_name("checkpoint metadata", name, known))
            kind = list | tuple if name == "classes" else Mapping if name in _MAPPINGS else str
            if not isinstance(value, kind):
                raise CheckpointError(f"checkpoint metadata '{name}' must be {_KINDS[kind]}, got {value!r}")
        return cls(**{**values, "classes": tuple(values.get("classes", ()))})

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "classes": list(self.classes)}


_MAPPINGS = ("pipeline", "training")
_KINDS: dict[Any, str] = {list | tuple: "a list of names", Mapping: "an object", str: "text"}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        network: The network, in evaluation mode.
        metadata: What it was trained for.
        folder: Where it was read from.
        weights_sha256: Digest of the weights file.
    """

    network: AHMSANet
    metadata: CheckpointMetadata
    folder: Path
    weights_sha256: str


def save_pretrained(
    network: AHMSANet,
    folder: Path | str,
    metadata: CheckpointMetadata | Mapping[str, Any] | None = None,
) -> Path:
    """Writes a checkpoint; a reader sees the old one or the new one, or is told that they are mixed.

    Args:
        network: The network; its floating-point type is kept.
        folder: Made if need be. Files of an earlier checkpoint are replaced.
        metadata: What the network was trained for; also as plain values under the same names.

    Returns:
        The folder.

    Raises:
        CheckpointError: The metadata do not fit the network, or the folder cannot be written.
    """
    folder = Path(folder)
    if not isinstance(metadata, CheckpointMetadata):
        metadata = CheckpointMetadata.from_dict(metadata or {})
    _check_classes(metadata, network.config, folder)
    # clone: safetensors refuses tensors that share memory, as views of one buffer do.
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    weights = dump_tensors(tensors, metadata={"format": "pt"})
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "ahmsa_model": __version__,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "config": network.config.to_dict(),
        "metadata": metadata.to_dict(),
    }
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {folder}: the metadata cannot be written as JSON ({error}); "
            "give plain numbers, text, lists and objects"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / WEIGHTS_FILE, weights)
        _write(folder / CONFIG_FILE, text.encode())
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {folder} cannot be written ({error.strerror or error}); "
            "choose another folder or free space"
        ) from error
    return folder


def from_pretrained(folder: Path | str, device: torch.device | str = "cpu") -> Checkpoint:
    """Reads a checkpoint.

    Args:
        folder: What `save_pretrained` wrote.
        device: Where the network goes.

    Returns:
        The network in evaluation mode, and its metadata.

    Raises:
        CheckpointError: A file is missing or damaged, was written by another version, holds an unknown key,
            or a tensor is missing, unexpected, of another shape or not finite; the message names it.
    """
    folder = Path(folder)
    content = _read_config(folder)
    config, metadata = _parse_config(content, folder)
    path = folder / WEIGHTS_FILE
    weights = _read(path)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != content.get("weights_sha256"):
        raise CheckpointError(
            f"{path} is not the file that {CONFIG_FILE} was written "
            f"with (SHA-256 {digest[:12]}..., expected {str(content.get('weights_sha256'))[:12]}...); "
            "copy both files again, or save the checkpoint anew"
        )
    try:
        tensors = load_tensors(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file ({error}); copy it again") from error
    with torch.device("meta"):
        network = AHMSANet(config)
    _check_tensors(network, tensors, path)
    network.load_state_dict(tensors, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return Checkpoint(network.to(device).eval(), metadata, folder, digest)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise CheckpointError(
            f"checkpoint folder {folder} does not exist; give the folder that holds {CONFIG_FILE}"
        )
    try:
        content = json.loads(_read(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error}); copy it again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no AHMSA-Net checkpoint: it lacks 'format': '{FORMAT}'")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {version!r}, "
            f"this ahmsa-model {__version__} reads {FORMAT_VERSION}; it was written by ahmsa-model "
            f"{content.get('ahmsa_model', 'of unknown version')}: install that one"
        )
    return content


def _parse_config(content: Mapping[str, Any], folder: Path) -> tuple[AHMSAConfig, CheckpointMetadata]:
    path = folder / CONFIG_FILE
    for part in ("config", "metadata"):
        if not isinstance(content.get(part), dict):
            raise CheckpointError(f"{path} lacks the object '{part}'; copy it again")
    try:
        config = AHMSAConfig.from_dict(content["config"])
        metadata = CheckpointMetadata.from_dict(content["metadata"])
    except (ConfigError, CheckpointError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    _check_classes(metadata, config, folder)
    return config, metadata


def _check_classes(metadata: CheckpointMetadata, config: AHMSAConfig, folder: Path) -> None:
    if metadata.classes and len(metadata.classes) != config.num_classes:
        raise CheckpointError(
            f"checkpoint {folder}: the metadata name {len(metadata.classes)} classes "
            f"{list(metadata.classes)}, but the network has {config.num_classes} outputs; "
            "name one class per output"
        )


def _check_tensors(network: AHMSANet, tensors: Mapping[str, Tensor], path: Path) -> None:
    expected = network.state_dict()
    for name in expected:
        if name not in tensors:
            raise CheckpointError(
                f"{path} lacks tensor '{name}', which {CONFIG_FILE} asks for; save the checkpoint anew"
            )
    for name in tensors:
        if name not in expected:
            raise CheckpointError(f"{path} holds tensor '{name}', which {CONFIG_FILE} knows nothing of")
    for name, wanted in expected.items():
        if tensors[name].shape != wanted.shape:
            raise CheckpointError(
                f"{path}: tensor '{name}' has shape {tuple(tensors[name].shape)}, but {CONFIG_FILE} asks for "
                f"{tuple(wanted.shape)}; the two files belong to different networks"
            )
        if not torch.isfinite(tensors[name]).all():
            raise CheckpointError(
                f"{path}: tensor '{name}' holds NaN or infinite values; its training diverged"
            )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error}); "
            f"a checkpoint folder holds {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from error


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
