"""MediaPipe's face mesh on an aligned face, through either of its interfaces, and the regions taken from it.

`LegacyMesh` is the one bundled with MediaPipe up to 0.10.21: no download, no connection. `TasksMesh` (0.10.30
and later) needs a model file, and reports its use to Google over the network as soon as a landmarker is made;
it offers no switch. The images stay on the machine.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mer_flow.faces.align import to_rgb
from mer_flow.faces.model_files import FACE_LANDMARKER, ModelFile, check, verified_path
from mer_flow.work.errors import FaceError, MissingDependencyError
from mer_flow.work.libraries import extra_command, installed

# Contours of the subject's right (left in the image) and left eye; both interfaces number the mesh alike.
_RIGHT_EYE = [7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246]
_LEFT_EYE = [249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466]
#: Nose tip, left and right lip corner. Point 4 lies where dlib's nose tip does; point 1 is lower.
_NOSE_AND_LIPS = [4, 291, 61]

#: From uint8 (H, W, 3) RGB to the landmarks of its one face, `x` and `y` in parts of the image, if any.
_Finder = Callable[[np.ndarray], Sequence[Any] | None]


def mesh_version(model: ModelFile | None = None) -> str:
    """Return what decides a mesh: MediaPipe's version, and the model's where it is a file of its own."""
    release = installed(("mediapipe",)).get("mediapipe", "absent")
    return f"mediapipe {release}" + (f", model {model.sha256[:12]}" if model else "")


class _Mesh(ABC):
    """A face mesh on single images: a `RegionBackend`."""

    name: str

    def __init__(self, version: str) -> None:
        self.version = version
        self._seen_face = False
        # Google's native logging: errors only. It listens until it is first loaded.
        os.environ.setdefault("GLOG_minloglevel", "2")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            with _quiet() as said:
                self._find = self._start()
                # Each part of the graph announces itself on its first run, the last at the first face.
                self._find(np.zeros((64, 64, 3), dtype=np.uint8))
        except (ImportError, OSError) as error:
            raise MissingDependencyError(
                f"mediapipe does not load ({error}); mend with: {extra_command('faces')}; on a slim Linux "
                "also: apt install libegl1 libgles2"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise FaceError(f"{self.name} ({version}) does not start: {error}; {''.join(said)}") from error

    @abstractmethod
    def _start(self) -> _Finder:
        """Load MediaPipe and its networks."""

    def centres(self, face: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Find the centres as `RegionBackend` says; dlib's landmarks are not used."""
        height, width = face.shape[:2]
        try:
            with contextlib.nullcontext() if self._seen_face else _quiet():
                points = self._find(np.ascontiguousarray(to_rgb(face)))
        except RuntimeError as error:
            raise FaceError(f"{self.name} fails on the aligned {width}x{height} px apex: {error}") from error
        if not points:
            raise FaceError(f"{self.name} finds no face in the aligned {width}x{height} px apex")
        self._seen_face = True
        # Normalised by the image's side: 0 is the left edge, not the first pixel's centre.
        mesh = np.array([(p.x * width - 0.5, p.y * height - 0.5) for p in points])
        eyes = [mesh[contour].mean(axis=0) for contour in (_LEFT_EYE, _RIGHT_EYE)]
        return np.stack([*eyes, *mesh[_NOSE_AND_LIPS]]).astype(np.float32)


class LegacyMesh(_Mesh):
    """MediaPipe FaceMesh in static mode (Kartynnik et al. 2019, arXiv:1907.06724)."""

    name = "mediapipe-legacy"

    def __init__(self) -> None:
        super().__init__(mesh_version())

    def _start(self) -> _Finder:
        import mediapipe

        try:
            faces = mediapipe.solutions.face_mesh
        except AttributeError as error:
            raise MissingDependencyError(
                f"{self.version} has no mp.solutions (removed in 0.10.30), which regions.backend={self.name} "
                "needs: extend a store begun with it where 'mediapipe==0.10.21' can be installed, on Python "
                "up to 3.12; a new one can have regions.backend=mediapipe-tasks after 'mer-flow models fetch'"
            ) from error
        mesh = faces.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=False)

        def find(pixels: np.ndarray) -> Sequence[Any] | None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # protobuf warns of MediaPipe's own calls
                found = mesh.process(pixels).multi_face_landmarks
            return found[0].landmark if found else None

        return find


class TasksMesh(_Mesh):
    """MediaPipe FaceLandmarker on single images.

    Args:
        path: The `.task` file; None takes the fetched one.
        model: What the file must be. A bundle put together from other releases' networks loads, but gives
            garbage.

    Raises:
        ModelFileError: The file is missing or has a wrong size or checksum.
        MissingDependencyError: MediaPipe or one of its system libraries is absent.
        FaceError: The landmarker does not start.
    """

    name = "mediapipe-tasks"

    def __init__(self, path: Path | None = None, model: ModelFile = FACE_LANDMARKER) -> None:
        if path is not None:
            check(model, path)
        self._path = path or verified_path(model)
        super().__init__(mesh_version(model))

    def _start(self) -> _Finder:
        import mediapipe
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision

        base = tasks.BaseOptions(model_asset_buffer=self._path.read_bytes())
        options = vision.FaceLandmarkerOptions(base_options=base, num_faces=1)
        landmarker = vision.FaceLandmarker.create_from_options(options)

        def find(pixels: np.ndarray) -> Sequence[Any] | None:
            found = landmarker.detect(mediapipe.Image(mediapipe.ImageFormat.SRGB, pixels)).face_landmarks
            return found[0] if found else None

        return find


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Ignore warnings and divert file descriptor 2, where there is one; the list gets what was written to it.

    It concerns the whole process, so keep it short.
    """
    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sys.stderr.flush()
            kept = os.dup(2)
        except (OSError, AttributeError, ValueError):
            yield said
            return
        with tempfile.TemporaryFile() as log:
            os.dup2(log.fileno(), 2)
            try:
                yield said
            finally:
                sys.stderr.flush()
                os.dup2(kept, 2)
                os.close(kept)
                log.seek(0)
                said.append(log.read().decode("utf-8", "replace").strip())
