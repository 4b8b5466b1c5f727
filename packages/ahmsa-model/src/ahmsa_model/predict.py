"""From two frames to class probabilities, through the pipeline that made the network's training maps.

Needs the extra `ahmsa-model[predict]`. Importing this module loads neither mer-flow nor its face models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ahmsa_model.checkpoint import AHMSANet, CheckpointMetadata
from ahmsa_model.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from mer_flow.config import PipelineConfig
    from mer_flow.extraction.extractor import Extracted


@dataclass(frozen=True)
class Prediction:
    """What the network says of one micro-expression, and what it saw.

    Attributes:
        classes: Class names in the order of `probabilities`.
        probabilities: `(C,)` float64, softmax of the logits.
        logits: `(C,)` float64.
        view: What was fed, as in `regions-28`.
        normalisation: How it was scaled.
        map: `(3, H, W)` float32, the very input of the network.
        extracted: Faces, flow, strain, landmarks and regions, from mer-flow.
        onset: The onset frame's file, or empty for an array.
        apex: The apex frame's file, or empty for an array.
        apex_source: `given`, or `spotted:<method>`.
        warnings: Every way in which this departs from how the training maps were made, and every fallback.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    logits: np.ndarray
    view: str
    normalisation: str
    map: np.ndarray
    extracted: Extracted
    onset: str
    apex: str
    apex_source: str
    warnings: tuple[str, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(np.argmax(self.probabilities))]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, without images and maps."""
        plain = ("view", "normalisation", "onset", "apex", "apex_source")
        return {
            "label": self.label,
            "probabilities": dict(zip(self.classes, self.probabilities.tolist(), strict=True)),
            "logits": dict(zip(self.classes, self.logits.tolist(), strict=True)),
            **{name: getattr(self, name) for name in plain},
            "fallbacks": list(self.extracted.notes.get("fallbacks", ())),
            "warnings": list(self.warnings),
        }


def predict_pair(
    network: AHMSANet | Path | str,
    onset: np.ndarray | Path | str,
    apex: np.ndarray | Path | str,
    *,
    cropped: bool = False,
    default_pipeline: bool = False,
    settings: Sequence[str] = (),
) -> Prediction:
    """Classify a micro-expression from its onset and apex frames.

    Args:
        network: A network read from a checkpoint, or the checkpoint's folder or hub id.
        onset: uint8 `(H, W)` or `(H, W, 3)` RGB, or an image file.
        apex: Of the same size.
        cropped: The frames are face crops already.
        default_pipeline: Use mer-flow's default pipeline where the checkpoint records none; the prediction
            carries a warning.
        settings: Parameters of the pipeline to change, as `faces.upsample=2`; each carries a warning.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        InputError: A frame cannot be read, holds no face, or the checkpoint does not say how its maps were
            made.
        MissingDependencyError: mer-flow or one of its face packages is absent.
    """
    network = loaded(network)
    with flow_errors():
        from mer_flow.databases.frames import read_frame

        config = pipeline_of(network, default_pipeline, settings)
        pair = (onset, apex)
        frames = [frame if isinstance(frame, np.ndarray) else read_frame(Path(frame)) for frame in pair]
        names = ["" if isinstance(frame, np.ndarray) else str(frame) for frame in pair]
        return predict_frames(network, config, frames, cropped, names, "given")


def view_map(
    flow: np.ndarray, regions: np.ndarray, view: str, normalisation: str, name: str = "this sample"
) -> np.ndarray:
    """Make one view of one sample, as reading a store would.

    Args:
        flow: `(3, S, S)` float32: u, v in px of the aligned face, strain.
        regions: `(5, 2)` float32 px on the aligned face.
        view: A view of flow, as in `regions-28`.
        normalisation: As in `scaled`.
        name: What messages call the sample.

    Returns:
        `(3, H, W)` float32.

    Raises:
        InputError: The view is none of flow.
        MerFlowError: The view or the normalisation is unknown, or the regions are implausible.
    """
    from mer_flow.views.layouts import cut_view
    from mer_flow.views.names import parse_view
    from mer_flow.views.normalise import NORMALISATIONS, normalise_maps
    from mer_flow.work.suggest import unknown

    parsed = parse_view(view)
    if normalisation not in NORMALISATIONS:
        raise unknown("normalisation", normalisation, NORMALISATIONS)
    side = flow.shape[-1]
    if parsed.size > side:
        raise InputError(f"view {view} is larger than the {side} px flow maps, and views only reduce")
    if parsed.is_image:
        raise InputError(f"view {view} is none of flow; AHMSA-Net reads whole-N, regions-N or htnet-N")
    if parsed.family == "whole" and parsed.size == side:  # the strain of the pair itself
        return normalise_maps(flow[None].copy(), normalisation, 1.0, side)[0]
    maps, pitch = cut_view(parsed, flow[None, :2], regions[None], [name])
    return normalise_maps(maps, normalisation, pitch, side)[0]


def predict_frames(
    network: AHMSANet,
    config: PipelineConfig,
    frames: Sequence[np.ndarray],
    cropped: bool,
    names: Sequence[str],
    apex_source: str,
) -> Prediction:
    """Classify an onset and an apex that are in memory, called `names` in messages; see `predict_pair`."""
    from mer_flow.extraction.extractor import extract_pair

    metadata = network.metadata
    extracted = extract_pair(frames[0], frames[1], config, cropped)
    # A store rounds flow to the type it keeps; the network was trained on that.
    kept = np.dtype(str(metadata.pipeline.get("keep", {}).get("dtype", "float16")))
    flow = extracted.flow.astype(kept).astype(np.float32)
    view = view_map(flow, extracted.regions, metadata.view, metadata.normalisation, names[1] or "the apex")
    like = next(network.parameters())
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(view[None]).to(like))[0].double().cpu()
    return Prediction(
        classes=metadata.classes or tuple(f"class {i}" for i in range(len(logits))),
        probabilities=torch.softmax(logits, 0).numpy(),
        logits=logits.numpy(),
        view=metadata.view,
        normalisation=metadata.normalisation,
        map=view,
        extracted=extracted,
        onset=names[0],
        apex=names[1],
        apex_source=apex_source,
        warnings=(*_warnings(metadata, config, extracted.notes), *_noise_warning(extracted.flow)),
    )


def _warnings(
    metadata: CheckpointMetadata, config: PipelineConfig, notes: Mapping[str, Any]
) -> tuple[str, ...]:
    from mer_flow.extraction.extractor import pipeline_record
    from mer_flow.store.schema import differing_keys

    pipeline = metadata.pipeline
    said = [f"fallback: {name}" for name in notes.get("fallbacks", ())]
    if not pipeline.get("config"):
        said.append("the checkpoint records no pipeline; mer-flow's default was used")
    else:
        differing = differing_keys(pipeline["config"], config.to_dict())
        said += [
            f"{key}: the training maps were made with {old}, this one with {new}"
            for key, old, new in differing
        ]
    recipe = metadata.training.get("recipe", {})
    for field in ("flip_average", "prior"):
        if isinstance(recipe, Mapping) and recipe.get(field):
            said.append(f"scored with {field} = {recipe[field]}; here the network answers as it is")
    now = pipeline_record(config)["versions"]
    for name, version in pipeline.get("versions", {}).items():
        if now.get(name) != version:
            said.append(f"{name}: the training maps were made with {version}, this one with {now.get(name)}")
    return tuple(said)


def _noise_warning(flow: np.ndarray) -> Iterator[str]:
    from mer_flow.flow.noise import NOISE_FLOOR, strongest

    found = strongest(flow)
    if found <= NOISE_FLOOR:
        yield (
            f"the strongest flow is {found:.2g} px of a 224 px face, within the noise of a still face "
            f"({NOISE_FLOOR:g} px): nothing moves that can be told from noise, so the classes mean nothing"
        )


def pipeline_of(network: AHMSANet, default_pipeline: bool, settings: Sequence[str]) -> PipelineConfig:
    """Return the pipeline that a checkpoint records, changed by `settings`; see `predict_pair`."""
    from mer_flow.config import PipelineConfig
    from mer_flow.store.schema import pipeline_hash
    from mer_flow.work.settings import layered, parse_sets

    metadata, named = network.metadata, network.source or "of this network"
    if not metadata.view or not metadata.normalisation:
        raise InputError(
            f"checkpoint {named} does not name its view and normalisation, so no input can be "
            "made for it; save it again with CheckpointMetadata(view=..., normalisation=...)"
        )
    if metadata.pipeline and pipeline_hash(metadata.pipeline) != metadata.pipeline_hash:
        raise InputError(
            f"checkpoint {named}: its pipeline is not the one that its pipeline_hash "
            f"{metadata.pipeline_hash[:12] or '(none)'} was made of; give both as the store has them"
        )
    if metadata.pipeline.get("config"):
        return PipelineConfig(**layered(metadata.pipeline["config"], parse_sets(settings)))
    if not default_pipeline:
        raise InputError(
            f"checkpoint {named} does not record how its training "
            "maps were made (imported maps?), so new frames cannot be treated alike; "
            "accept mer-flow's default pipeline with --default-pipeline"
        )
    return PipelineConfig(**layered(parse_sets(settings)))


def loaded(network: AHMSANet | Path | str) -> AHMSANet:
    """Return a network, read from its checkpoint unless it is one already."""
    return network if isinstance(network, AHMSANet) else AHMSANet.from_pretrained(network)


@contextmanager
def flow_errors() -> Iterator[None]:
    """Turn mer-flow's errors, and its absence, into this package's."""
    try:
        from mer_flow.work.errors import MerFlowError
        from mer_flow.work.errors import MissingDependencyError as MissingFlowDependencyError
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "predicting from frames needs mer-flow; in the checkout: "
            "pip install -e 'packages/mer-flow[faces]' -e 'packages/ahmsa-model[predict]'"
        ) from error
    try:
        yield
    except MissingFlowDependencyError as error:
        raise MissingDependencyError(str(error)) from error
    except MerFlowError as error:
        raise InputError(str(error)) from error
