"""Checkpoints of every registered network; read as the file of a stranger, of which nothing is executed.

A folder with `config.json`, `model.safetensors` and a model card. The header of the weights holds a copy of
the config, and the config the digest of the weights: damage, and a change of one of them, is found; a forger
who writes both anew is not. AHMSA-Net reads and writes the same format by itself.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from mer_bench import __version__
from mer_bench.errors import CheckpointError, MerBenchError
from mer_bench.models.registry import Registered, Registry
from mer_bench.models.spec import ModelSpec
from mer_bench.recipe import Recipe
from mer_bench.resolve import MAX_OPTION, resolve
from mer_bench.settings import Request, RunSettings
from mer_bench.training.network import bounded, build_network, fold_generators
from mer_flow.store.schema import canonical_json, differing_keys
from mer_flow.work.files import size_of, write_whole
from mer_flow.work.plugins import contained
from mer_flow.work.settings import Settings

FORMAT = "mer-checkpoint"
FORMAT_VERSION = 2
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
#: Largest config.json, in bytes; ours have a few kilobytes.
MAX_CONFIG = 1 << 20
#: Seed of a kept network before its weights are read; no fold has it.
_SEED = 20_260_101


class Metadata(Settings):
    """What one must know to use a network on new samples.

    Attributes:
        classes: Class names in the order of the logits.
        scheme: The label scheme they come from.
        view: The view it was trained on, as in `regions-28`.
        normalisation: Its normalisation, as in `scaled`.
        pipeline: The store's `pipeline`: how frames became flow.
        pipeline_hash: The store's `pipeline_hash`.
        training: Where the weights come from.
    """

    where = "metadata"
    error = CheckpointError

    classes: tuple[str, ...] = ()
    scheme: str = ""
    view: str = ""
    normalisation: str = ""
    pipeline: dict[str, Any] = Field(default_factory=dict)
    pipeline_hash: str = ""
    training: dict[str, Any] = Field(default_factory=dict)


class Record(Settings):
    """What `config.json` says.

    Attributes:
        written_by: Program and version.
        model: Registry name.
        package: The distribution that brought the model, with its version.
        config: Keyword arguments of the model's builder, all of them.
    """

    where = "config.json"
    error = CheckpointError

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    written_by: str = f"mer-bench {__version__}"
    model: str
    package: str
    config: dict[str, Any]
    metadata: Metadata = Field(default_factory=Metadata)


@dataclass(frozen=True)
class Checkpoint:
    """A network that was kept.

    Attributes:
        network: In evaluation mode.
        record: What its config says.
        spec: Its model.
        folder: Where it was read from.
        notes: What a reader of its predictions should know, such as another version of the model.
    """

    network: nn.Module
    record: Record
    spec: ModelSpec
    folder: Path
    notes: tuple[str, ...] = ()

    @property
    def metadata(self) -> Metadata:
        """What it was trained for."""
        return self.record.metadata

    @property
    def recipe(self) -> Recipe | None:
        """How it was trained; None where the checkpoint does not say."""
        recorded = self.metadata.training.get("recipe")
        return Recipe(**recorded) if isinstance(recorded, dict) else None

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of its maps."""
        channels, size = self.record.config["in_channels"], self.record.config["map_size"]
        return channels, size, size


def record_of(
    registered: Registered, options: Mapping[str, Any], shape: tuple[int, ...], metadata: Metadata
) -> Record:
    """Return what a checkpoint's config says of a network.

    Args:
        registered: Its model.
        options: What its builder was given; the defaults of the rest are recorded too.
        shape: `(C, H, W)` of its maps.
        metadata: What it was trained for.
    """
    told = {"num_classes": len(metadata.classes), "in_channels": shape[0], "map_size": shape[1]}
    config = {**_defaults(registered.spec), **options, **told}
    spec, package = registered.spec, registered.package
    return Record(model=spec.name, package=package, config=config, metadata=metadata)


