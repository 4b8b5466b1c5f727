"""Every parameter between frames and flow: typed, defaulted, checked, and hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from mer_flow.flow.params import BACKEND_ALIASES, BackendOptions, TVL1Params
from mer_flow.work.settings import Settings, layered, parse_sets, read_toml
from mer_flow.work.where import Where

Spotter = Literal["midpoint", "difference", "flow-peak"]
SPOTTERS: tuple[Spotter, ...] = get_args(Spotter)


class FramesConfig(Settings):
    """How frame files stand in for frame numbers.

    Attributes:
        nearest_limit: A missing frame is replaced by the nearest existing one up to so many frames away.
    """

    where = "frames"
    nearest_limit: int = Field(default=2, ge=0, le=1000)


class FacesConfig(Settings):
    """How a face is found (dlib HOG).

    Attributes:
        upsample: Doublings tried, one after the other, where no face is found at full size.
        min_score: Detections below this score are no faces.
        crop_padding: Border, as part of the longer side, with which each try is repeated on a cropped frame.
        doubtful_score: Below it a face is compared with those in other frames of its clip.
        max_drop: A doubtful face that scores by more than this below their median is refused.
    """

    where = "faces"
    upsample: int = Field(default=1, ge=0, le=3)
    min_score: float = Field(default=0.0, ge=-1, le=10)
    crop_padding: float = Field(default=0.25, ge=0, le=2)
    doubtful_score: float = Field(default=0.5, ge=-1, le=10)
    max_drop: float = Field(default=0.75, ge=0)


class AlignConfig(Settings):
    """The aligned face. One matrix, from the onset, holds for both frames, so alignment adds no motion.

    Attributes:
        size: Side S of the aligned face and of the flow map, px.
        eye_distance: Distance of the eye centres, as part of S.
        eye_row: Row of the eye centres, as part of S.
        margin: Border computed with the flow and cut off after it, as part of S; 0 switches it off.
        prefilter: Area-like filter before shrinking.
    """

    where = "align"
    size: int = Field(default=224, ge=28, le=2048)
    eye_distance: float = Field(default=0.40, ge=0.1, le=0.9)
    eye_row: float = Field(default=0.32, ge=0.05, le=0.95)
    margin: float = Field(default=0.125, ge=0, le=1)
    prefilter: bool = True

    @property
    def margin_px(self) -> int:
        """The margin in px on each side."""
        return round(self.margin * self.size)


class FlowConfig(Settings):
    """The flow backend, and the fields of `TVL1Params` and `BackendOptions`, which check themselves.

    Attributes:
        backend: Name of the flow backend; `torch` and `opencv` are short for theirs.
    """

    where = "flow"
    backend: Literal["opencv-tvl1", "torch-tvl1"] = "opencv-tvl1"
    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    nscales: int = 5
    warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8
    gamma: float = 0.0
    median_filtering: int = 5
    border: str = "auto"
    device: str = "auto"
    check_every: int = 0
    compile: str = "auto"

    @field_validator("backend", mode="before")
    @classmethod
    def _in_full(cls, name: Any) -> Any:
        return BACKEND_ALIASES.get(name, name) if isinstance(name, str) else name

    @model_validator(mode="after")
    def _parts_check_themselves(self) -> Self:
        _ = self.params, self.options
        return self

    @property
    def params(self) -> TVL1Params:
        """The parameters of TV-L1 alone."""
        return TVL1Params(**self.model_dump(include={item.name for item in fields(TVL1Params)}))

    @property
    def options(self) -> BackendOptions:
        """Border, device and so on alone."""
        return BackendOptions(**self.model_dump(include={item.name for item in fields(BackendOptions)}))


class StabiliseConfig(Settings):
    """Removal of the head's own motion from the flow.

    Attributes:
        method: `similarity` (robust LMedS fit over the face), `median` (translation only) or `none`.
        trials: Point pairs drawn by LMedS.
        seed: Seed of that draw.
    """

    where = "stabilise"
    method: Literal["similarity", "median", "none"] = "similarity"
    trials: int = Field(default=400, ge=10, le=100_000)
    seed: int = 0


class StrainConfig(Settings):
    """Optical strain.

    Attributes:
        smooth_sigma: Gaussian smoothing of u and v before differencing, px; 0 switches it off.
    """

    where = "strain"
    smooth_sigma: float = Field(default=0.0, ge=0, le=100)


class RegionsConfig(Settings):
    """The five region centres on the apex.

    Attributes:
        backend: What finds them; `no-mesh` is what `auto` becomes where only dlib is at hand.
        fallback: `dlib`: its points stand in where the backend fails on a sample (recorded); `none`: the
            sample fails, also where the two disagree.
        max_eye_error: Distance of the backend's eye centres from dlib's, in inter-ocular distances, beyond
            which they disagree: regions and alignment then follow the backend (recorded).
    """

    where = "regions"
    backend: Literal["auto", "mediapipe-tasks", "mediapipe-legacy", "dlib", "no-mesh"] = "auto"
    fallback: Literal["dlib", "none"] = "dlib"
    max_eye_error: float = Field(default=0.15, ge=0, le=10)


class ApexConfig(Settings):
    """Where the apex comes from.

    Attributes:
        source: `sheet`, or a spotter to use for every sample.
        missing: The spotter for a sample whose sheet has no apex.
        at_onset: What becomes of a sample whose sheet puts the apex on the onset: `keep` it, its flow zero
            (recorded); `spot` its apex by the spotter of `missing`; `drop` it (recorded as failed). Of no
            effect where `source` spots every apex.
    """

    where = "apex"
    source: Literal["sheet", Spotter] = "sheet"
    missing: Spotter = "flow-peak"
    at_onset: Literal["keep", "spot", "drop"] = "keep"


class PipelineConfig(Settings):
    """Everything that decides what a store holds.

    >>> config = PipelineConfig(flow={"tau": 0.2}, align={"size": 128})
    >>> config.flow.tau, config.align.margin_px
    (0.2, 16)
    >>> PipelineConfig.from_dict(config.to_dict()) == config
    True
    """

    frames: FramesConfig = FramesConfig()
    faces: FacesConfig = FacesConfig()
    align: AlignConfig = AlignConfig()
    flow: FlowConfig = FlowConfig()
    stabilise: StabiliseConfig = StabiliseConfig()
    strain: StrainConfig = StrainConfig()
    regions: RegionsConfig = RegionsConfig()
    apex: ApexConfig = ApexConfig()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return nested plain values, every parameter included."""
        return self.model_dump()

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, every parameter included."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def hash(self) -> str:
        """Return 16 hexadecimal digits that differ as soon as one parameter does."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from section -> key -> value; what is absent keeps its default."""
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Build a configuration from what `to_json` wrote."""
        return cls(**json.loads(text))


def load_config(
    path: Path | None = None, sets: Iterable[str] = (), flags: Mapping[str, Any] | None = None
) -> PipelineConfig:
    """Read a configuration file, then single settings, then flags; a later layer wins.

    Args:
        path: TOML file of sections and keys as `PipelineConfig` names them; None for the defaults.
        sets: `section.key=value` each.
        flags: Dotted key -> value.

    Raises:
        UsageError: The file is missing or not TOML; a key is unknown (with the nearest known one) or of a
            wrong type or range.

    >>> load_config(sets=["flow.tua=0.2"])
    Traceback (most recent call last):
    ...
    mer_flow.work.errors.UsageError: unknown setting 'flow.tua'; did you mean 'flow.tau'? Known: ...
    """
    return PipelineConfig(**asked_for(path, sets, flags or {}))


def asked_for(path: Path | None, sets: Iterable[str], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Merge what `load_config` is told, without the defaults: section -> key -> value."""
    file = {key: value for key, value in _file(path).items() if key not in Where.model_fields}
    return layered(file, parse_sets(sets), flags)


def load_where(path: Path | None, flags: Mapping[str, Any]) -> Where:
    """Read where a build runs: top-level keys of a configuration file, such as `executor`, below flags."""
    return Where.among({**_file(path), **flags})


def _file(path: Path | None) -> dict[str, Any]:
    """Read a configuration file; keys of its top level may be written with hyphens."""
    return {key.replace("-", "_"): value for key, value in read_toml(path).items()} if path else {}
