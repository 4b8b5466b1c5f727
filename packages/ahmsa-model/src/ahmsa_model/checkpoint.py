"""Checkpoints: a folder with `config.json` and `model.safetensors`; nothing in it is executed on loading."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from ahmsa_model import __version__
from ahmsa_model.config import AHMSAConfig, Values
from ahmsa_model.errors import CheckpointError, ConfigError
from ahmsa_model.network import Hierarchy

FORMAT = "ahmsa-checkpoint"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class CheckpointMetadata(Values):
    """What one must know to use a network on new images.

    Attributes:
        classes: Class names in the order of the logits; empty where unknown.
        scheme: The label scheme they come from.
        view: The view the network was trained on, as in `regions-28`.
        normalisation: Its normalisation, as in `scaled`.
        pipeline: The store's `pipeline` record: how frames became flow.
        pipeline_hash: The store's `pipeline_hash`.
        training: Where the weights come from: databases, subjects, recipe, seed, epochs; any JSON values.

    Raises:
        CheckpointError: A name is unknown (the nearest is suggested) or a value has the wrong type.
    """

    what = "checkpoint metadata"
    error = CheckpointError

    classes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    scheme: str = ""
    view: str = ""
    normalisation: str = ""
    pipeline: dict[str, Any] = Field(default_factory=dict)
    pipeline_hash: str = ""
    training: dict[str, Any] = Field(default_factory=dict)


class AHMSANet(Hierarchy):
    """AHMSA-Net with its checkpoints.

    >>> network = AHMSANet.from_variant("tiny")
    >>> network(torch.zeros(2, 3, 28, 28)).shape
    torch.Size([2, 3])
    """

    def save_pretrained(
        self, folder: Path | str, metadata: CheckpointMetadata | Mapping[str, Any] | None = None
    ) -> Path:
        """Write a checkpoint; a reader sees the old one or the new one, or is told that they are mixed.

        Args:
            folder: Made if need be. Files of an earlier checkpoint are replaced.
            metadata: What the network was trained for; also as plain values under the same names.

        Raises:
            CheckpointError: The metadata do not fit the network, or the folder cannot be written.
        """
        folder = Path(folder)
        if not isinstance(metadata, CheckpointMetadata):
            metadata = CheckpointMetadata(**(metadata or {}))
        _check_classes(metadata, self.config, folder)
        # clone: safetensors refuses tensors that share memory, as views of one buffer do.
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}
        weights = dump_tensors(tensors, metadata={"format": "pt"})
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "ahmsa_model": __version__,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "config": self.config.model_dump(),
            "metadata": metadata.model_dump(),
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

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: torch.device | str = "cpu") -> AHMSANet:
        """Read the network of a checkpoint; `ahmsa_model.from_pretrained` gives its metadata too."""
        return from_pretrained(folder, device).network


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        network: In evaluation mode.
        metadata: What it was trained for.
        folder: Where it was read from.
    """

    network: AHMSANet
    metadata: CheckpointMetadata
    folder: Path


def from_pretrained(folder: Path | str, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint.

    Args:
        folder: What `AHMSANet.save_pretrained` wrote.
        device: Where the network goes.

    Raises:
        CheckpointError: A file is missing or damaged, was written by another version, holds an unknown key,
            or a tensor is missing, unexpected, of another shape or not finite; the message names it.
    """
    folder = Path(folder)
    config, metadata, expected = _read_config(folder)
    path = folder / WEIGHTS_FILE
    weights = _read(path)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != expected:
        raise CheckpointError(
            f"{path} is not the file that {CONFIG_FILE} was written with (SHA-256 {digest[:12]}..., "
            f"expected {expected[:12]}...); copy both files again, or save the checkpoint anew"
        )
    try:
        tensors = load_tensors(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file ({error}); copy it again") from error
    with torch.device("meta"):
        network = AHMSANet(config)
    _check_tensors(network.state_dict(), tensors, path)
    network.load_state_dict(tensors, assign=True)
    return Checkpoint(network.requires_grad_().to(device).eval(), metadata, folder)


def _read_config(folder: Path) -> tuple[AHMSAConfig, CheckpointMetadata, str]:
    """Return options, metadata and the digest of the weights that they were written with."""
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
    version, writer = content.get("format_version"), content.get("ahmsa_model", "of unknown version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {version!r}, this ahmsa-model {__version__} reads "
            f"{FORMAT_VERSION}; it was written by ahmsa-model {writer}: install that one"
        )
    for part in ("config", "metadata"):
        if not isinstance(content.get(part), dict):
            raise CheckpointError(f"{path} lacks the object '{part}'; copy it again")
    try:
        config = AHMSAConfig(**content["config"])
        metadata = CheckpointMetadata(**content["metadata"])
    except (ConfigError, CheckpointError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    _check_classes(metadata, config, folder)
    return config, metadata, str(content.get("weights_sha256"))


def _check_classes(metadata: CheckpointMetadata, config: AHMSAConfig, folder: Path) -> None:
    if metadata.classes and len(metadata.classes) != config.num_classes:
        raise CheckpointError(
            f"checkpoint {folder}: the metadata name {len(metadata.classes)} classes "
            f"{list(metadata.classes)}, but the network has {config.num_classes} outputs; "
            "name one class per output"
        )


def _check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    for name in (*expected, *found):
        if name not in found:
            raise CheckpointError(
                f"{path} lacks tensor '{name}', which {CONFIG_FILE} asks for; save the checkpoint anew"
            )
        if name not in expected:
            raise CheckpointError(f"{path} holds tensor '{name}', which {CONFIG_FILE} knows nothing of")
    for name, wanted in expected.items():
        if found[name].shape != wanted.shape:
            raise CheckpointError(
                f"{path}: tensor '{name}' has shape {tuple(found[name].shape)}, but {CONFIG_FILE} asks for "
                f"{tuple(wanted.shape)}; the two files belong to different networks"
            )
        if not torch.isfinite(found[name]).all():
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