def write_checkpoint(folder: Path, network: nn.Module, record: Record, card: str) -> None:
    """Write a checkpoint into a folder.

    Args:
        folder: It exists.
        network: What is kept.
        record: What `config.json` says.
        card: The model card, Markdown.

    Raises:
        CheckpointError: The record cannot be written as JSON.
        OSError: A file cannot be written.
    """
    content = record.model_dump(mode="json")
    try:
        sealed = canonical_json(content)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {folder}: what it says cannot be written as JSON ({error}); "
            "give plain numbers, text, lists and objects"
        ) from error
    # clone: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in network.state_dict().items()}
    weights = dump_tensors(tensors, metadata={"checkpoint": sealed})
    content["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    write_whole(folder / WEIGHTS_FILE, weights)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / CONFIG_FILE, text.encode())
    write_whole(folder / CARD_FILE, card.encode())


def read_checkpoint(
    folder: Path, device: torch.device | str = "cpu", registered: Registered | None = None
) -> Checkpoint:
    """Read a checkpoint, of `mer-bench fit` or of `AHMSANet.save_pretrained`.

    Args:
        folder: Its folder.
        device: Where the network goes.
        registered: The model, where no installed package has it, as that of a file.

    Raises:
        CheckpointError: A file is missing or damaged, was written by another version, does not belong to the
            other, or the model cannot be built with its config and weights; the message names it.
    """
    record, tensors = _read_sealed(folder)
    registered = registered or _find(record, folder)
    if registered.spec.name != record.model:
        raise CheckpointError(
            f"checkpoint {folder} is of model '{_short(record.model)}', not of '{registered.spec.name}'; "
            "give the model that it was trained with, its code unchanged"
        )
    network = _built(registered.spec, record, tensors, folder)
    network.load_state_dict(tensors)
    notes: tuple[str, ...] = ()
    if registered.package != record.package:
        notes = (f"trained with {record.model} of {record.package}; here it is that of {registered.package}",)
    return Checkpoint(network.to(device).eval(), record, registered.spec, folder, notes)


def _read_sealed(folder: Path) -> tuple[Record, dict[str, Tensor]]:
    """Read both files, after making sure that they belong together and say the same."""
    path = folder / WEIGHTS_FILE
    content = _read_config(folder)
    weights = _read(path)
    digest, expected = hashlib.sha256(weights).hexdigest(), str(content.pop("weights_sha256", "missing"))
    if digest != expected:
        raise CheckpointError(
            f"{path} is not the file that {CONFIG_FILE} was written with (SHA-256 {digest[:12]}..., expected "
            f"{expected[:12]}...); copy both files again, or train it anew with `mer-bench fit`"
        )
    try:
        tensors = load_tensors(weights)
        header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
        sealed = json.loads(header["__metadata__"]["checkpoint"])
        different = differing_keys(sealed, content)
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is no safetensors file of a checkpoint ({error}); copy it again"
        ) from error
    for name, kept, found in different:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} was changed: {name} is {_short(found)}, and the weights were saved with "
            f"{_short(kept)}; copy the file again, or train with the other value"
        )
    try:
        return Record(**content), tensors
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise CheckpointError(
            f"checkpoint folder {folder} does not exist; give the folder that holds {CONFIG_FILE}, as "
            "`mer-bench fit --out FOLDER` writes it (from the hub: hf download NAME --local-dir FOLDER)"
        )
    try:
        content = json.loads(_read(path, MAX_CONFIG))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no JSON ({error}); copy it again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint: it lacks 'format': '{FORMAT}'")
    version, writer = content.get("format_version"), content.get("written_by", "an unknown program")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {_short(version)}, mer-bench {__version__} reads {FORMAT_VERSION}; "
            f"it was written by {_short(writer)}: install that one, or train it anew with `mer-bench fit`"
        )
    return content


def _read(path: Path, limit: int | None = None) -> bytes:
    try:
        size = size_of(path)
        if limit is not None and size > limit:
            raise CheckpointError(f"{path} has {size} bytes, a config at most {limit}; copy it again")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror or error}); "
            f"a checkpoint folder holds {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from error


def _find(record: Record, folder: Path) -> Registered:
    """Find the model among the installed packages' own; a name never imports anything else."""
    registry = Registry()
    if record.model not in registry.names:
        raise CheckpointError(
            f"checkpoint {folder} is of model '{_short(record.model)}', which no installed package has; "
            f"install {_short(record.package)}, or give --model FILE.py:FUNCTION where it is of a file"
        )
    return registry.find(record.model)


def _built(spec: ModelSpec, record: Record, tensors: Mapping[str, Tensor], folder: Path) -> nn.Module:
    """Build the network, first without memory: nothing larger than the weights' file is ever allocated."""
    told = {name: record.config.get(name) for name in ("num_classes", "in_channels", "map_size")}
    for name, value in _numbers(record.config):
        if value > MAX_OPTION:
            raise CheckpointError(f"checkpoint {folder}: '{name}' is {value}; at most {MAX_OPTION} is built")
    if spec.kind != "network" or not all(type(value) is int and value > 0 for value in told.values()):
        raise CheckpointError(
            f"checkpoint {folder}: '{record.model}' is no network, or its config lacks {', '.join(told)}"
        )
    options = {name: value for name, value in record.config.items() if name not in told}
    shape = told["in_channels"], told["map_size"], told["map_size"]
    try:
        given = {f"options.{name}": value for name, value in options.items()}
        typed = resolve(spec, Request(RunSettings(model=spec.name), given)).options
        build = (spec, typed, told["num_classes"], shape)
        with contained(), bounded(2 * len(tensors) + 8), torch.random.fork_rng(devices=[]):
            shell = build_network(*build, torch.device("meta"), stacked=False)  # type: ignore[arg-type]
        _check_tensors(shell.state_dict(), tensors, folder)
        cpu = torch.device("cpu")
        with contained(), fold_generators(_SEED, cpu):
            return build_network(*build, cpu, stacked=False)  # type: ignore[arg-type]
    except CheckpointError:
        raise
    except MerBenchError as error:
        raise CheckpointError(f"checkpoint {folder}: {error}") from error
    except Exception as error:  # a stranger's builder may raise anything
        raise CheckpointError(
            f"checkpoint {folder}: model '{spec.name}' cannot be built with its config "
            f"({type(error).__name__}: {error}); it was made with {_short(record.package)}"
        ) from error


def _check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    for name in sorted(expected.keys() ^ found.keys()):
        what = "lacks" if name in expected else "has beyond the network's own"
        raise CheckpointError(f"{path} {what} tensor '{name}'; the two files belong to different networks")
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


def _defaults(spec: ModelSpec) -> dict[str, Any]:
    """Return what a builder takes for options that it is not given, where that is a plain value."""
    found = {name: p.default for name, p in inspect.signature(spec.build).parameters.items()}
    config = getattr(spec.build, "config", None)
    for name, field in getattr(config, "model_fields", {}).items():
        found[name] = field.get_default(call_default_factory=True)
    plain = (bool, int, float, str, tuple, list, type(None))
    return {name: value for name, value in found.items() if isinstance(value, plain)}


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        several: Iterable[Any] = value if isinstance(value, (list, tuple)) else (value,)
        yield from ((name, number) for number in several if isinstance(number, (int, float)))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]} ..."
