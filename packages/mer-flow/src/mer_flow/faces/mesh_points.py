"""The points of MediaPipe's face mesh that make the five regions; both its interfaces number alike."""

from __future__ import annotations

import numpy as np

#: Contours of the subject's right (left in the image) and left eye.
RIGHT_EYE = (7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246)
LEFT_EYE = (249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466)
#: Point 4 lies where dlib's nose tip does; point 1 is lower.
NOSE_TIP = 4
RIGHT_LIP_CORNER = 61
LEFT_LIP_CORNER = 291
#: Points of the mesh without irises.
MESH_SIZE = 468


def mesh_centres(mesh: np.ndarray) -> np.ndarray:
    """Takes the five region centres out of a mesh.

    Args:
        mesh: (468 or 478, 2) px.

    Returns:
        float32 (5, 2): left eye, right eye, nose, left lip corner, right lip corner; the subject's own sides.
    """
    return np.stack(
        [
            mesh[list(LEFT_EYE)].mean(axis=0),
            mesh[list(RIGHT_EYE)].mean(axis=0),
            mesh[NOSE_TIP],
            mesh[LEFT_LIP_CORNER],
            mesh[RIGHT_LIP_CORNER],
        ]
    ).astype(np.float32)
