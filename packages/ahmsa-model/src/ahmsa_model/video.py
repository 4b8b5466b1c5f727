"""From a video, or a folder of frames, to class probabilities of one moment, or of all that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ahmsa_model.checkpoint import AHMSANet
from ahmsa_model.errors import InputError
from ahmsa_model.predict import Prediction, flow_errors, loaded, pipeline_of, predict_frames

if TYPE_CHECKING:
    from mer_flow.extraction.extractor import Extractor
    from mer_flow.extraction.footage import Footage
    from mer_flow.extraction.moments import Stretch
    from mer_flow.extraction.watch import Sighting

#: Seconds beyond which a clip is hardly one micro-expression, which lasts half a second at the most.
LONG = 2.0
#: Frames per second below which half a second has hardly a frame of the apex.
SLOW = 25.0
#: Most candidate moments that are classified.
MOST = 20


@dataclass(frozen=True)
class Looking:
    """Where in a clip to look.

    Attributes:
        onset: A moment, as in `12` (frame) or `0.2s`; the first frame unless given.
        apex: A moment; spotted unless given.
        fps: Frames per second of a folder, or in place of what a video says.
        spotter: How the apex is found; the pipeline's unless given.
        every: Seconds from one window to the next: candidate moments are looked for along the whole clip.
        window: Length of such a window, seconds.
    """

    onset: str | None = None
    apex: str | None = None
    fps: float | None = None
    spotter: str | None = None
    every: float | None = None
    window: float = 0.5


@dataclass(frozen=True)
class Moment:
    """A moment of a clip, and what the network says of it.

    Attributes:
        onset: Position of the onset frame, counted from 0.
        apex: Position of the apex frame.
        end: Position of the last frame that was looked at for it.
        movement: The largest movement along it, px of a 224 px face; a mean over the regions that move most.
        sightings: The face in some of its frames.
    """

    onset: int
    apex: int
    end: int
    movement: float
    sightings: tuple[Sighting, ...]
    prediction: Prediction


@dataclass(frozen=True)
class VideoPrediction:
    """What the network says of a clip.

    Attributes:
        moments: In order; one, or with `Looking.every` as many as stand out.
        curve: Position and movement, px of a 224 px face: along the one moment, or a point per window. An aid
            for spotting, no detector.
        threshold: With `Looking.every`, what a candidate's movement must exceed; 0 otherwise.
        warnings: Of the clip and of each moment.
    """

    footage: Footage
    moments: tuple[Moment, ...]
    curve: tuple[tuple[int, float], ...]
    threshold: float
    warnings: tuple[str, ...]

    @property
    def strongest(self) -> Moment:
        """The moment of the largest movement; there must be one."""
        return max(self.moments, key=lambda moment: moment.movement)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        footage = self.footage

        def place(position: int) -> dict[str, Any]:
            seconds = None if footage.times is None else round(float(footage.times[position]), 4)
            return {"frame": footage.numbers[position], "seconds": seconds}

        return {
            "video": str(footage.path),
            "frames": len(footage),
            "fps": footage.fps,
            "moments": [
                {
                    **moment.prediction.to_dict(),
                    "onset_at": place(moment.onset),
                    "apex_at": place(moment.apex),
                    "movement_px": round(moment.movement, 4),
                }
                for moment in self.moments
            ],
            "curve": [{**place(position), "px": round(px, 4)} for position, px in self.curve],
            "threshold_px": self.threshold,
            "warnings": list(self.warnings),
        }


def predict_video(
    network: AHMSANet | Path | str,
    source: Path | str,
    looking: Looking | None = None,
    *,
    cropped: bool = False,
    default_pipeline: bool = False,
    settings: Sequence[str] = (),
) -> VideoPrediction:
    """Classify a micro-expression in a clip, or every moment of it that stands out.

    Args:
        network: A network with its metadata, or its checkpoint.
        source: A video file, or a folder of pictures whose names carry their numbers.
        looking: Where to look; the whole clip as one movement unless given.
        cropped: The frames are face crops already.
        default_pipeline: As for `predict_pair`, as `settings`.
        settings: Parameters of the pipeline to change.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        InputError: The clip cannot be decoded, has no face or no such moment, or the checkpoint does not say
            how its maps were made.
        MissingDependencyError: mer-flow or one of its face packages is absent.
    """
    network, looking = loaded(network), looking or Looking()
    with flow_errors():
        from mer_flow.extraction.extractor import extractor
        from mer_flow.extraction.footage import open_footage
        from mer_flow.extraction.watch import watch_warnings

        config = pipeline_of(network, default_pipeline, settings)
        engine = extractor(config)
        footage = open_footage(Path(source), looking.fps)
        warnings = [*footage.notes, *_rate_warning(footage)]
        method = looking.spotter or config.apex.missing
        threshold = 0.0
        if looking.every is None:
            stretch, given = _one_stretch(footage, looking, engine, method, cropped)
            found = [(stretch, given)]
            curve = [(stretch.first + i, float(px)) for i, px in enumerate(stretch.curve)]
            warnings += _length_warning(footage, looking)
        else:
            stretches, curve, threshold, said = _stretches(footage, looking, engine, method)
            found = [(item, None) for item in stretches]
            warnings += said
        moments = []
        wanted = sorted({at for item, apex in found for at in (item.first, apex or item.apex)})
        frames = dict(zip(wanted, footage.frames(wanted), strict=True))
        for item, apex in found:
            places = (item.first, apex or item.apex)
            prediction = predict_frames(
                network,
                config,
                [frames[at] for at in places],
                cropped,
                [footage.named(at) for at in places],
                "given" if apex else f"spotted:{method}",
            )
            last = item.first + len(item.curve) - 1
            moments.append(Moment(*places, last, item.strength, item.sightings, prediction))
            if item.sightings:
                warnings += watch_warnings(item.sightings, footage)
            warnings += prediction.warnings
            if not any("within the noise" in warning for warning in prediction.warnings):
                warnings += _still_warning(item)
    return VideoPrediction(footage, tuple(moments), tuple(curve), threshold, tuple(dict.fromkeys(warnings)))


def _one_stretch(
    footage: Footage, looking: Looking, engine: Extractor, method: str, cropped: bool
) -> tuple[Stretch, int | None]:
    """Follow the one movement that was asked for; return it and the position of the given apex, if any."""
    from mer_flow.extraction.moments import read_stretches

    first = footage.position(looking.onset) if looking.onset is not None else 0
    last, given = len(footage) - 1, None
    if looking.apex is not None:
        given = footage.position(looking.apex)
        if given <= first:
            raise InputError(
                f"{footage.path}: the apex, {footage.named(given)}, does not follow the onset, "
                f"{footage.named(first)}; give a later --apex or an earlier --onset"
            )
        last = min(last, 2 * given - first)  # as long after the apex as before it
    elif first == last:
        raise InputError(f"{footage.path}: {footage.named(first)} is the last; an onset has frames after it")
    (stretch,) = read_stretches(footage, [(first, last)], engine, method, cropped)
    return stretch, given


def _stretches(
    footage: Footage, looking: Looking, engine: Extractor, method: str
) -> tuple[list[Stretch], list[tuple[int, float]], float, list[str]]:
    """Slide a window along the clip; return candidates, curve, threshold, and what is to be said."""
    from mer_flow.extraction.moments import read_stretches, slide, windows_of

    assert looking.every is not None
    if looking.onset is not None or looking.apex is not None:
        raise InputError("--every looks for moments itself; leave --onset and --apex out")
    windows = windows_of(list(slide(footage, looking.every, looking.window, engine)))
    warnings = []
    if windows.faceless:
        many = len(windows.faceless) + len(windows.stretches)
        if not windows.stretches:
            raise InputError(
                f"{footage.path}: no face at the beginning of any of its {many} windows; look at the video; "
                "for a small face: --set faces.upsample=2"
            )
        warnings.append(
            f"no face at the beginning of {len(windows.faceless)} of {many} windows, "
            f"{footage.named(windows.faceless[0])} the first; they are left out"
        )
    chosen = windows.candidates(MOST)
    if not chosen:
        most = max(stretch.strength for stretch in windows.stretches)
        warnings.append(
            f"no moment stands out: the strongest movement is {most:.2f} px of a 224 px face, "
            f"a candidate needs {windows.threshold:.2f} px"
        )
    if len(chosen) == MOST:
        warnings.append(f"only the {MOST} strongest candidate moments are classified")
    spans = [(stretch.first, stretch.first + len(stretch.curve) - 1) for stretch in chosen]
    found = read_stretches(footage, spans, engine, method)
    curve: dict[int, float] = {}  # several windows may see the same top
    for stretch in sorted(windows.stretches, key=lambda stretch: (stretch.top, stretch.strength)):
        curve[stretch.top] = stretch.strength
    return found, list(curve.items()), windows.threshold, warnings


def _still_warning(stretch: Stretch) -> list[str]:
    """Say that nothing moves where noise of the single pair, which compression raises, has hidden it."""
    from mer_flow.extraction.moments import STILL

    if stretch.strength > STILL:
        return []
    return [
        f"skin moves by {stretch.strength:.2g} px of a 224 px face at the most, within the noise of a still "
        f"face in a video ({STILL:g} px): the classes mean nothing"
    ]


def _rate_warning(footage: Footage) -> list[str]:
    if footage.fps is None or footage.fps >= SLOW:
        return []
    return [
        f"{footage.fps:.3g} frames per second: a micro-expression lasts at most half a second, of which "
        f"{footage.fps / 2:.0f} frames are left"
    ]


def _length_warning(footage: Footage, looking: Looking) -> list[str]:
    if footage.times is None or looking.onset is not None or footage.times[-1] <= LONG:
        return []
    return [
        f"the clip lasts {footage.times[-1]:.1f} s and is taken as one movement that begins at its first "
        "frame; say where it is with --onset and --apex, or look for moments with --every 0.25"
    ]
