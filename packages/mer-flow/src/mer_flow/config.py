"""Every parameter between frames and flow: typed, defaulted, checked, and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, get_type_hints

from mer_flow.flow.params import BACKEND_ALIASES, FLOW_BACKENDS, BackendOptions, TVL1Params
from mer_flow.work.errors import UsageError
from mer_flow.work.suggest import unknown

ALIGN_REFERENCES = ("onset", "each")
REGION_BACKENDS = ("auto", "mediapipe-tasks", "mediapipe-legacy", "dlib")
REGION_FALLBACKS = ("dlib", "none")
STABILISERS = ("similarity", "median", "none")
AT_ONSET = ("keep", "spot", "drop")
SPOTTERS = ("midpoint", "difference", "flow-peak")


def _choice(key: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise unknown(f"value of {key}", value, known)


def _range(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{key} must lie between {low} and {high}, got {value}")


@dataclass(frozen=True, slots=True)
class FramesConfig:
    """How frame files stand in for frame numbers.

    Attributes:
        nearest_limit: A missing frame is replaced by the nearest existing one up to so many frames away.
    """

    nearest_limit: int = 2

    def __post_init__(self) -> None:
        _range("frames.nearest_limit", self.nearest_limit, 0, 1000)


@dataclass(frozen=True, slots=True)
class FacesConfig:
    """How a face is found (dlib HOG).

    Attributes:
        upsample: Doublings tried, one after the other, where no face is found at full size.
        min_score: Detections below this score are no faces.
        crop_padding: Border, as part of the longer side, with which each try is repeated on a cropped frame.
    """

    upsample: int = 1
    min_score: float = 0.0
    crop_padding: float = 0.25

    def __post_init__(self) -> None:
        _range("faces.upsample", self.upsample, 0, 3)
        _range("faces.min_score", self.min_score, -1, 10)
        _range("faces.crop_padding", self.crop_padding, 0, 2)


@dataclass(frozen=True, slots=True)
class AlignConfig:
    """The aligned face.

    Attributes:
        size: Side S of the aligned face and of the flow map, px.
        eye_distance: Distance of the eye centres, as part of S.
        eye_row: Row of the eye centres, as part of S.
        margin: Border computed with the flow and cut off after it, as part of S; 0 switches it off.
        reference: `onset`: one matrix, from the onset, for both frames, so alignment adds no motion. `each`:
            every frame by its own landmarks, whose jitter exceeds a micro-expression; kept to be measured,
            not to be used.
        prefilter: Area-like filter before shrinking.
    """

    size: int = 224
    eye_distance: float = 0.40
    eye_row: float = 0.32
    margin: float = 0.125
    reference: str = "onset"
    prefilter: bool = True

    def __post_init__(self) -> None:
        _range("align.size", self.size, 28, 2048)
        _range("align.eye_distance", self.eye_distance, 0.1, 0.9)
        _range("align.eye_row", self.eye_row, 0.05, 0.95)
        _range("align.margin", self.margin, 0, 1)
        _choice("align.reference", self.reference, ALIGN_REFERENCES)

    @property
    def margin_px(self) -> int:
        """The margin in px on each side."""
        return round(self.margin * self.size)


@dataclass(frozen=True, slots=True)
class FlowConfig(TVL1Params):
    """The flow backend, its parameters and how it computes.

    Attributes:
        backend: Name of the flow backend; `torch` and `opencv` are short for theirs.
        border: As in `BackendOptions`, and so on.
        device: Likewise.
        check_every: Likewise.
        compile: Likewise.
    """

    backend: str = "opencv-tvl1"
    border: str = "auto"
    device: str = "auto"
    check_every: int = 0
    compile: str = "auto"

    def __post_init__(self) -> None:
        TVL1Params.__post_init__(self)
        object.__setattr__(self, "backend", BACKEND_ALIASES.get(self.backend, self.backend))
        _choice("flow.backend", self.backend, FLOW_BACKENDS)
        _ = self.options  # checked there

    @property
    def params(self) -> TVL1Params:
        """The parameters of TV-L1 alone."""
        return TVL1Params(**{item.name: getattr(self, item.name) for item in fields(TVL1Params)})

    @property
    def options(self) -> BackendOptions:
        """Border, device and so on alone."""
        return BackendOptions(**{item.name: getattr(self, item.name) for item in fields(BackendOptions)})


@dataclass(frozen=True, slots=True)
class StabiliseConfig:
    """Removal of the head's own motion from the flow.

    Attributes:
        method: `similarity` (robust LMedS fit over the face), `median` (translation only) or `none`.
        trials: Point pairs drawn by LMedS.
        seed: Seed of that draw.
    """

    method: str = "similarity"
    trials: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        _choice("stabilise.method", self.method, STABILISERS)
        _range("stabilise.trials", self.trials, 10, 100_000)


@dataclass(frozen=True, slots=True)
class StrainConfig:
    """Optical strain.

    Attributes:
        smooth_sigma: Gaussian smoothing of u and v before differencing, px; 0 switches it off.
    """

    smooth_sigma: float = 0.0

    def __post_init__(self) -> None:
        _range("strain.smooth_sigma", self.smooth_sigma, 0, 100)


@dataclass(frozen=True, slots=True)
class RegionsConfig:
    """The five region centres on the apex.

    Attributes:
        backend: `auto`, `mediapipe-tasks`, `mediapipe-legacy` or `dlib`.
        fallback: `dlib`: its points stand in where the backend fails on a sample (recorded); `none`: the
            sample fails.
        max_eye_error: Largest accepted distance of the backend's eye centres from dlib's, in inter-ocular
            distances.
    """

    backend: str = "auto"
    fallback: str = "dlib"
    max_eye_error: float = 0.15

    def __post_init__(self) -> None:
        _choice("regions.backend", self.backend, REGION_BACKENDS)
        _choice("regions.fallback", self.fallback, REGION_FALLBACKS)
        _range("regions.max_eye_error", self.max_eye_error, 0, 10)


@dataclass(frozen=True, slots=True)
class ApexConfig:
    """Where the apex comes from.

    Attributes:
        source: `sheet`, or a spotter to use for every sample.
        missing: The spotter for a sample whose sheet has no apex.
        at_onset: What becomes of a sample whose sheet puts the apex on the onset: `keep` it, its flow zero
            (recorded); `spot` its apex by the spotter of `missing`; `drop` it (recorded as failed). Of no
            effect where `source` spots every apex.
    """

    source: str = "sheet"
    missing: str = "flow-peak"
    at_onset: str = "keep"

    def __post_init__(self) -> None:
        _choice("apex.source", self.source, ("sheet", *SPOTTERS))
        _choice("apex.missing", self.missing, SPOTTERS)
        _choice("apex.at_onset", self.at_onset, AT_ONSET)


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """Everything that decides what a store holds.

    >>> config = apply_settings(PipelineConfig(), ["flow.tau=0.2", "align.size=128"])
    >>> config.flow.tau, config.align.margin_px
    (0.2, 16)
    >>> PipelineConfig.from_dict(config.to_dict()) == config
    True
    """

    frames: FramesConfig = field(default_factory=FramesConfig)
    faces: FacesConfig = field(default_factory=FacesConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    stabilise: StabiliseConfig = field(default_factory=StabiliseConfig)
    strain: StrainConfig = field(default_factory=StrainConfig)
    regions: RegionsConfig = field(default_factory=RegionsConfig)
    apex: ApexConfig = field(default_factory=ApexConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Returns nested plain values, every parameter included."""
        return asdict(self)

    def to_json(self) -> str:
        """Returns canonical JSON: sorted keys, every parameter included."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def hash(self) -> str:
        """Returns 16 hexadecimal digits that differ as soon as one parameter does."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PipelineConfig:
        """Builds a configuration from nested plain values; what is absent keeps its default.

        Args:
            values: Section -> key -> value, as `to_dict` returns and TOML gives.

        Raises:
            UsageError: An unknown section or key (with the nearest known one), or a value of a wrong type or
                range.
        """
        sections = get_type_hints(cls)
        built = {}
        for section, entries in values.items():
            if section not in sections:
                raise unknown("pipeline section", section, sections)
            if not isinstance(entries, Mapping):
                raise UsageError(f"pipeline section '{section}' must hold keys and values, got {entries!r}")
            hints = get_type_hints(sections[section])
            known = [item.name for item in fields(sections[section])]
            checked = {}
            for key, value in entries.items():
                if key not in known:
                    raise unknown("pipeline key", f"{section}.{key}", [f"{section}.{name}" for name in known])
                checked[key] = _typed(f"{section}.{key}", value, hints[key])
            built[section] = sections[section](**checked)
        return cls(**built)

    @classmethod
    def from_json(cls, text: str) -> PipelineConfig:
        """Builds a configuration from what `to_json` wrote."""
        return cls.from_dict(json.loads(text))


