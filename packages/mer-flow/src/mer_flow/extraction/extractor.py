"""From an onset and an apex frame to aligned faces, flow, strain and regions.

Importing this loads neither OpenCV nor dlib nor MediaPipe; the first extraction does.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_flow.config import PipelineConfig, apply_settings, setting_keys
from mer_flow.extraction.extracted import Extracted, FoundFace, PreparedPair
from mer_flow.work.errors import FrameError
from mer_flow.work.libraries import load_cv2, load_torch, versions

if TYPE_CHECKING:
    from mer_flow.flow.base import FlowBackend
    from mer_flow.flow.stabilise import HeadMotion

__all__ = [
    "Extracted",
    "Extractor",
    "FoundFace",
    "PipelineConfig",
    "PreparedPair",
    "align_clip",
    "apply_settings",
    "extract_pair",
    "extractor",
    "flow_backend",
    "pipeline_record",
    "prepare_worker",
    "resolve",
    "setting_keys",
]


class Extractor:
    """The pipeline with its models loaded; one per process.

    Attributes:
        config: The parameters, region backend resolved.
    """

    def __init__(self, config: PipelineConfig) -> None:
        from mer_flow.faces.regions import get_region_backend
        from mer_flow.flow import get_backend

        self.config = resolve(config)
        self._flow = get_backend(self.config.flow.backend, self.config.flow.params, self.config.flow.options)
        self._regions = get_region_backend(self.config.regions.backend)

    @functools.cached_property
    def flow(self) -> FlowBackend:
        """The flow backend, loaded when first asked for: where another process computes the flow, never."""
        return flow_backend(self.config)

    def find_face(self, frame: np.ndarray, cropped: bool = False) -> FoundFace:
        """Finds the face of a frame, normally the onset, and its alignment.

        Args:
            frame: uint8 (H, W) or (H, W, 3) RGB.
            cropped: The frame comes from a cropped release: where no face is found in it, the whole crop is
                aligned canonically and that is recorded.

        Returns:
            The face.

        Raises:
            FaceError: No face in a frame that is not cropped.
            FrameError: The frame is no uint8 image.
        """
        from mer_flow.faces.align import crop_matrix, eye_matrix, outside_share, scale_of
        from mer_flow.faces.detect import detect_face, no_face
        from mer_flow.faces.landmarks import eye_centres, find_landmarks

        _check_frame(frame, "onset")
        found = detect_face(frame, self.config.faces, cropped)
        notes: dict[str, Any] = {"faces": 0, "face_score": None, "fallbacks": []}
        if found is not None:
            notes.update(faces=len(found.scores), face_score=round(found.score, 4))
            if len(found.scores) > 1:
                notes["face_scores"] = [round(score, 4) for score in found.scores]
                notes["fallbacks"].append("several-faces")
            if found.upsampled:
                notes["fallbacks"].append(f"face-upsampled-{found.upsampled}")
            if found.padded:
                notes["fallbacks"].append("face-on-padded-crop")
            box = found.box
            matrix = eye_matrix(*eye_centres(find_landmarks(frame, box)), self.config.align)
            notes["alignment"] = "eyes"
        elif cropped:
            height, width = frame.shape[:2]
            box = (0, 0, width - 1, height - 1)
            matrix = crop_matrix(frame.shape, self.config.align)
            notes["alignment"] = "whole-crop"
            notes["fallbacks"].append("no-face-in-crop")
        else:
            raise no_face(frame, self.config.faces)
        notes["box"] = list(box)
        notes["scale"] = round(scale_of(matrix), 4)
        notes["outside"] = round(outside_share(frame.shape, matrix, self.config.align), 4)
        return FoundFace(matrix, box, found is not None, notes)

    def align_clip(self, frames: Iterable[np.ndarray], face: FoundFace) -> list[np.ndarray]:
        """Aligns frames of one clip with one matrix.

        Args:
            frames: uint8 (H, W) or (H, W, 3) each.
            face: The face of the clip's onset.

        Returns:
            uint8 (S, S) or (S, S, 3) each.
        """
        from mer_flow.faces.align import warp

        return [warp(frame, face.matrix, self.config.align) for frame in frames]

    def align_grey(self, frames: Iterable[np.ndarray], face: FoundFace) -> list[np.ndarray]:
        """Aligns frames of one clip for flow between them.

        Args:
            frames: uint8 (H, W) or (H, W, 3) each.
            face: The face of the clip's onset.

        Returns:
            uint8 (S + 2 margin, S + 2 margin) each.
        """
        from mer_flow.faces.align import to_grey, warp

        align = self.config.align
        return [to_grey(warp(frame, face.matrix, align, align.margin_px)) for frame in frames]

    def extract_pair(self, onset: np.ndarray, apex: np.ndarray, cropped: bool = False) -> Extracted:
        """Computes everything that a store keeps of one sample.

        Args:
            onset: uint8 (H, W) or (H, W, 3) RGB.
            apex: The same shape.
            cropped: The frames come from a cropped release.

        Returns:
            Flow, landmarks, regions, alignment, faces, notes and times.

        Raises:
            FrameError: The frames are no uint8 images or differ in shape.
            FaceError: No face was found, or the regions failed without a fallback.
            FlowError: The flow failed.
        """
        pair = self.prepare_pair(onset, apex, cropped)
        start = time.perf_counter()
        flow = self.flow.compute(pair.grey[:1], pair.grey[1:])[0]
        seconds = time.perf_counter() - start
        found = self.finish_pair(pair, flow)
        return replace(found, seconds=found.seconds | {"flow": seconds})

    def prepare_pair(self, onset: np.ndarray, apex: np.ndarray, cropped: bool = False) -> PreparedPair:
        """Does what comes before the flow; see `extract_pair`, which this is the first part of."""
        from mer_flow.faces.align import to_grey, transform, warp
        from mer_flow.faces.landmarks import find_landmarks
        from mer_flow.faces.regions import locate_regions

        _check_frame(apex, "apex")
        if onset.shape != apex.shape:
            raise FrameError(
                f"the onset frame is {_shape(onset)} and the apex frame {_shape(apex)}; frames of one clip "
                "must have one shape: copy the clip again from the release"
            )
        align, margin = self.config.align, self.config.align.margin_px
        watch = _Watch({})
        with watch("detect"):
            face = self.find_face(onset, cropped)
            matrix, apex_face = face.matrix, face
            if align.reference == "each":
                apex_face = self.find_face(apex, cropped)
        with watch("landmarks"):
            landmarks = transform(apex_face.matrix, find_landmarks(apex, apex_face.box)).astype(np.float32)
        with watch("align"):
            onset_wide = warp(onset, matrix, align, margin)
            apex_wide = warp(apex, apex_face.matrix, align, margin)
        with watch("mesh"):
            regions = locate_regions(
                self._regions, apex_wide, landmarks + margin, self.config.regions, check_eyes=face.detected
            )
        notes = dict(face.notes, fallbacks=list(face.notes["fallbacks"]), region_backend=regions.backend)
        if np.isfinite(regions.eye_error):
            notes["region_eye_error"] = round(regions.eye_error, 4)
        if regions.fallback:
            notes["fallbacks"].append("regions-dlib")
            notes["region_fallback"] = regions.fallback
        inner = slice(margin, margin + align.size)
        return PreparedPair(
            grey=np.stack([to_grey(onset_wide), to_grey(apex_wide)]),
            landmarks=landmarks,
            regions=(regions.centres - margin).astype(np.float32),
            alignment=matrix,
            onset_face=np.ascontiguousarray(onset_wide[inner, inner]),
            apex_face=np.ascontiguousarray(apex_wide[inner, inner]),
            notes=notes,
            seconds=watch.seconds,
        )

    def finish_pair(self, pair: PreparedPair, flow: np.ndarray) -> Extracted:
        """Does what comes after the flow.

        Args:
            pair: From `prepare_pair`.
            flow: float32 (2, S + 2 margin, S + 2 margin) px, between its grey frames.

        Returns:
            As `extract_pair`.

        Raises:
            FlowError: The head's motion cannot be fitted.
        """
        from mer_flow.flow.strain import optical_strain, smooth

        margin, size = self.config.align.margin_px, self.config.align.size
        watch, notes = _Watch(pair.seconds), dict(pair.notes)
        with watch("stabilise"):
            flow, motion = self.without_head(flow, pair.landmarks)
        with watch("strain"):
            strain = optical_strain(smooth(flow, self.config.strain.smooth_sigma))
            inner = slice(margin, margin + size)
            maps = np.concatenate([flow, strain[None]])[:, inner, inner].astype(np.float32)
        if motion is not None:
            notes["head_motion"] = {
                "dx": round(motion.dx, 4),
                "dy": round(motion.dy, 4),
                "rotation": round(motion.rotation, 5),
                "scale": round(motion.scale, 6),
                "inliers": round(motion.inliers, 4),
            }
        return Extracted(
            flow=maps,
            landmarks=pair.landmarks,
            regions=pair.regions,
            alignment=pair.alignment,
            onset_face=pair.onset_face,
            apex_face=pair.apex_face,
            notes=notes,
            seconds=watch.seconds,
        )

    def without_head(self, flow: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, HeadMotion | None]:
        """Removes the head's own motion from a flow, margin included; `landmarks` as in `Extracted`."""
        from mer_flow.faces.landmarks import face_mask
        from mer_flow.flow.stabilise import stabilise

        mask = face_mask(landmarks + self.config.align.margin_px, (flow.shape[1], flow.shape[2]))
        return stabilise(flow, mask, self.config.stabilise)


