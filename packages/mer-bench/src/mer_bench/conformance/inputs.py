"""A small store that can feed every view: drawn faces with known movement, flow, special frames and clips.

The checks read it as a run reads a user's, so channels, sizes and units are those of a real store.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mer_flow.flow.strain import optical_strain
from mer_flow.samples import Sample, SampleTable
from mer_flow.store.writer import EncodeOptions, SampleRecord, StoreWriter, encode_sample

DATABASE = "casme2"
SIDE = 224
FRAMES = 8

#: Left eye, right eye, nose, left and right lip corner of an aligned face, px.
CENTRES = np.array([[156, 80], [66, 80], [111, 124], [144, 168], [78, 168]], np.float32)

#: Emotion -> what moves: (region, right, down), px at the apex.
MOVEMENTS = {
    "disgust": ((0, -0.5, 2.0), (1, 0.5, 2.0), (2, 0.0, -1.0)),
    "happiness": ((3, 1.5, -2.0), (4, -1.5, -2.0)),
    "surprise": ((0, 0.0, -2.5), (1, 0.0, -2.5)),
}
_SPREAD = 20.0
_WAVES = 6
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


def write_reference_store(path: Path, seed: int = 0) -> Path:
    """Write the store to `path`: 24 samples of 4 subjects, the three classes of `megc3` alike."""
    rng = np.random.default_rng(seed)
    options = EncodeOptions(compression=1)
    pipeline = {"map_kind": {"kind": "computed", "map_size": SIDE, "values": "px"}}
    samples = [_sample(clip // 6, clip) for clip in range(24)]
    with StoreWriter(path, pipeline, options) as writer:
        writer.begin(DATABASE, SampleTable(samples))
        for sample in samples:
            # A face for each clip: networks that read frames could hardly tell clips of one face apart.
            skin = int(rng.integers(2**32)), rng.uniform(0.6, 1.0, 3).astype(np.float32)
            field = _displacement(sample.emotion, rng)
            record = SampleRecord(
                sample,
                np.concatenate([field, optical_strain(field)[None]]).astype(np.float32),
                regions=CENTRES,
                faces=_frames(*skin, field, [0.0, 1.0]),
                clips=_frames(*skin, field, np.sin(np.linspace(0.0, np.pi, FRAMES))),
                notes={"fallbacks": []},
            )
            writer.commit(sample.sample_id, encode_sample(record, options))
        writer.finish()
    return path


def _sample(subject: int, clip: int) -> Sample:
    name, emotion = f"{DATABASE}/s{subject:02d}", list(MOVEMENTS)[clip % len(MOVEMENTS)]
    return Sample(
        f"{name}/c{clip:02d}", DATABASE, name, f"c{clip:02d}", 1, FRAMES // 2, FRAMES, "sheet",
        emotion, "", 0, 200.0,
    )  # fmt: skip


def _displacement(emotion: str, rng: np.random.Generator) -> np.ndarray:
    """Return `(2, SIDE, SIDE)` px: a bump per moved region, each sample's own in place and strength."""
    field = 0.1 * np.stack([_waves(rng, _X, _Y), _waves(rng, _X, _Y)])
    for region, right, down in MOVEMENTS[emotion]:
        x, y = CENTRES[region] + rng.normal(0, 3, 2)
        weight = rng.uniform(0.7, 1.3) * np.exp(-((_X - x) ** 2 + (_Y - y) ** 2) / (2 * _SPREAD**2))
        field += np.array([right, down])[:, None, None] * weight
    return field


def _waves(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a smooth pattern of unit variance at the points x, y."""
    number = 2 * np.pi / rng.uniform(8, 80, _WAVES)
    turn, phase = rng.uniform(0, np.pi, _WAVES), rng.uniform(0, 2 * np.pi, _WAVES)
    waves = np.stack([number * np.cos(turn), number * np.sin(turn), phase]).astype(np.float32)
    across, down, phase = waves[..., None, None]
    return np.cos(across * x + down * y + phase).sum(0) * np.float32((2 / _WAVES) ** 0.5)


def _frames(seed: int, colour: np.ndarray, field: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
    """Return `(K, SIDE, SIDE, 3)` uint8: a face's pattern displaced by each strength times the field."""
    shown = []
    for strength in np.asarray(strengths, np.float32):
        # Backwards by the displacement at the target: for a smooth field as good as its inverse.
        u, v = field.astype(np.float32) * strength
        grey = 128 + 40 * _waves(np.random.default_rng(seed), _X - u, _Y - v)
        shown.append(grey[..., None] * colour)
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)
