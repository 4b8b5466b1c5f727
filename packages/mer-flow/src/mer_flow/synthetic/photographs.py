"""The photographs behind the subjects: two faces that come with libraries and are free of rights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# fmt: off
#: dlib's 68 points on each photograph, px, measured once at three times its size with
#: shape_predictor_68_face_landmarks, so that making a database needs no landmark model.
_ASTRONAUT = (
    (180.0, 104.7), (180.0, 116.3), (181.0, 127.7), (182.3, 139.0), (185.3, 150.3), (191.7, 160.7),
    (200.3, 169.0), (209.3, 176.0), (220.3, 178.7), (232.0, 177.3), (243.0, 171.7), (253.0, 164.0),
    (260.3, 154.3), (265.0, 143.3), (268.0, 131.7), (270.3, 120.3), (272.0, 108.0), (186.3, 94.3),
    (192.3, 88.7), (200.7, 87.3), (209.0, 89.0), (217.0, 92.7), (236.0, 94.0), (244.0, 91.0), (252.3, 90.7),
    (260.3, 92.7), (265.3, 99.0), (226.0, 102.7), (226.0, 111.0), (225.7, 119.0), (225.3, 127.7),
    (214.3, 131.3), (219.3, 133.0), (224.7, 134.7), (230.0, 133.3), (234.7, 132.3), (195.3, 101.3),
    (200.7, 98.0), (207.0, 98.7), (212.7, 104.3), (206.3, 104.7), (200.0, 104.0), (237.7, 105.7),
    (243.7, 100.7), (250.0, 100.7), (255.3, 104.3), (250.3, 106.7), (244.0, 106.3), (200.7, 139.3),
    (209.3, 139.3), (218.0, 139.7), (223.7, 141.0), (230.0, 140.3), (237.7, 140.7), (245.7, 141.3),
    (237.7, 151.3), (229.3, 155.3), (222.3, 156.0), (216.3, 155.0), (208.0, 150.0), (203.7, 140.7),
    (217.7, 143.0), (223.3, 144.3), (229.7, 143.7), (242.7, 142.3), (229.3, 150.0), (223.0, 150.7),
    (217.0, 149.7)
)
_HOPPER = (
    (175.3, 194.0), (178.7, 219.0), (184.0, 243.0), (190.0, 265.3), (199.0, 288.0), (211.7, 305.7),
    (229.7, 318.7), (250.3, 328.0), (273.0, 330.3), (294.3, 326.3), (313.0, 316.3), (330.0, 302.7),
    (343.7, 282.7), (352.7, 261.0), (355.3, 236.7), (356.7, 211.0), (357.7, 184.3), (181.7, 181.7),
    (188.7, 164.3), (205.3, 157.7), (224.7, 158.3), (241.3, 166.0), (281.3, 163.0), (297.7, 154.0),
    (316.3, 150.7), (334.3, 155.3), (345.0, 169.0), (264.3, 188.3), (265.3, 205.0), (266.7, 221.3),
    (267.3, 238.0), (245.7, 245.7), (256.3, 249.0), (268.0, 252.3), (279.0, 248.7), (289.0, 245.0),
    (205.0, 195.7), (214.3, 188.3), (226.3, 187.7), (238.0, 195.0), (227.0, 197.7), (214.7, 199.0),
    (290.7, 193.3), (302.3, 184.0), (314.3, 183.0), (324.3, 188.7), (315.7, 194.0), (303.3, 194.7),
    (233.3, 279.0), (245.3, 273.7), (257.7, 271.7), (267.7, 273.7), (277.3, 271.3), (290.0, 272.7),
    (303.0, 277.0), (290.7, 285.3), (278.3, 289.7), (267.7, 290.7), (257.3, 289.7), (245.0, 285.7),
    (238.7, 278.0), (257.7, 278.0), (267.7, 279.3), (278.0, 277.7), (297.3, 276.3), (277.3, 278.7),
    (267.3, 280.3), (257.3, 279.0)
)
# fmt: on


@dataclass(frozen=True)
class Photograph:
    """A face at rest.

    Attributes:
        load: Returns uint8 `(H, W, 3)` RGB.
        landmarks: `(68, 2)` float64, dlib's points, px.
        middle: `(2,)` float64, of the head, px; it lands in the middle of a frame.
        iod: Inter-ocular distance, px.
        times: By how much it is enlarged, so that a frame's pixels are finer than its own.
        edges: What of its finest detail is added (an enlarged one is soft), or taken away.
    """

    load: Callable[[], np.ndarray]
    landmarks: np.ndarray
    middle: np.ndarray
    iod: float
    times: int
    edges: float


def _astronaut() -> np.ndarray:
    """Eileen Collins, NASA, public domain: the upper half, which holds the head."""
    from skimage.data import astronaut

    picture: np.ndarray = astronaut()[:256]
    return picture


def _hopper() -> np.ndarray:
    """Grace Hopper, James S. Davis, US Navy, public domain."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))) as picture:
        return np.asarray(picture.convert("RGB"))


#: Who lends a face, in turn.
PHOTOGRAPHS = (
    Photograph(_astronaut, np.array(_ASTRONAUT), np.array([225.3, 124.0]), 43.22, 4, 0.35),
    Photograph(_hopper, np.array(_HOPPER), np.array([265.7, 230.0]), 87.66, 2, -0.8),
)


@lru_cache(maxsize=len(PHOTOGRAPHS))
def enlarged(number: int) -> np.ndarray:
    """Return a photograph enlarged by its `times`, its edges evened, float32 `(H, W, 3)` RGB."""
    import cv2

    photograph = PHOTOGRAPHS[number]
    k = photograph.times
    large = cv2.resize(photograph.load().astype(np.float32), None, fx=k, fy=k, interpolation=cv2.INTER_CUBIC)
    edges: np.ndarray = large - cv2.GaussianBlur(large, (0, 0), 1.5 * k)
    return large + np.float32(photograph.edges) * edges
