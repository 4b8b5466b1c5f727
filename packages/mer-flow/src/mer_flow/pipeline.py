"""From an onset and an apex frame to aligned faces, flow, strain and regions.

Importing this loads neither OpenCV nor dlib nor MediaPipe; the first extraction does.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from mer_flow.config import PipelineConfig, apply_settings, setting_keys
from mer_flow.errors import FrameError
from mer_flow.providers import load_cv2, versions

__all__ = [
    "Extracted",
    "Extractor",
    "FoundFace",
    "PipelineConfig",
    "align_clip",
    "apply_settings",
    "extract_pair",
    "extractor",
    "pipeline_record",
    "prepare_worker",
    "resolve",
    "setting_keys",
]


@dataclass(frozen=True, slots=True)
class FoundFace:
    """The face of an onset frame and the alignment that follows from it.

    Attributes:
        matrix: float64 (2, 3), frame px to aligned px; holds for every frame of the clip.
        box: Left, top, right, bottom, px of the frame: where landmarks are looked for.
        detected: Whether a detector found it; otherwise the crop as a whole stands in.
        notes: What is recorded about it.
    """

    matrix: np.ndarray
    box: tuple[int, int, int, int]
    detected: bool
    notes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Extracted:
    """What one onset and apex pair gives; S is `align.size`.

    Attributes:
        flow: float32 (3, S, S): u (+x right), v (+y down) in px of the aligned face, strain dimensionless.
        landmarks: float32 (68, 2) px, on the aligned apex.
        regions: float32 (5, 2) px, on the aligned apex: left eye, right eye, nose, left lip corner, right
            lip corner, the subject's own sides.
        alignment: float64 (2, 3), onset px to aligned px.
        onset_face: uint8 (S, S) or (S, S, 3).
        apex_face: Likewise.
        notes: What happened, plain values; `fallbacks` lists every deviation from the first choice.
        seconds: Time per stage: detect, landmarks, align, mesh, flow, stabilise, strain.
    """

    flow: np.ndarray
    landmarks: np.ndarray
    regions: np.ndarray
    alignment: np.ndarray
    onset_face: np.ndarray
    apex_face: np.ndarray
    notes: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)


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
        from mer_flow.faces.align import to_grey, transform, warp
        from mer_flow.faces.landmarks import face_mask, find_landmarks
        from mer_flow.faces.regions import locate_regions
        from mer_flow.flow.stabilise import stabilise
        from mer_flow.flow.strain import optical_strain, smooth

        _check_frame(apex, "apex")
        if onset.shape != apex.shape:
            raise FrameError(
                f"the onset frame is {_shape(onset)} and the apex frame {_shape(apex)}; frames of one clip "
                "must have one shape: copy the clip again from the release"
            )
        align, margin = self.config.align, self.config.align.margin_px
        watch = _Watch()
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
        with watch("flow"):
            flow = self._flow.compute(to_grey(onset_wide)[None], to_grey(apex_wide)[None])[0]
        with watch("stabilise"):
            flow, motion = stabilise(
                flow, face_mask(landmarks + margin, (flow.shape[1], flow.shape[2])), self.config.stabilise
            )
        with watch("strain"):
            strain = optical_strain(smooth(flow, self.config.strain.smooth_sigma))
            inner = slice(margin, margin + align.size)
            maps = np.concatenate([flow, strain[None]])[:, inner, inner].astype(np.float32)
        notes = dict(face.notes, fallbacks=list(face.notes["fallbacks"]), region_backend=regions.backend)
        if np.isfinite(regions.eye_error):
            notes["region_eye_error"] = round(regions.eye_error, 4)
        if regions.fallback:
            notes["fallbacks"].append("regions-dlib")
            notes["region_fallback"] = regions.fallback
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
            landmarks=landmarks,
            regions=(regions.centres - margin).astype(np.float32),
            alignment=matrix,
            onset_face=np.ascontiguousarray(onset_wide[inner, inner]),
            apex_face=np.ascontiguousarray(apex_wide[inner, inner]),
            notes=notes,
            seconds=watch.seconds,
        )


class _Watch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

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
    from mer_flow.flow.base import resolve_options

    name, _ = resolve_backend(config.regions.backend)
    options = resolve_options(config.flow.backend, config.flow.options)
    flow = replace(config.flow, **{item.name: getattr(options, item.name) for item in fields(options)})
    return replace(config, regions=replace(config.regions, backend=name), flow=flow)


def extractor(config: PipelineConfig) -> Extractor:
    """Returns this process's extractor for a configuration, its models loaded once."""
    return _extractor(resolve(config))


@functools.lru_cache(maxsize=2)
def _extractor(config: PipelineConfig) -> Extractor:
    return Extractor(config)


def prepare_worker(config: PipelineConfig) -> Extractor:
    """Readies a worker process: one OpenCV thread, models loaded.

    Args:
        config: The configuration it will work with.

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
    return extractor(config)


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
    from mer_flow.faces.regions import backend_version
    from mer_flow.flow import get_backend

    config = resolve(config)
    return {
        "config": config.to_dict(),
        "hash": config.hash(),
        "versions": versions()
        | {
            "flow_backend": get_backend(config.flow.backend, config.flow.params, config.flow.options).version,
            "region_backend": backend_version(config.regions.backend),
        },
    }