class _Watch:
    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = dict(seconds)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def _shape(frame: np.ndarray) -> str:
    kind = "grey" if frame.ndim == 2 else "colour"
    return f"{frame.shape[1]}x{frame.shape[0]} px {kind}"


def _check_frame(frame: np.ndarray, label: str) -> None:
    if frame.dtype != np.uint8 or not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 3)):
        raise FrameError(f"{label} must be uint8 (H, W) or (H, W, 3) RGB, got {frame.dtype} {frame.shape}")


def resolve(config: PipelineConfig) -> PipelineConfig:
    """Replaces every `auto` by what it means here: the region backend, and the flow's border and device.

    Args:
        config: Any configuration.

    Returns:
        One whose hash names what is really used.

    Raises:
        UsageError: The flow backend or this machine cannot meet an option.
        MissingDependencyError: A library is absent or broken.
    """
    from mer_flow.faces.regions import resolve_backend
    from mer_flow.flow.factory import resolve_options

    name, _ = resolve_backend(config.regions.backend)
    options = resolve_options(config.flow.backend, config.flow.options)
    flow = replace(config.flow, **{item.name: getattr(options, item.name) for item in fields(options)})
    return replace(config, regions=replace(config.regions, backend=name), flow=flow)


def flow_backend(config: PipelineConfig) -> FlowBackend:
    """Builds the flow backend of a configuration; see `mer_flow.flow.get_backend`."""
    from mer_flow.flow import get_backend

    return get_backend(config.flow.backend, config.flow.params, config.flow.options)


