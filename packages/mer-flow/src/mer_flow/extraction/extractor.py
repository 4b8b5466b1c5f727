"""From an onset and an apex frame to aligned faces, flow, strain and regions.

Importing this loads neither OpenCV nor dlib nor MediaPipe; the first extraction does.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_flow.config import PipelineConfig
from mer_flow.work.errors import FaceError, FrameError
from mer_flow.work.libraries import load_cv2, load_torch, versions

if TYPE_CHECKING:
    from mer_flow.flow.base import FlowBackend
    from mer_flow.flow.stabilise import HeadMotion

#: Fallback of a sample whose mesh disagrees with dlib on the eyes, and then with itself: dlib stands.
INCONSISTENT = "mesh-inconsistent"

#: How far a mesh's eyes may move, in eye distances, when the face is aligned by them.
_STEADY = 0.1


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class PreparedPair:
    """A pair that lacks its flow only; S is `align.size`.

    Attributes:
        grey: uint8 (2, S + 2 margin, S + 2 margin): onset and apex, between which the flow is.
        landmarks: float32 (68, 2) px, on the aligned apex.
        regions: float32 (5, 2) px, on the aligned apex: left eye, right eye, nose, left lip corner, right
            lip corner, the subject's own sides.
        alignment: float64 (2, 3), onset px to aligned px.
        onset_face: uint8 (S, S) or (S, S, 3).
        apex_face: The same shape.
        notes: What happened, plain values; `fallbacks` lists every deviation from the first choice.
    """

    grey: np.ndarray
    landmarks: np.ndarray
    regions: np.ndarray
    alignment: np.ndarray
    onset_face: np.ndarray
    apex_face: np.ndarray
    notes: dict[str, Any]


@dataclass(frozen=True)
class Extracted(PreparedPair):
    """What one onset and apex pair gives; S is `align.size`.

    Attributes:
        flow: float32 (3, S, S): u (+x right), v (+y down) in px of the aligned face, strain dimensionless.
    """

    flow: np.ndarray


class Extractor:
    """The pipeline with its models loaded; `extractor` gives one per process and configuration.

    Args:
        config: The parameters, resolved.
    """

    def __init__(self, config: PipelineConfig) -> None:
        from mer_flow.faces.regions import get_region_backend

        self.config = config
        self._regions = get_region_backend(config.regions.backend)

    @functools.cached_property
    def flow(self) -> FlowBackend:
        """The flow backend, loaded when first asked for: where another process computes the flow, never."""
        from mer_flow.flow import get_backend

        flow = self.config.flow
        return get_backend(flow.backend, flow.params, flow.options)

    def find_face(
        self, frame: np.ndarray, cropped: bool = False, others: Iterable[np.ndarray] = ()
    ) -> FoundFace:
        """Find the face of a frame, normally the onset, and its alignment.

        Args:
            frame: uint8 (H, W) or (H, W, 3) RGB.
            cropped: The frame comes from a cropped release: where no face is found in it, the whole crop is
                aligned canonically and that is recorded.
            others: Further frames of the clip; read only where the face's score is doubtful.

        Raises:
            FaceError: No face in a frame that is not cropped, or one that scores far below those in `others`.
            FrameError: The frame is no uint8 image.
        """
        from mer_flow.faces.align import crop_matrix, eye_matrix, outside_share, scale_of
        from mer_flow.faces.detect import detect_face, no_face, refuse_outlier
        from mer_flow.faces.landmarks import eye_centres, find_landmarks

        _check_frame(frame, "onset")
        found = detect_face(frame, self.config.faces, cropped)
        notes: dict[str, Any] = {"faces": 0, "face_score": None, "fallbacks": []}
        if found is not None:
            refuse_outlier(found, others, self.config.faces, cropped)
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
            matrix = self._by_mesh(frame, box, matrix, notes)
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

    def _by_mesh(
        self, frame: np.ndarray, box: tuple[int, int, int, int], matrix: np.ndarray, notes: dict[str, Any]
    ) -> np.ndarray:
        """Return dlib's alignment, or that by the mesh's eyes where the two disagree on them.

        A mesh that is right finds the eyes again in the face that it aligned; where it does not, dlib stands.
        """
        from mer_flow.faces.align import eye_matrix, transform, warp
        from mer_flow.faces.landmarks import find_landmarks
        from mer_flow.faces.regions import eyes_apart, locate_regions

        if self._regions.name in ("dlib", "no-mesh") or self.config.regions.fallback == "none":
            return matrix
        align, margin = self.config.align, self.config.align.margin_px
        points = transform(matrix, find_landmarks(frame, box)) + margin
        found = locate_regions(self._regions, warp(frame, matrix, align, margin), points, self.config.regions)
        if not found.disagreement:
            return matrix
        turn = np.linalg.inv(matrix[:, :2])
        eyes = (found.centres[:2].astype(np.float64) - margin - matrix[:, 2]) @ turn.T
        by_mesh = eye_matrix(eyes[1], eyes[0], align)
        notes["alignment_disagreement"] = found.disagreement
        try:
            again = self._regions.centres(warp(frame, by_mesh, align, margin), points)
            moved = eyes_apart(again, transform(by_mesh, eyes) + margin)
        except FaceError:
            moved = float("inf")
        if moved > _STEADY:
            notes["fallbacks"].append(INCONSISTENT)
            return matrix
        notes["alignment"] = "mesh-eyes"
        notes["fallbacks"].append("alignment-mesh")
        return by_mesh

    def align_clip(self, frames: Iterable[np.ndarray], face: FoundFace, margin: int = 0) -> list[np.ndarray]:
        """Align frames of one clip, uint8 (H, W) or (H, W, 3) each, with the onset's matrix.

        Returns:
            uint8 (S + 2 margin, S + 2 margin) or with 3 channels each.
        """
        from mer_flow.faces.align import warp

        return [warp(frame, face.matrix, self.config.align, margin) for frame in frames]

    def extract_pair(self, onset: np.ndarray, apex: np.ndarray, cropped: bool = False) -> Extracted:
        """Compute everything that a store keeps of one sample.

        Args:
            onset: uint8 (H, W) or (H, W, 3) RGB.
            apex: The same shape.
            cropped: The frames come from a cropped release.

        Raises:
            FrameError: The frames are no uint8 images or differ in shape.
            FaceError: No face was found, the onset's is not to be trusted, or the regions failed without a
                fallback.
            FlowError: The flow failed.
        """
        pair = self.prepare_pair(onset, apex, self.find_face(onset, cropped, (apex,)))
        return self.finish_pair(pair, self.flow.compute(pair.grey[:1], pair.grey[1:])[0])

    def prepare_pair(self, onset: np.ndarray, apex: np.ndarray, face: FoundFace) -> PreparedPair:
        """Do what comes between the onset's face and the flow; see `extract_pair`."""
        from mer_flow.faces.align import to_grey, transform
        from mer_flow.faces.landmarks import find_landmarks
        from mer_flow.faces.regions import DlibRegions, locate_regions

        _check_frame(apex, "apex")
        if onset.shape != apex.shape:
            raise FrameError(
                f"the onset frame is {_shape(onset)} and the apex frame {_shape(apex)}; frames of one clip "
                "must have one shape: copy the clip again from the release"
            )
        align, margin = self.config.align, self.config.align.margin_px
        landmarks = transform(face.matrix, find_landmarks(apex, face.box)).astype(np.float32)
        wide = self.align_clip((onset, apex), face, margin)
        backend = DlibRegions() if INCONSISTENT in face.notes["fallbacks"] else self._regions
        regions = locate_regions(
            backend, wide[1], landmarks + margin, self.config.regions, check_eyes=face.detected
        )
        notes = dict(face.notes, fallbacks=list(face.notes["fallbacks"]), region_backend=regions.backend)
        if np.isfinite(regions.eye_error):
            notes["region_eye_error"] = round(regions.eye_error, 4)
        if regions.fallback:
            notes["fallbacks"].append("regions-dlib")
            notes["region_fallback"] = regions.fallback
        if regions.disagreement:
            notes["fallbacks"].append("regions-disagree")
            notes["region_disagreement"] = regions.disagreement
            notes["regions_dlib"] = np.round(DlibRegions().centres(wide[1], landmarks), 2).tolist()
        inner = slice(margin, margin + align.size)
        faces = [np.ascontiguousarray(frame[inner, inner]) for frame in wide]
        return PreparedPair(
            grey=np.stack([to_grey(frame) for frame in wide]),
            landmarks=landmarks,
            regions=(regions.centres - margin).astype(np.float32),
            alignment=face.matrix,
            onset_face=faces[0],
            apex_face=faces[1],
            notes=notes,
        )

    def finish_pair(self, pair: PreparedPair, flow: np.ndarray) -> Extracted:
        """Do what comes after the flow.

        Args:
            pair: From `prepare_pair`.
            flow: float32 (2, S + 2 margin, S + 2 margin) px, between its grey frames.

        Raises:
            FlowError: The head's motion cannot be fitted.
        """
        from mer_flow.flow.strain import optical_strain, smooth

        align = self.config.align
        still, motion = self.without_head(flow, pair.landmarks)
        strain = optical_strain(smooth(still, self.config.strain.smooth_sigma))
        inner = slice(align.margin_px, align.margin_px + align.size)
        maps = np.concatenate([still, strain[None]])[:, inner, inner].astype(np.float32)
        notes = dict(pair.notes)
        if motion is not None:
            digits = {"dx": 4, "dy": 4, "rotation": 5, "scale": 6, "inliers": 4}
            notes["head_motion"] = {name: round(getattr(motion, name), n) for name, n in digits.items()}
        return Extracted(**(vars(pair) | {"notes": notes}), flow=maps)

    def without_head(self, flow: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, HeadMotion | None]:
        """Remove the head's own motion from a flow, margin included; `landmarks` as in `Extracted`."""
        from mer_flow.faces.landmarks import face_mask
        from mer_flow.flow.stabilise import stabilise

        mask = face_mask(landmarks + self.config.align.margin_px, (flow.shape[1], flow.shape[2]))
        return stabilise(flow, mask, self.config.stabilise)


