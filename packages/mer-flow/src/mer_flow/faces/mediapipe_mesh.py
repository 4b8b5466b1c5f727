"""What both of MediaPipe's interfaces share: from an aligned face to its five region centres."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from mer_flow.faces.align import to_rgb
from mer_flow.faces.mesh_points import MESH_SIZE, mesh_centres
from mer_flow.faces.quiet import quiet_stderr
from mer_flow.work.errors import FaceError


class MediaPipeMesh(ABC):
    """A face mesh on single images.

    Attributes:
        name: The backend's name.
        version: MediaPipe's version, and the model's where it is a file of its own.
    """

    name: str
    version: str
    _seen_face = False

    @abstractmethod
    def _find(self, pixels: np.ndarray) -> Sequence[Any] | None:
        """Returns the landmarks of the one face in uint8 (H, W, 3) RGB, `x` and `y` in [0, 1], if any."""

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
        try:
            # The last part of the graph announces itself on standard error at the first face.
            with nullcontext() if self._seen_face else quiet_stderr():
                points = self._find(np.ascontiguousarray(to_rgb(face)))
        except RuntimeError as error:
            raise FaceError(f"{self.name} fails on the aligned {width}x{height} px apex: {error}") from error
        if not points:
            raise FaceError(f"{self.name} finds no face in the aligned {width}x{height} px apex")
        self._seen_face = True
        # Normalised by the image's side: 0 is the left edge, not the first pixel's centre.
        return mesh_centres(np.array([(p.x * width - 0.5, p.y * height - 0.5) for p in points[:MESH_SIZE]]))