def _typed(key: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise UsageError(f"{key} must be of type {kind.__name__}, got {value!r}")
    return value


def _parsed(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        words = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if text.lower() not in words:
            raise UsageError(f"{key} must be true or false, got '{text}'")
        return words[text.lower()]
    try:
        return kind(text)
    except ValueError as error:
        raise UsageError(f"{key} must be of type {kind.__name__}, got '{text}'") from error


def setting_keys() -> tuple[str, ...]:
    """Returns every dotted key, as in `flow.tau`."""
    return tuple(
        f"{section.name}.{item.name}"
        for section in fields(PipelineConfig)
        for item in fields(get_type_hints(PipelineConfig)[section.name])
    )


def apply_settings(config: PipelineConfig, settings: Iterable[str]) -> PipelineConfig:
    """Overrides single parameters.

    Args:
        config: Where to start from.
        settings: `section.key=value` each; later ones win.

    Returns:
        A new configuration.

    Raises:
        UsageError: A setting without `=`, an unknown key (with the nearest known one), a wrong type or range.

    >>> apply_settings(PipelineConfig(), ["flow.tua=0.2"])
    Traceback (most recent call last):
    ...
    mer_flow.work.errors.UsageError: unknown setting 'flow.tua'; did you mean 'flow.tau'? Known: ...
    """
    keys = setting_keys()
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key, text = key.strip(), text.strip()
        if not equals:
            raise UsageError(f"setting '{setting}' lacks '='; write section.key=value, as in flow.tau=0.2")
        if key not in keys:
            raise unknown("setting", key, keys)
        section, name = key.split(".")
        part = getattr(config, section)
        assert is_dataclass(part)
        changes.setdefault(section, {})[name] = _parsed(key, text, get_type_hints(type(part))[name])
    return replace(
        config, **{name: replace(getattr(config, name), **entries) for name, entries in changes.items()}
    )