def extractor(config: PipelineConfig) -> Extractor:
    """Returns this process's extractor for a configuration, its models loaded once."""
    return _extractor(resolve(config))


@functools.lru_cache(maxsize=2)
def _extractor(config: PipelineConfig) -> Extractor:
    return Extractor(config)


def prepare_worker(config: PipelineConfig, flow: bool = True) -> Extractor:
    """Readies a worker process: one thread per library, models loaded.

    Args:
        config: The configuration it will work with.
        flow: Whether it will compute flow, so that the backend is loaded too.

    Returns:
        Its extractor.
    """
    from mer_flow.faces.detect import load_detector
    from mer_flow.faces.landmarks import load_predictor

    cv2 = load_cv2()
    cv2.setNumThreads(1)
    cv2.ocl.setUseOpenCL(False)
    load_detector()
    load_predictor()
    engine = extractor(config)
    if flow:
        if engine.config.flow.backend == "torch-tvl1":
            load_torch().set_num_threads(1)
        _ = engine.flow
    return engine


def extract_pair(
    onset: np.ndarray, apex: np.ndarray, config: PipelineConfig | None = None, cropped: bool = False
) -> Extracted:
    """Computes flow, strain, landmarks and regions of one pair; see `Extractor.extract_pair`."""
    return extractor(config or PipelineConfig()).extract_pair(onset, apex, cropped)


def align_clip(
    frames: Iterable[np.ndarray],
    onset: np.ndarray,
    config: PipelineConfig | None = None,
    cropped: bool = False,
) -> list[np.ndarray]:
    """Aligns frames of one clip with the onset's matrix; see `Extractor.align_clip`."""
    engine = extractor(config or PipelineConfig())
    return engine.align_clip(frames, engine.find_face(onset, cropped))


def pipeline_record(config: PipelineConfig) -> dict[str, Any]:
    """Returns what a store writes down about its making.

    Args:
        config: Any configuration; `auto` is resolved.

    Returns:
        `config` (nested parameters), `hash` (of them), `versions` (libraries, flow backend, region backend).

    Raises:
        MissingDependencyError: A library of the pipeline is absent or broken.
    """
    from mer_flow.faces.regions import backend_version as region_version
    from mer_flow.flow.factory import backend_version as flow_version

    config = resolve(config)
    return {
        "config": config.to_dict(),
        "hash": config.hash(),
        "versions": versions()
        | {
            "flow_backend": flow_version(config.flow.backend, config.flow.options),
            "region_backend": region_version(config.regions.backend),
        },
    }
