"""AHMSANet: the network with its checkpoints, in a folder or on the Hugging Face Hub.

A checkpoint is what `mer-bench fit` writes too: `config.json`, `model.safetensors` with a copy of the config
in its header, and a model card. Nothing in it is executed on loading.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from ahmsa_model import __version__
from ahmsa_model.config import AHMSAConfig, Values
from ahmsa_model.errors import CheckpointError, ConfigError
from ahmsa_model.network import Hierarchy

FORMAT = "mer-checkpoint"
FORMAT_VERSION = 2
MODEL = "ahmsa"
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
#: Largest config.json, in bytes; ours have a few kilobytes.
MAX_CONFIG = 1 << 20

_CARD = """---
{{ card_data }}
---

# AHMSA-Net

Micro-expression recognition from a flow map (u, v, strain), reconstructed from
[arXiv:2501.02539]({{ paper_url }}); {{ "{:,}".format(parameters) }} parameters.
Load it with `ahmsa_model.AHMSANet.from_pretrained(...)`.

- Classes: {{ metadata.classes | join(", ") or "not recorded" }}
- Label scheme: {{ metadata.scheme or "not recorded" }}
- Input: {{ metadata.view or "not recorded" }}, normalisation {{ metadata.normalisation or "not recorded" }}
- Pipeline from frames to maps: {{ metadata.pipeline_hash or "not recorded" }}

Training: {% if metadata.training %}

```json
{{ metadata.training | tojson(indent=2) }}
```
{% else %}not recorded.
{% endif %}
"""


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


class AHMSANet(
    Hierarchy,
    PyTorchModelHubMixin,
    library_name="ahmsa-model",
    tags=["micro-expression", "optical-flow"],
    paper_url="https://arxiv.org/abs/2501.02539",
    model_card_template=_CARD,
):
    """AHMSA-Net with its checkpoints: `save_pretrained`, `push_to_hub` and `from_pretrained`.

    Attributes:
        metadata: What it was trained for; set it before saving.
        source: The folder or hub id that it was read from; empty for a new one.
        card: The model card that lay beside it; empty where one is to be made.

    >>> network = AHMSANet.from_variant("tiny")
    >>> network(torch.zeros(2, 3, 28, 28)).shape
    torch.Size([2, 3])
    """

    def __init__(self, config: AHMSAConfig | None = None) -> None:
        super().__init__(config)
        self.metadata = CheckpointMetadata()
        self.source = ""
        self.card = ""

    def save_pretrained(self, save_directory: Path | str, **options: Any) -> str | None:
        """Write a checkpoint; a reader sees a whole one, or is told that its files do not belong together.

        Args:
            save_directory: Made if need be. Files of an earlier checkpoint are replaced.
            **options: Of `huggingface_hub.ModelHubMixin.save_pretrained`.

        Raises:
            CheckpointError: The metadata do not fit the network, or the folder cannot be written.
        """
        try:
            return super().save_pretrained(save_directory, **options)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint {save_directory} cannot be written ({error.strerror or error}); "
                "choose another folder or free space"
            ) from error

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights and config; the mixin writes the card and uploads."""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "written_by": f"ahmsa-model {__version__}",
            "model": MODEL,
            "package": f"ahmsa-model {__version__}",
            "config": self.config.model_dump(),
            "metadata": self.metadata.model_dump(),
        }
        _check_classes(self.metadata, self.config, save_directory)
        try:
            sealed = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {save_directory}: the metadata cannot be written as JSON ({error}); "
                "give plain numbers, text, lists and objects"
            ) from error
        # clone: safetensors refuses tensors that share memory, as views of one buffer do.
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}
        weights = dump_tensors(tensors, metadata={"checkpoint": sealed})
        content["weights_sha256"] = hashlib.sha256(weights).hexdigest()
        (save_directory / CARD_FILE).unlink(missing_ok=True)  # the mixin keeps a card that it finds
        _write(save_directory / WEIGHTS_FILE, weights)
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        _write(save_directory / CONFIG_FILE, text.encode())

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the card that lay beside the weights, or one of what the metadata say."""
        if self.card:
            return ModelCard(self.card)
        return super().generate_model_card(
            *args, metadata=self.metadata, parameters=self.config.parameters, **kwargs
        )

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the checkpoint with its card; needs a network and `hf auth login`.

        Args:
            repo_id: As in `name/my-ahmsa`.
            **options: Of `huggingface_hub.ModelHubMixin.push_to_hub`, as `private=True`.

        Returns:
            The address of the commit.

        Raises:
            CheckpointError: The hub cannot be reached or does not take it.
        """
        try:
            return super().push_to_hub(repo_id, **options)
        except CheckpointError:
            raise
        except Exception as error:  # a network client raises errors of many trees
            raise CheckpointError(
                f"checkpoint cannot be pushed to '{repo_id}' ({_first_line(error)}); check the network and "
                "the name, and log in with `hf auth login`"
            ) from error

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, source: Path | str, device: torch.device | str = "cpu", **options: Any
    ) -> Self:
        """Read a checkpoint, of `mer-bench fit` or of `save_pretrained`.

        Args:
            source: Its folder, or a hub id as in `name/my-ahmsa`.
            device: Where the network goes.
            **options: Of `huggingface_hub.snapshot_download`, as `revision`, `token`, `local_files_only`.

        Returns:
            The network in evaluation mode, with its metadata.

        Raises:
            CheckpointError: A file is missing or damaged, was written by another version, does not belong to
                the other, holds an unknown key, or a tensor is missing, unexpected, of another shape or not
                finite; the message names it.
        """
        folder = _folder(source, options)
        config, metadata, tensors = _read_checkpoint(folder)
        with torch.device("meta"):
            network = cls(config)
        _check_tensors(network.state_dict(), tensors, folder / WEIGHTS_FILE)
        network.load_state_dict(tensors, assign=True)
        network.metadata, network.source = metadata, str(source)
        card = folder / CARD_FILE
        network.card = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        return network.requires_grad_().to(device).eval()


