"""Kept networks for other programs: an ONNX file or an exported torch program, compared with the original."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from mer_bench.errors import CheckpointError, RunError, UsageError
from mer_bench.weights.checkpoint import Checkpoint
from mer_flow.work.files import new_file
from mer_flow.work.libraries import extra_command

#: Largest difference of logits, relative to the larger of 1 and their size; rounding stays far below.
TOLERANCE = 1e-4
#: Sizes of the batches that are compared: the file must take any.
BATCHES = (1, 5, 32)
ENDINGS = {".onnx": "ONNX", ".pt2": "torch.export"}


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        form: `ONNX` or `torch.export`.
        difference: Largest difference of its logits from the network's, over all that were compared.
        size: Largest logit of the network among them, of either sign.
        compared: Maps that were compared.
    """

    path: Path
    form: str
    difference: float
    size: float
    compared: int


def export_model(
    checkpoint: Checkpoint, out: Path, maps: np.ndarray | None = None, overwrite: bool = False
) -> Exported:
    """Write a kept network for other programs, and compare what the file says with what the network says.

    The input is `maps`, `(batch, C, H, W)` float32 in the view and normalisation that the file's metadata
    `mer_checkpoint` name; the output is `logits`, `(batch, classes)`. What a recipe does to predictions
    besides, averaging a map with its mirror or taking out a prior, is not in it.

    Args:
        checkpoint: Read to the CPU.
        out: `*.onnx`, or `*.pt2` for `torch.export.load`.
        maps: `(N, C, H, W)` float32 to compare on; seeded noise unless given.
        overwrite: Replace a present file.

    Raises:
        UsageError: The ending is another, or the file is there.
        CheckpointError: onnx, onnxruntime or onnxscript is absent.
        RunError: The network cannot be exported, or the file answers otherwise.
    """
    form = ENDINGS.get(out.suffix.lower())
    if form is None:
        raise UsageError(f"--out {out}: the ending decides what is written; use {' or '.join(ENDINGS)}")
    network = checkpoint.network.eval()
    if maps is None:
        maps = np.random.default_rng(0).normal(size=(sum(BATCHES), *checkpoint.shape)).astype(np.float32)
    about = json.dumps(checkpoint.record.model_dump(mode="json"), ensure_ascii=False)
    with new_file(out, overwrite) as part, _quiet():
        program = _program(network, maps, checkpoint)
        write = _write_onnx if form == "ONNX" else _write_program
        answer = write(program, part, about)
        difference, size, compared = _compared(network, answer, maps)
        if difference > TOLERANCE * max(1.0, size):
            raise RunError(
                f"{form} of {checkpoint.folder} differs from the network by {difference:.2g} in logits of up "
                f"to {size:.2g}; nothing was written. Another version of torch or onnx may do better"
            )
    return Exported(out, form, difference, size, compared)


def _program(network: nn.Module, maps: np.ndarray, checkpoint: Checkpoint) -> ExportedProgram:
    # A batch of two: torch takes one for a constant.
    example = torch.from_numpy(np.resize(maps, (2, *checkpoint.shape)))
    try:
        return torch.export.export(network, (example,), dynamic_shapes=({0: Dim("batch", min=1, max=65536)},))
    except Exception as error:  # a stranger's forward may raise anything
        raise RunError(
            f"{checkpoint.folder}: the network of '{checkpoint.record.model}' cannot be exported "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); its forward depends on values or on "
            "the batch's size"
        ) from error


def _write_program(
    program: ExportedProgram, path: Path, about: str
) -> Callable[[torch.Tensor], torch.Tensor]:
    # The example is stored as a pickle, which nobody needs.
    program.example_inputs = None
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"mer_checkpoint.json": about})
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_onnx(program: ExportedProgram, path: Path, about: str) -> Callable[[torch.Tensor], torch.Tensor]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter is made of it
    except ImportError as error:
        raise CheckpointError(
            f"ONNX needs {error.name}; mend with: {extra_command('export', 'mer-bench')}"
        ) from error
    names = {"input_names": ["maps"], "output_names": ["logits"]}
    aten = torch.ops.aten
    program = program.run_decompositions({aten.median.dim: _sorted_median, aten.hypot.default: _root})
    try:
        found = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)  # type: ignore[arg-type]
    except torch.onnx.OnnxExporterError as error:
        why = next((line for line in str(error).splitlines() if "No ONNX function" in line), str(error))
        raise RunError(
            f"the network cannot be written as ONNX ({why.splitlines()[0]}); write .pt2"
        ) from error
    assert found is not None
    found.model.metadata_props["mer_checkpoint"] = about
    found.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(maps: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run(["logits"], {"maps": maps.numpy()})
        return torch.from_numpy(logits)

    return answer


def _sorted_median(x: torch.Tensor, dim: int, keepdim: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `torch.median`, which ONNX lacks, from a sort, which it has."""
    values, places = torch.sort(x, dim)
    middle = (x.shape[dim] - 1) // 2
    found = values.narrow(dim, middle, 1), places.narrow(dim, middle, 1)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


def _root(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Compute `torch.hypot`, which ONNX lacks."""
    return (x * x + y * y).sqrt()


@torch.no_grad()
def _compared(network: nn.Module, answer: Any, maps: np.ndarray) -> tuple[float, float, int]:
    differences, sizes, start = [0.0], [0.0], 0
    for count in BATCHES:
        batch = torch.from_numpy(maps[start : start + count])
        start += len(batch)
        if len(batch):
            expected, found = network(batch), answer(batch)
            differences.append(float((expected - found).abs().max()))
            sizes.append(float(expected.abs().max()))
    return max(differences), max(sizes), start


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from telling of what is not installed and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
