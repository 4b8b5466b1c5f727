"""How near a store's flow and apexes come to the truth of synthetic trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.store.reader import FlowStore
from mer_flow.synthetic.casting import AMPLITUDE_BANDS
from mer_flow.synthetic.movements import profile
from mer_flow.synthetic.truth import Truth, TruthSample, load_truth
from mer_flow.work.errors import UsageError

#: The moving region is where the true displacement reaches this share of its maximum.
MOVING = 0.5


@dataclass(frozen=True, slots=True)
class FlowError:
    """The flow error of one sample, over the face.

    Attributes:
        amplitude: Longest true displacement between the two frames that were compared, px of the image.
        epe: Mean end-point error, px of the aligned face.
        zero: What predicting no movement would give: the mean length of the true displacement.
        gain: Recovered share of the movement where it is strong; 1 is perfect.
    """

    sample_id: str
    amplitude: float
    epe: float
    zero: float
    gain: float


@dataclass(frozen=True, slots=True)
class EndpointErrors:
    """End-point errors of a store against the truth.

    Attributes:
        samples: One per compared sample.
        skipped: Sample id -> why it cannot be compared.
    """

    samples: tuple[FlowError, ...]
    skipped: dict[str, str]

    def bands(self) -> Iterator[tuple[tuple[float, float], int, tuple[float, float, float]]]:
        """Yield each of `AMPLITUDE_BANDS`, its samples, and their mean `epe`, `zero` and `gain` or NaN."""
        for low, high in AMPLITUDE_BANDS:
            last = high == AMPLITUDE_BANDS[-1][1]
            inside = [e for e in self.samples if low <= e.amplitude < high or (last and e.amplitude == high)]
            means = np.mean([(e.epe, e.zero, e.gain) for e in inside], axis=0) if inside else [np.nan] * 3
            yield (low, high), len(inside), (float(means[0]), float(means[1]), float(means[2]))

    def to_markdown(self) -> str:
        """Return the bands as a Markdown table."""
        lines = ["| peak, px | samples | EPE, px | EPE of no movement | gain |", "|---|---|---|---|---|"]
        for (low, high), count, (epe, zero, gain) in self.bands():
            means = f"{epe:.3f} | {zero:.3f} | {gain:.2f}" if count else "– | – | –"
            lines.append(f"| {low:.1f} to {high:.1f} | {count} | {means} |")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ApexErrors:
    """How far spotted apexes lie from the true ones.

    Attributes:
        errors: Sample id -> spotted minus true, frames.
        skipped: Sample ids without truth, or without a spotted apex.
    """

    errors: dict[str, int]
    skipped: tuple[str, ...]

    @property
    def mean_absolute(self) -> float:
        """Mean absolute error in frames; NaN where nothing was compared."""
        return float(np.abs(list(self.errors.values())).mean()) if self.errors else float("nan")

    def within(self, frames: int) -> float:
        """Return the share of apexes that are off by at most so many frames."""
        near = np.abs(list(self.errors.values())) <= frames
        return float(near.mean()) if self.errors else float("nan")


def endpoint_errors(store: FlowStore, roots: Mapping[str, Path]) -> EndpointErrors:
    """Compare a store's flow with the true displacement between the very frames it was computed from.

    The truth is mapped into the aligned face by each sample's own matrix A: the point p lies at `A · [p, 1]`
    and its displacement w is `A_linear · w` there. Head motion is no part of it, as of a stabilised flow.

    Args:
        store: A computed store.
        roots: Database -> root of the synthetic tree it was built from.

    Raises:
        UsageError: The store has none of the databases.
        LayoutError: A tree has no truth.
        StoreError: The store holds imported maps, which have no alignment.
    """
    present = [database for database in roots if database in store.databases]
    if not present:
        raise UsageError(
            f"{store.path} holds {', '.join(store.databases) or 'no database'}, but truth was given for "
            f"{', '.join(roots) or 'none'}; build these trees into the store first"
        )
    found: list[FlowError] = []
    skipped: dict[str, str] = {}
    for database in present:
        truth = load_truth(roots[database])
        matrices, notes = store.alignment(database), store.notes(database)
        for i, sample in enumerate(store.samples(database)):
            reason = _cannot_compare(sample, truth, notes[i])
            if reason:
                skipped[sample.sample_id] = reason
            else:
                flow = store.read_flow(database, i, channels=2)
                found.append(_flow_error(sample, truth[sample.sample_id], flow, matrices[i]))
    return EndpointErrors(tuple(found), skipped)


def apex_errors(predicted: Mapping[str, int], truth: Mapping[str, int]) -> ApexErrors:
    """Compare spotted apexes with the true ones, in frames.

    Args:
        predicted: Sample id -> spotted file number; `UNKNOWN_FRAME` where none was spotted.
        truth: Sample id -> true file number, as `Truth.apexes()` gives it.

    >>> apex_errors({"smic/s01/s1_ne_01": 12}, {"smic/s01/s1_ne_01": 10}).mean_absolute
    2.0
    """
    known = {name: n for name, n in predicted.items() if name in truth and n != UNKNOWN_FRAME}
    return ApexErrors(
        {name: number - truth[name] for name, number in known.items()},
        tuple(name for name in predicted if name not in known),
    )


def true_flow(sample: TruthSample, strength: float, matrix: np.ndarray, size: int) -> np.ndarray:
    """Map a true displacement into the aligned face.

    Args:
        sample: The truth.
        strength: Share of the movement between the two frames; 1 from onset to apex.
        matrix: `(2, 3)`, image px to aligned px.
        size: Side of the aligned face in px.

    Returns:
        `(2, size, size)` float32, u and v in px of the aligned face.
    """
    import cv2

    field = np.ascontiguousarray(sample.displacement.transpose(1, 2, 0))
    moved: np.ndarray = cv2.warpAffine(field, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return (strength * np.einsum("ij,yxj->iyx", matrix[:, :2], moved)).astype(np.float32)


def _cannot_compare(sample: Sample, truth: Truth, notes: Mapping[str, object]) -> str:
    """Say why a sample's flow has no true counterpart; empty where it has one."""
    if sample.sample_id not in truth:
        return "not in the truth"
    if notes.get("frames_substituted"):
        return "computed from a neighbouring frame"
    return "apex == onset" if sample.apex == sample.onset else ""


def _flow_error(sample: Sample, truth: TruthSample, flow: np.ndarray, matrix: np.ndarray) -> FlowError:
    import cv2

    size = flow.shape[-1]
    strength = profile(sample.apex, truth.onset, truth.apex, truth.offset)
    wanted = true_flow(truth, strength, matrix, size)
    points = np.rint(truth.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.int32)
    face = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(points), [1])
    length = np.hypot(*wanted)
    inside = face > 0
    moving = inside & (length >= MOVING * length.max())
    return FlowError(
        sample_id=sample.sample_id,
        amplitude=strength * truth.amplitude,
        epe=float(np.hypot(*(flow - wanted))[inside].mean()),
        zero=float(length[inside].mean()),
        gain=float((flow * wanted)[:, moving].sum() / max(float((wanted**2)[:, moving].sum()), 1e-12)),
    )
