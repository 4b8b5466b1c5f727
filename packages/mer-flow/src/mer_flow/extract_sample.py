"""One sample from its frames to its encoded record: what a build's worker does."""

from __future__ import annotations

import os
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mer_flow.clip_apex import spot_methods
from mer_flow.clips import ClipTask
from mer_flow.config import ApexConfig, PipelineConfig
from mer_flow.errors import ApexError, FaceError, FlowError, FrameError, MerFlowError
from mer_flow.pipeline import Extractor, FoundFace
from mer_flow.pipeline import prepare_worker as load_extractor
from mer_flow.record import EncodeOptions, SampleRecord, encode_sample
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.workers import peak_memory_mb


@dataclass(frozen=True, slots=True)
class Keep:
    """What a store keeps of each sample besides landmarks, and how.

    Attributes:
        faces: Keep the aligned onset and apex faces (private data).
        clips: Keep this many aligned frames per sample, evenly spaced from onset to offset; 0 for none.
        dtype: Of the flow, `float16` or `float32`.
        compression: gzip level, 0 to 9.
    """

    faces: bool = False
    clips: int = 0
    dtype: Literal["float16", "float32"] = "float16"
    compression: int = 4

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as part of a store's parameters."""
        return {"keep": asdict(self)}

    def encoding(self) -> EncodeOptions:
        """Returns how records are encoded."""
        return EncodeOptions(dtype=self.dtype, compression=self.compression)


@dataclass
class Outcome:
    """What became of one sample: a payload to commit, or a stage and a reason."""

    sample_id: str
    payload: bytes | None = None
    stage: str = ""
    reason: str = ""
    fallbacks: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0
    peak_mb: float = 0.0


class Clock:
    """Adds up the seconds spent in each named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.stage = "start"

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times a block as part of a stage."""
        self.stage = stage
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


#: Set once per worker process by `prepare_worker`; a task then carries only its sample.
_settings: tuple[Extractor, Keep] | None = None


def prepare_worker(config: PipelineConfig, keep: Keep) -> None:
    """Sets a worker process up: one thread per library, models loaded once."""
    global _settings
    os.environ["OMP_NUM_THREADS"] = "1"
    _settings = load_extractor(config), keep


def extract_sample(task: ClipTask) -> Outcome:
    """Extracts and encodes one sample; whatever goes wrong becomes its outcome.

    Args:
        task: The sample and its folder.

    Returns:
        The payload to commit, or the stage and reason of the failure.
    """
    if _settings is None:
        raise RuntimeError("prepare_worker was not called in this process")
    engine, keep = _settings
    outcome = Outcome(task.sample.sample_id)
    clock = Clock()
    start = time.perf_counter()
    try:
        record = extract_record(task, engine, keep, clock)
        outcome.fallbacks = tuple(record.notes["fallbacks"])
        with clock("compress"):
            outcome.payload = encode_sample(record, keep.encoding())
    except ApexError as error:
        outcome.stage, outcome.reason = "apex", str(error)
    except FrameError as error:
        outcome.stage, outcome.reason = "frames", str(error)
    except FaceError as error:
        outcome.stage, outcome.reason = "face", str(error)
    except FlowError as error:
        outcome.stage, outcome.reason = "flow", str(error)
    except (MerFlowError, MemoryError) as error:
        outcome.stage, outcome.reason = clock.stage, f"{type(error).__name__}: {error}"
    except Exception as error:  # a defect must cost one sample, not the build; the reason says where it broke
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome.stage = clock.stage
        outcome.reason = (
            f"unexpected {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        )
    outcome.seconds = dict(clock.seconds)
    outcome.wall = time.perf_counter() - start
    outcome.peak_mb = peak_memory_mb()
    return outcome


def extract_record(task: ClipTask, engine: Extractor, keep: Keep, clock: Clock) -> SampleRecord:
    """Extracts one sample.

    Args:
        task: The sample and its folder.
        engine: The pipeline.
        keep: What to keep.
        clock: Gets the seconds of every stage.

    Returns:
        The record; its notes list every fallback.

    Raises:
        ApexError: The apex is the onset, and `apex.at_onset` drops such samples or cannot spot another.
        FrameError: The folder or a frame is missing, or a frame is unreadable.
        FaceError: No usable face.
        FlowError: The flow backend failed.
    """
    sample, config = task.sample, engine.config
    spotted = _spotter(sample, config.apex)
    clip = task.open(config.frames.nearest_limit)
    with clock("decode"):
        onset = clip.read_onset()

    face: FoundFace | None = None
    if spotted or keep.clips:
        with clock("face"):
            face = engine.find_face(onset, task.cropped)
    if spotted:
        assert face is not None
        with clock("face"):
            number = spot_methods(clip, (spotted,), engine, face)[spotted]
        source = "midpoint" if spotted == "midpoint" else f"spotted:{spotted}"
        sample = replace(sample, apex=number, apex_source=source)
    with clock("decode"):
        apex = clip.read("apex", sample.apex)

    found = engine.extract_pair(onset, apex, task.cropped)
    for stage, seconds in found.seconds.items():
        clock.seconds["flow" if stage in ("flow", "stabilise", "strain") else "face"] += seconds
    notes: dict[str, Any] = dict(found.notes)
    fallbacks = list(notes.get("fallbacks", ()))
    for role, distance in clip.substituted.items():
        notes.setdefault("frames_substituted", {})[role] = distance
        fallbacks.append(f"frame-substituted-{role}")
    if sample.apex == sample.onset:
        fallbacks.append("apex-at-onset")
    elif task.sample.apex == task.sample.onset and config.apex.source == "sheet":
        fallbacks.append("apex-at-onset-spotted")
    notes["fallbacks"] = sorted(set(fallbacks))
    if keep.clips and face is not None:
        with clock("decode"):
            numbers = clip.spread(keep.clips)
            frames = [clip.read_exact(number) for number in numbers]
        with clock("face"):
            clips = np.stack(engine.align_clip(frames, face))
        notes["clip_frames"] = [number - task.shift for number in numbers]
    else:
        clips = None
    return SampleRecord(
        sample=sample,
        flow=found.flow,
        landmarks=found.landmarks,
        regions=found.regions,
        alignment=found.alignment,
        faces=np.stack([found.onset_face, found.apex_face]) if keep.faces else None,
        clips=clips,
        notes=notes,
    )


def _spotter(sample: Sample, config: ApexConfig) -> str:
    """Returns the spotter that finds a sample's apex; empty where the sheet's is taken.

    Raises:
        ApexError: The apex is the onset, and such samples are dropped or have no interval to search.
    """
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
