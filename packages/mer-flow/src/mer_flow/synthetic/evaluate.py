"""How near a store's flow and apexes come to the truth of synthetic trees."""

from __future__ import annotations

from collections.abc import Mapping
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
        sample_id: The sample.
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
class BandError:
    """Mean flow error of the samples in one band of amplitudes; NaN where there are none.

    Attributes:
        low: Least amplitude, px of the image.
        high: Amplitude below which the band ends; the last band includes it.
        samples: Number of samples.
        epe: Mean end-point error, px of the aligned face.
        zero: The same for predicting no movement.
        gain: Mean recovered share of the movement.
    """

    low: float
    high: float
    samples: int
    epe: float
    zero: float
    gain: float


@dataclass(frozen=True, slots=True)
class EndpointErrors:
    """End-point errors of a store against the truth.

    Attributes:
        samples: One per compared sample.
        bands: Means per band of amplitudes, weakest first.
        skipped: Sample id -> why it cannot be compared.
    """

    samples: tuple[FlowError, ...]
    bands: tuple[BandError, ...]
    skipped: dict[str, str]

    def to_markdown(self) -> str:
        """Returns the bands as a Markdown table."""
        lines = ["| peak, px | samples | EPE, px | EPE of no movement | gain |", "|---|---|---|---|---|"]
        lines += [
            f"| {b.low:.1f} to {b.high:.1f} | {b.samples} | {b.epe:.3f} | {b.zero:.3f} | {b.gain:.2f} |"
            for b in self.bands
        ]
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
        values = np.abs(list(self.errors.values()))
        return float(values.mean()) if len(values) else float("nan")

    def within(self, frames: int) -> float:
        """Returns the share of apexes that are off by at most so many frames."""
        values = np.abs(list(self.errors.values()))
        return float((values <= frames).mean()) if len(values) else float("nan")


def endpoint_errors(store: FlowStore, roots: Mapping[str, Path]) -> EndpointErrors:
    """Compares a store's flow with the true displacement between the very frames it was computed from.

    The truth is mapped into the aligned face by each sample's own matrix A: the point p lies at `A · [p, 1]`
    and its displacement w is `A_linear · w` there. Head motion is no part of it, as of a stabilised flow.

    Args:
        store: A computed store.
        roots: Database -> root of the synthetic tree it was built from.

    Returns:
        Errors over the face, per sample and per band of `AMPLITUDE_BANDS`.

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
                continue
            flow = store.read_flow(database, i, channels=2)
            found.append(_flow_error(sample, truth[sample.sample_id], flow, matrices[i]))
    return EndpointErrors(tuple(found), _band_means(found), skipped)


def apex_errors(predicted: Mapping[str, int], truth: Mapping[str, int]) -> ApexErrors:
    """Compares spotted apexes with the true ones.

    Args:
        predicted: Sample id -> spotted file number; `UNKNOWN_FRAME` where none was spotted.
        truth: Sample id -> true file number, as `Truth.apexes()` gives it.

    Returns:
        The errors in frames.

    >>> apex_errors({"smic/s01/s1_ne_01": 12}, {"smic/s01/s1_ne_01": 10}).mean_absolute
    2.0
    """
    known = {name for name, number in predicted.items() if name in truth and number != UNKNOWN_FRAME}
    return ApexErrors(
        {name: number - truth[name] for name, number in predicted.items() if name in known},
        tuple(name for name in predicted if name not in known),
    )


def true_flow(sample: TruthSample, strength: float, matrix: np.ndarray, size: int) -> np.ndarray:
    """Maps a true displacement into the aligned face.

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
    """Says why a sample's flow has no true counterpart; empty where it has one."""
    if sample.sample_id not in truth:
        return "not in the truth"
    if notes.get("frames_substituted"):
        return "computed from a neighbouring frame"
    if sample.apex == sample.onset:
        return "apex == onset"
    return ""


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


def _band_means(errors: list[FlowError]) -> tuple[BandError, ...]:
    bands = []
    for low, high in AMPLITUDE_BANDS:
        last = high == AMPLITUDE_BANDS[-1][1]
        inside = [e for e in errors if low <= e.amplitude < high or (last and e.amplitude == high)]
        means = [
            float(np.mean([getattr(e, name) for e in inside])) if inside else float("nan")
            for name in ("epe", "zero", "gain")
        ]
        bands.append(BandError(low, high, len(inside), *means))
    return tuple(bands)