def _shape(frame: np.ndarray) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]} px {'grey' if frame.ndim == 2 else 'colour'}"


def _check_frame(frame: np.ndarray, label: str) -> None:
    if frame.dtype != np.uint8 or not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 3)):
        raise FrameError(f"{label} must be uint8 (H, W) or (H, W, 3) RGB, got {frame.dtype} {frame.shape}")


def extractor(config: PipelineConfig) -> Extractor:
    """Return this process's extractor for a configuration, its models loaded once."""
    return _extractor(resolve(config))


_extractor = functools.lru_cache(maxsize=2)(Extractor)


@functools.lru_cache(maxsize=2)
def worker_extractor(config: PipelineConfig, flow: bool = True) -> Extractor:
    """Return the extractor of a worker process: one thread per library, models loaded.

    Args:
        config: Any configuration.
        flow: Whether it will compute flow, so that the backend is loaded too.

    Raises:
        MissingDependencyError: A library is absent or broken.
        ModelFileError: A model file is missing or wrong.
    """
    from mer_flow.faces.detect import load_detector
    from mer_flow.faces.landmarks import load_predictor

    os.environ["OMP_NUM_THREADS"] = "1"
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
    """Compute flow, strain, landmarks and regions of one pair; see `Extractor.extract_pair`."""
    return extractor(config or PipelineConfig()).extract_pair(onset, apex, cropped)


def resolve(config: PipelineConfig) -> PipelineConfig:
    """Replace every `auto` by what it means here, so that the hash names what is really used.

    Raises:
        UsageError: The flow backend or this machine cannot meet an option.
        MissingDependencyError: A library is absent or broken.
    """
    from mer_flow.faces.regions import resolve_backend
    from mer_flow.flow.factory import resolve_options

    name, _ = resolve_backend(config.regions.backend)
    options = resolve_options(config.flow.backend, config.flow.options)
    return config.changed(
        regions=config.regions.changed(backend=name), flow=config.flow.changed(**asdict(options))
    )


def pipeline_record(config: PipelineConfig) -> dict[str, Any]:
    """Return what a store writes down about its making.

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
    backends = {
        "flow_backend": flow_version(config.flow.backend, config.flow.options),
        "region_backend": region_version(config.regions.backend),
    }
    return {"config": config.to_dict(), "hash": config.hash(), "versions": versions() | backends}
