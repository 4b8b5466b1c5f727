"""Region centres by the face mesh bundled with MediaPipe up to 0.10.21: no download, no telemetry."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import numpy as np

from mer_flow.errors import FaceError, MissingDependencyError
from mer_flow.faces.align import to_rgb
from mer_flow.faces.mesh_points import MESH_SIZE, mesh_centres
from mer_flow.faces.quiet import quiet_stderr, silence_glog
from mer_flow.providers import FACES_MEND, installed


class LegacyMesh:
    """MediaPipe FaceMesh in static mode (Kartynnik et al. 2019, arXiv:1907.06724).

    Attributes:
        name: `mediapipe-legacy`.
        version: MediaPipe's version.
    """

    name = "mediapipe-legacy"

    def __init__(self) -> None:
        self.version = "mediapipe " + installed(("mediapipe",)).get("mediapipe", "absent")
        silence_glog()
        try:
            with quiet_stderr() as captured, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import mediapipe

                solutions = mediapipe.solutions
                self._mesh: Any = solutions.face_mesh.FaceMesh(
                    static_image_mode=True, max_num_faces=1, refine_landmarks=False
                )
                # Each part of the graph announces itself on its first run, the last at the first face.
                self._mesh.process(np.zeros((64, 64, 3), dtype=np.uint8))
            self._seen_face = False
        except (ImportError, OSError) as error:
            raise MissingDependencyError(
                f"mediapipe does not load ({error}); mend with: {FACES_MEND}"
            ) from error
        except AttributeError as error:
            raise MissingDependencyError(
                f"{self.version} has no mp.solutions (removed in 0.10.30); "
                "use regions.backend=mediapipe-tasks after 'mer-flow models fetch', "
                "or pip install 'mediapipe==0.10.21' on Python up to 3.12"
            ) from error
        except RuntimeError as error:
            raise FaceError(f"{self.version} face mesh does not start: {error}; {captured.text}") from error

    def centres(self, face: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Finds the five region centres.

        Args:
            face: uint8 (H, W) or (H, W, 3) RGB, an aligned face.
            landmarks: (68, 2) dlib points; not used.

        Returns:
            float32 (5, 2) px of the face: left eye, right eye, nose, left lip corner, right lip corner.

        Raises:
            FaceError: The mesh finds no face or fails.
        """
        height, width = face.shape[:2]
        hush = nullcontext() if self._seen_face else quiet_stderr()
        try:
            with hush, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # protobuf warns of MediaPipe's own calls
                found = self._mesh.process(np.ascontiguousarray(to_rgb(face))).multi_face_landmarks
        except RuntimeError as error:
            raise FaceError(f"{self.name} fails on the aligned {width}x{height} px apex: {error}") from error
        if not found:
            raise FaceError(f"{self.name} finds no face in the aligned {width}x{height} px apex")
        self._seen_face = True
        points = found[0].landmark[:MESH_SIZE]
        # Normalised by the image's side: 0 is the left edge, not the first pixel's centre.
        return mesh_centres(np.array([(p.x * width - 0.5, p.y * height - 0.5) for p in points]))
