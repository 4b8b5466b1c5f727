"""One sample from its frames to its encoded record: what a build's worker does."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from mer_flow.config import ApexConfig, PipelineConfig
from mer_flow.databases.clips import ClipTask
from mer_flow.extraction.apex import spot_clip
from mer_flow.extraction.extractor import Extractor, PreparedPair, worker_extractor
from mer_flow.extraction.sequence import reduced_sequence, sequence_pairs
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.store.encode import EncodeOptions, SampleRecord, encode_sample
from mer_flow.work.clock import Clock, peak_memory_mb
from mer_flow.work.errors import (
    ApexError,
    FaceError,
    FlowError,
    FrameError,
    MerFlowError,
    MissingDependencyError,
    ModelFileError,
    WorkerError,
)
from mer_flow.work.settings import Settings

#: Errors that name the stage by themselves.
_STAGES: dict[type[Exception], str] = {
    ApexError: "apex", FrameError: "frames", FaceError: "face", FlowError: "flow"
}  # fmt: skip
#: Frames of a clip that a store keeps at most: a micro-expression at 200 frames a second has a hundred.
MOST_FRAMES = 1000


class Keep(Settings):
    """What a store keeps of each sample besides landmarks, and how.

    Attributes:
        faces: Keep the aligned onset and apex faces (private data).
        clips: Keep this many aligned frames per sample, evenly spaced from onset to offset; 0 for none.
        dtype: Of the flow.
        compression: gzip level.
        sequence: Keep flow along the clip too: `consecutive` from each frame to the next, `onset` from the
            onset to each later frame; empty for none.
        sequence_frames: Frames of the clip that it runs over, evenly spaced from onset to offset.
        sequence_size: Side of its maps, px.
    """

    where = "keep"
    faces: bool = False
    clips: int = Field(default=0, ge=0, le=MOST_FRAMES)
    dtype: Literal["float16", "float32"] = "float16"
    compression: int = Field(default=4, ge=0, le=9)
    sequence: Literal["", "consecutive", "onset"] = ""
    sequence_frames: int = Field(default=16, ge=2, le=MOST_FRAMES)
    sequence_size: int = 112

    def encoding(self) -> EncodeOptions:
        """Return how records are encoded."""
        return EncodeOptions(dtype=self.dtype, compression=self.compression)


@dataclass(frozen=True, slots=True)
class PreparedSample:
    """A sample that lacks its flow only.

    Attributes:
        sample: Its row, the apex the one that is used.
        pair: Onset and apex, aligned.
        sequence: uint8 (K, S + 2 margin, S + 2 margin): grey frames of a flow sequence; None where none is
            kept.
        clips: As in `SampleRecord`.
        notes: What was decided so far, `fallbacks` included.
    """

    sample: Sample
    pair: PreparedPair
    sequence: np.ndarray | None
    clips: np.ndarray | None
    notes: dict[str, Any]

    def pairs(self, mode: str) -> np.ndarray:
        """Return the frames that flow is wanted between: uint8 (M, 2, H, W), onset and apex first."""
        main = self.pair.grey[None]
        return main if self.sequence is None else np.concatenate([main, sequence_pairs(self.sequence, mode)])


@dataclass
class Outcome:
    """What became of one sample: a payload to commit, or a stage and a reason.

    Attributes:
        prepared: The sample while another process computes its flow.
        seconds: Seconds per stage.
        peak_mb: Peak resident memory of the processes that worked on it, MB.
    """

    sample_id: str
    payload: bytes | None = None
    stage: str = ""
    reason: str = ""
    fallbacks: tuple[str, ...] = ()
    prepared: PreparedSample | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0


def outcome_of(sample_id: str, future: Future[Outcome]) -> Outcome:
    """Return what a worker made of a sample; one that workers died over fails alone."""
    try:
        return future.result()
    except WorkerError as error:
        return Outcome(sample_id, stage="worker", reason=str(error))


def extract_sample(task: ClipTask, config: PipelineConfig, keep: Keep) -> Outcome:
    """Extract and encode one sample; whatever goes wrong with it becomes its outcome.

    Raises:
        MerFlowError: This machine lacks a library or a model, so that no sample can be extracted.
    """
    engine = worker_extractor(config)
    outcome = Outcome(task.sample.sample_id)
    with _accounted(outcome) as clock:
        _encode(outcome, extract_record(task, engine, keep, clock), keep, clock)
    return outcome


def prepare_sample(task: ClipTask, config: PipelineConfig, keep: Keep) -> Outcome:
    """Do what comes before the flow, where another process computes it."""
    engine = worker_extractor(config, flow=False)
    outcome = Outcome(task.sample.sample_id)
    with _accounted(outcome) as clock:
        outcome.prepared = prepare_record(task, engine, keep, clock)
    return outcome


def finish_sample(task: tuple[Outcome, np.ndarray], config: PipelineConfig, keep: Keep) -> Outcome:
    """Do what comes after the flow.

    Args:
        task: From `prepare_sample`, and float32 (M, 2, H, W) px, the flow of `PreparedSample.pairs`.
        config: The pipeline.
        keep: What to keep.
    """
    engine = worker_extractor(config, flow=False)
    outcome, flows = task
    prepared, outcome.prepared = outcome.prepared, None
    assert prepared is not None
    with _accounted(outcome) as clock:
        _encode(outcome, finish_record(prepared, flows, engine, keep, clock), keep, clock)
    return outcome


@contextmanager
def _accounted(outcome: Outcome) -> Iterator[Clock]:
    """Write times, memory and whatever goes wrong into an outcome."""
    clock = Clock(outcome.seconds)
    try:
        yield clock
    except (MissingDependencyError, ModelFileError):
        raise
    except (MerFlowError, MemoryError) as error:
        stage = _STAGES.get(type(error))
        outcome.stage = stage or clock.stage
        outcome.reason = str(error) if stage else f"{type(error).__name__}: {error}"
    except Exception as error:  # a defect must cost one sample, not the build; the reason says where it broke
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome.stage = clock.stage
        outcome.reason = (
            f"unexpected {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        )
    outcome.peak_mb = max(outcome.peak_mb, peak_memory_mb())


def _encode(outcome: Outcome, record: SampleRecord, keep: Keep, clock: Clock) -> None:
    outcome.fallbacks = tuple(record.notes["fallbacks"])
    with clock("compress"):
        outcome.payload = encode_sample(record, keep.encoding())


def extract_record(task: ClipTask, engine: Extractor, keep: Keep, clock: Clock) -> SampleRecord:
    """Extract one sample; its notes list every fallback, the clock gets the seconds of every stage.

    Raises:
        ApexError: The apex is the onset, and `apex.at_onset` drops such samples or cannot spot another.
        FrameError: The folder or a frame is missing, or a frame is unreadable.
        FaceError: No usable face.
        FlowError: The flow backend failed.
    """
    prepared = prepare_record(task, engine, keep, clock)
    with clock("flow"):
        pairs = prepared.pairs(keep.sequence)
        flows = engine.flow.compute(pairs[:, 0], pairs[:, 1])
    return finish_record(prepared, flows, engine, keep, clock)


def prepare_record(task: ClipTask, engine: Extractor, keep: Keep, clock: Clock) -> PreparedSample:
    """Do what comes before the flow; see `extract_record`, which this is the first part of."""
    from mer_flow.faces.align import to_grey

    sample, config = task.sample, engine.config
    spotted = _spotter(sample, config.apex)
    clip = task.open(config.frames.nearest_limit)
    with clock("decode"):
        onset = clip.read_onset()
    with clock("face"):
        face = engine.find_face(onset, task.cropped, clip.others())
    if spotted:
        with clock("face"):
            number = spot_clip(clip, (spotted,), engine, face)[spotted]
        source = "midpoint" if spotted == "midpoint" else f"spotted:{spotted}"
        sample = replace(sample, apex=number, apex_source=source)
    with clock("decode"):
        apex = clip.read("apex", sample.apex)
    with clock("face"):
        pair = engine.prepare_pair(onset, apex, face)

    notes: dict[str, Any] = dict(pair.notes)
    fallbacks = list(notes.get("fallbacks", ()))
    for role, distance in clip.substituted.items():
        notes.setdefault("frames_substituted", {})[role] = distance
        fallbacks.append(f"frame-substituted-{role}")
    if sample.apex == sample.onset:
        fallbacks.append("apex-at-onset")
    elif task.sample.apex == task.sample.onset and config.apex.source == "sheet":
        fallbacks.append("apex-at-onset-spotted")
    notes["fallbacks"] = sorted(set(fallbacks))

    def along(count: int, margin: int, name: str) -> list[np.ndarray]:
        with clock("decode"):
            numbers = clip.spread(count)
            frames = [clip.read_exact(number) for number in numbers]
        notes[name] = list(numbers)
        with clock("face"):
            return engine.align_clip(frames, face, margin)

    clips = np.stack(along(keep.clips, 0, "clip_frames")) if keep.clips else None
    sequence = None
    if keep.sequence:
        wide = along(keep.sequence_frames, config.align.margin_px, "sequence_frames")
        sequence = np.stack([to_grey(frame) for frame in wide])
    return PreparedSample(sample, pair, sequence, clips, notes)


def finish_record(
    prepared: PreparedSample, flows: np.ndarray, engine: Extractor, keep: Keep, clock: Clock
) -> SampleRecord:
    """Do what comes after the flow; `flows` is float32 (M, 2, H, W) px, of `prepared.pairs`."""
    with clock("stabilise"):
        found = engine.finish_pair(prepared.pair, flows[0])
        sequence = None
        if prepared.sequence is not None:
            sequence = reduced_sequence(flows[1:], prepared.pair.landmarks, engine, keep.sequence_size)
    motion = {key: value for key, value in found.notes.items() if key == "head_motion"}
    return SampleRecord(
        sample=prepared.sample,
        flow=found.flow,
        landmarks=found.landmarks,
        regions=found.regions,
        alignment=found.alignment,
        faces=np.stack([found.onset_face, found.apex_face]) if keep.faces else None,
        clips=prepared.clips,
        flow_sequence=sequence,
        notes=prepared.notes | motion,
    )


def _spotter(sample: Sample, config: ApexConfig) -> str:
    """Return the spotter that finds a sample's apex; empty where the sheet's is taken."""
    if config.source != "sheet":
        return config.source
    if sample.apex == UNKNOWN_FRAME:
        return config.missing
    if sample.apex != sample.onset or config.at_onset == "keep":
        return ""
    where = f"{sample.sample_id}: apex and onset are both frame {sample.onset}"
    if config.at_onset == "drop":
        raise ApexError(f"{where}, so there is no movement; dropped, as apex.at_onset=drop says")
    if sample.offset == UNKNOWN_FRAME:
        raise ApexError(
            f"{where}, and without an offset there is no interval to spot an apex in; "
            "give the offset in the sheet, or set apex.at_onset=keep"
        )
    return config.missing
