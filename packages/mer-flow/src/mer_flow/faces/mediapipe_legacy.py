"""Region centres by the face mesh bundled with MediaPipe up to 0.10.21: no download, no telemetry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mer_flow.faces.mediapipe_mesh import MediaPipeMesh
from mer_flow.faces.quiet import quiet_stderr, silence_glog
from mer_flow.work.errors import FaceError, MissingDependencyError
from mer_flow.work.libraries import FACES_MEND, installed


class LegacyMesh(MediaPipeMesh):
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

    def _find(self, pixels: np.ndarray) -> Sequence[Any] | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf warns of MediaPipe's own calls
            found = self._mesh.process(pixels).multi_face_landmarks
        return found[0].landmark if found else None