def _folder(source: Path | str, options: Mapping[str, Any]) -> Path:
    """Return the folder of a checkpoint, downloaded where `source` is a hub id."""
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, Path) or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise CheckpointError(
            f"checkpoint folder {source} does not exist; give the folder that holds {CONFIG_FILE}, "
            "or a hub id as in name/my-ahmsa"
        )
    try:
        wanted = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
        return Path(snapshot_download(str(source), allow_patterns=wanted, **options))
    except (OSError, ValueError) as error:  # those of huggingface_hub are of these kinds
        raise CheckpointError(
            f"checkpoint '{source}' is no folder here, and the hub does not give it ({_first_line(error)}); "
            "check the name and the network, log in with `hf auth login` if it is private, or download it "
            f"elsewhere with `hf download {source} --local-dir FOLDER` and give the folder"
        ) from error


def _read_checkpoint(folder: Path) -> tuple[AHMSAConfig, CheckpointMetadata, dict[str, Tensor]]:
    """Read what a checkpoint says, after making sure that it is what was said when its weights were saved."""
    path = folder / CONFIG_FILE
    content = _read_json(path)
    weights = _read(folder / WEIGHTS_FILE)
    digest, expected = hashlib.sha256(weights).hexdigest(), str(content.pop("weights_sha256", "missing"))
    if digest != expected:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} is not the file that {CONFIG_FILE} was written with (SHA-256 "
            f"{digest[:12]}..., expected {expected[:12]}...); copy both files again, or save it anew"
        )
    try:
        tensors = load_tensors(weights)
        header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
        sealed = json.loads(header["__metadata__"]["checkpoint"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} is no safetensors file of a checkpoint ({error}); copy it again"
        ) from error
    for name, kept, found in _differences(sealed, content):
        raise CheckpointError(
            f"{path} was changed: {name} is {found}, and the weights were saved with {kept}; "
            "copy the file again, or train with the other value"
        )
    try:
        config, metadata = AHMSAConfig(**content["config"]), CheckpointMetadata(**content["metadata"])
    except (ConfigError, CheckpointError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    _check_classes(metadata, config, folder)
    return config, metadata, tensors


def _read_json(path: Path) -> dict[str, Any]:
    """Read a config of this format and model; nothing of it is believed yet."""
    try:
        content = json.loads(_read(path, MAX_CONFIG))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no JSON ({error}); copy it again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint: it lacks 'format': '{FORMAT}'")
    version, writer = content.get("format_version"), content.get("written_by", "an unknown program")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {version!r}, ahmsa-model {__version__} reads {FORMAT_VERSION}; "
            f"it was written by {writer}: install that one, or train it anew with `mer-bench fit`"
        )
    if content.get("model") != MODEL:
        raise CheckpointError(
            f"{path} is a checkpoint of '{content.get('model')}', not of AHMSA-Net; "
            "`mer-bench predict` reads those of every network"
        )
    for part in ("config", "metadata"):
        if not isinstance(content.get(part), dict):
            raise CheckpointError(f"{path} lacks the object '{part}'; copy it again")
    return content


def _differences(kept: Any, found: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the dotted name, the kept and the found value, of everything that differs."""
    if isinstance(kept, dict) and isinstance(found, dict):
        for key in sorted(kept.keys() | found.keys()):
            there, here = kept.get(key, "absent"), found.get(key, "absent")
            yield from _differences(there, here, f"{name}.{key}" if name else key)
    elif json.dumps(kept) != json.dumps(found):  # 1, 1.0 and true are equal in Python
        yield name, _short(kept), _short(found)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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


def _read(path: Path, limit: int | None = None) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) and not path.is_dir():  # reading it may never end
            raise CheckpointError(f"{path} is a pipe, a socket or a device, expected a file")
        if limit is not None and found.st_size > limit:
            raise CheckpointError(
                f"{path} has {found.st_size} bytes, a config at most {limit}; copy it again"
            )
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
