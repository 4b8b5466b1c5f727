"""Spotting the apex frame of a clip whose sheet has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mer_flow.config import SPOTTERS, AlignConfig, StabiliseConfig
from mer_flow.work.errors import FrameError
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    from mer_flow.databases.clips import ClipFrames
    from mer_flow.extraction.extractor import Extractor, FoundFace

#: Landmarks around which skin moves: brows outer and inner, nose wings, lip corners, upper and lower lip.
#: Eyes are left out, because a blink outweighs every micro-expression.
REGION_LANDMARKS = (18, 21, 22, 25, 31, 35, 48, 54, 51, 57)
#: Where those lie on an aligned face when no landmarks are given: in inter-ocular distances from the middle
#: of the eyes, right and down.
REGION_OFFSETS = (
    (-0.75, -0.32), (-0.22, -0.26), (0.22, -0.26), (0.75, -0.32), (-0.25, 0.64),
    (0.25, 0.64), (-0.50, 0.90), (0.50, 0.90), (0.00, 0.88), (0.00, 1.20),
)  # fmt: skip
#: Half the side of a region, in inter-ocular distances.
REGION_HALF = 0.22
#: Regions, of the ten, whose movement is followed: those that move most.
FOLLOWED = 3
#: Temporal smoothing, as part of the clip's length.
SMOOTHING = 0.1


def spot_apex(
    frames: Sequence[np.ndarray], method: str = "flow-peak", landmarks: np.ndarray | None = None
) -> int:
    """Find the frame of the strongest expression.

    Args:
        frames: K aligned grey frames, uint8 (S, S), onset first, offset last, all by the onset's matrix.
        method: `midpoint`: the middle frame. `difference`: the largest mean absolute difference to the onset
            over ten facial regions; head motion is left in, and misleads it. `flow-peak`: the flow from the
            onset, head motion removed, searched by divide and conquer over the regions that move most; after
            Liong et al. 2015, doi:10.1109/ACPR.2015.7486586, with flow (DIS,
            doi:10.1007/978-3-319-46493-0_29: a hundred times cheaper than TV-L1) in place of LBP.
        landmarks: (68, 2) px on the aligned onset; None takes the places that the alignment gives.

    Returns:
        Its position in the clip, 1 or later where there are two frames or more.

    Raises:
        UsageError: An unknown method.
        FrameError: No frames, or frames of different shapes.

    >>> spot_apex([np.zeros((32, 32), np.uint8)] * 9, "midpoint")
    4
    """
    if method not in SPOTTERS:
        raise unknown("apex spotter", method, SPOTTERS)
    shapes = {frame.shape for frame in frames}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise FrameError(
            f"apex spotting wants grey frames of one shape, got {len(frames)} of {sorted(shapes)}"
        )
    count = len(frames)
    if method == "midpoint" or count < 3:
        return min(count // 2, count - 1)
    if method == "difference":
        boxes = region_boxes(frames[0].shape[0], landmarks)
        curve = _smooth(difference_curves(frames, boxes).mean(axis=1))
        return 1 + int(np.argmax(curve[1:]))
    return divide_and_conquer(movement_curve(frames, landmarks))


def spot_clip(clip: ClipFrames, methods: Sequence[str], engine: Extractor, face: FoundFace) -> dict[str, int]:
    """Spot the apex of one clip on disk by several methods, reading it once.

    Returns:
        Method -> apex as a number of the sheet.

    Raises:
        FrameError: Fewer than two frames exist, or one is unreadable.
    """
    numbers = clip.numbers()
    frames: list[np.ndarray] = [np.zeros((1, 1), np.uint8)] * len(numbers)
    landmarks = None
    if any(method != "midpoint" for method in methods):  # which needs no pixels
        from mer_flow.faces.align import to_grey, transform
        from mer_flow.faces.landmarks import find_landmarks

        if face.detected:
            landmarks = transform(face.matrix, find_landmarks(clip.read_exact(numbers[0]), face.box))
        aligned = engine.align_clip((clip.read_exact(number) for number in numbers), face)
        frames = [to_grey(frame) for frame in aligned]
    return {method: numbers[spot_apex(frames, method, landmarks)] for method in methods}


def region_boxes(size: int, landmarks: np.ndarray | None = None) -> list[tuple[slice, slice]]:
    """Return rows and columns of the ten facial regions of an aligned face of `size` px.

    Args:
        size: Its side.
        landmarks: (68, 2) px on it; None takes the places that the default alignment gives.
    """
    align = AlignConfig(size=max(size, 28))
    iod = align.eye_distance * size
    if landmarks is None:
        centres = np.array([0.5, align.eye_row]) * size + iod * np.array(REGION_OFFSETS)
    else:
        centres = np.asarray(landmarks, dtype=np.float64)[list(REGION_LANDMARKS)]
    half = max(2.0, REGION_HALF * iod)
    boxes = []
    for x, y in centres:
        left, top = (int(np.clip(round(c - half), 0, size - 4)) for c in (x, y))
        boxes.append((slice(top, top + int(2 * half)), slice(left, left + int(2 * half))))
    return boxes


def movement_curve(frames: Sequence[np.ndarray], landmarks: np.ndarray | None = None) -> np.ndarray:
    """Follow how far skin has moved since the onset, head motion removed.

    Arguments as for `spot_apex`. Returns float64 (K,) px of the aligned face: the smoothed mean over the
    regions that move most.
    """
    return follow(flow_curves(frames, region_boxes(frames[0].shape[0], landmarks), landmarks))


def difference_curves(frames: Sequence[np.ndarray], boxes: list[tuple[slice, slice]]) -> np.ndarray:
    """Return (K, regions): mean absolute grey difference to the onset, overall brightness matched."""
    onset = frames[0].astype(np.float32)
    level = max(float(onset.mean()), 1.0)
    curves = np.zeros((len(frames), len(boxes)))
    for i, frame in enumerate(frames):
        change = np.abs(frame * np.float32(level / max(float(frame.mean()), 1.0)) - onset)
        curves[i] = [change[box].mean() for box in boxes]
    return curves


def flow_curves(
    frames: Sequence[np.ndarray], boxes: list[tuple[slice, slice]], landmarks: np.ndarray | None = None
) -> np.ndarray:
    """Return (K, regions): mean length of the flow from the onset, head motion removed, px."""
    from mer_flow.faces.landmarks import face_mask
    from mer_flow.flow.stabilise import stabilise
    from mer_flow.work.libraries import load_cv2

    cv2 = load_cv2()
    solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    size = frames[0].shape[0]
    if landmarks is None:
        mask = np.zeros((size, size), dtype=bool)
        mask[size // 8 : -size // 8, size // 8 : -size // 8] = True
    else:
        mask = face_mask(landmarks, (size, size))
    config = StabiliseConfig(trials=100)
    curves = np.zeros((len(frames), len(boxes)))
    for i in range(1, len(frames)):
        flow = solver.calc(frames[0], frames[i], None).transpose(2, 0, 1)
        still, _ = stabilise(flow, mask, config)
        # The mean vector of a region, not the mean length: noise points everywhere, skin one way.
        curves[i] = [float(np.hypot(*still[:, box[0], box[1]].mean(axis=(1, 2)))) for box in boxes]
    return curves


def follow(curves: np.ndarray) -> np.ndarray:
    """Join (K, regions) curves into one (K,): the smoothed mean over the regions that move most."""
    smoothed = np.stack([_smooth(curve) for curve in curves.T], axis=1)
    strongest = np.argsort(-smoothed.max(axis=0), kind="stable")[:FOLLOWED]
    return np.asarray(smoothed[:, strongest].mean(axis=1))


def divide_and_conquer(curve: np.ndarray) -> int:
    """Search a peak: keep the half of larger mean, down to one frame, then climb to the top beside it.

    Args:
        curve: (K,), K at least 2; the first frame is the onset and never the answer.

    >>> divide_and_conquer(np.array([0, 1, 2, 5, 9, 4, 1, 0.0]))
    4
    """
    low, high = 1, len(curve)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if curve[low:middle].mean() > curve[middle:high].mean() else (middle, high)
    index = low
    while True:
        near = range(max(1, index - 1), min(len(curve), index + 2))
        best = max(near, key=lambda i: (curve[i], -i))
        if curve[best] <= curve[index]:
            return index
        index = best


def _smooth(curve: np.ndarray) -> np.ndarray:
    """Smooth with a Hann window of a tenth of the clip on each side, edges repeated."""
    radius = max(1, round(SMOOTHING * len(curve)))
    taps = np.hanning(2 * radius + 3)[1:-1]
    return np.convolve(np.pad(curve, radius, mode="edge"), taps / taps.sum(), mode="valid")
