"""Region centres by MediaPipe Tasks (0.10.30 and later) and a checksummed model file.

MediaPipe Tasks reports usage over the network to Google as soon as a landmarker is made, and offers no
switch; the images stay on the machine. The bundled mesh of 0.10.21 and dlib open no connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mer_flow.faces.mediapipe_mesh import MediaPipeMesh
from mer_flow.faces.model_files import FACE_LANDMARKER, ModelFile, check, verified_path
from mer_flow.faces.quiet import quiet_stderr, silence_glog
from mer_flow.work.errors import FaceError, MissingDependencyError, ModelFileError
from mer_flow.work.libraries import FACES_MEND, installed


class TasksMesh(MediaPipeMesh):
    """MediaPipe FaceLandmarker on single images.

    Attributes:
        name: `mediapipe-tasks`.
        version: MediaPipe's version and the model's checksum.
    """

    name = "mediapipe-tasks"

    def __init__(self, path: Path | None = None, model: ModelFile = FACE_LANDMARKER) -> None:
        """Checks the model file and starts the landmarker.

        Args:
            path: The `.task` file; None takes the fetched one.
            model: What the file must be. A bundle put together from other releases' networks loads, but
                gives garbage.

        Raises:
            ModelFileError: The file is missing or has a wrong size or checksum.
            MissingDependencyError: MediaPipe or one of its system libraries is absent.
            FaceError: The landmarker does not start.
        """
        if path is None:
            path = verified_path(model)
        else:
            check(model, path)
        release = installed(("mediapipe",)).get("mediapipe", "absent")
        self.version = f"mediapipe {release}, model {model.sha256[:12]}"
        silence_glog()
        try:
            with quiet_stderr() as captured:
                import mediapipe
                from mediapipe.tasks import python as tasks
                from mediapipe.tasks.python import vision

                options = vision.FaceLandmarkerOptions(
                    base_options=tasks.BaseOptions(model_asset_buffer=path.read_bytes()), num_faces=1
                )
                self._image: Any = lambda pixels: mediapipe.Image(mediapipe.ImageFormat.SRGB, pixels)
                self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
                # Each part of the graph announces itself on its first run, the last at the first face.
                self._landmarker.detect(self._image(np.zeros((64, 64, 3), dtype=np.uint8)))
        except (ImportError, OSError) as error:
            raise MissingDependencyError(
                f"mediapipe does not load ({error}); on a slim Linux: apt install libegl1 libgles2; "
                f"otherwise: {FACES_MEND}"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise FaceError(
                f"MediaPipe FaceLandmarker does not start with {path}: {error}; {captured.text}"
            ) from error

    def _find(self, pixels: np.ndarray) -> Sequence[Any] | None:
        found = self._landmarker.detect(self._image(pixels)).face_landmarks
        return found[0] if found else None


def task_file_ready() -> bool:
    """Returns whether a FaceLandmarker file is there with the right checksum."""
    try:
        verified_path(FACE_LANDMARKER)
    except ModelFileError:
        return False
    return True
