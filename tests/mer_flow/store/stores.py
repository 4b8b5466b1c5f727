"""Small stores for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mer_flow.samples import Sample, SampleTable
from mer_flow.store.encode import SampleRecord, encode_sample
from mer_flow.store.writer import StoreWriter

SIDE = 16
PIPELINE: dict[str, Any] = {
    "map_kind": {"kind": "computed", "map_size": SIDE, "values": "px"},
    "flow": {"tau": 0.25, "warps": 5},
    "versions": {"cv2": "4.11"},
}


def row(i: int, database: str = "samm", **changes: Any) -> Sample:
    name = f"{database}/006"
    plain = Sample(f"{name}/c_{i}", database, name, f"c_{i}", 1, 5, 9, "sheet", "anger", "4", 1, 200.0)
    return replace(plain, **changes)


def record(sample: Sample, value: float = 0.0, **changes: Any) -> SampleRecord:
    """Flow alone, the same for one clip name; `changes` are further fields."""
    rng = np.random.default_rng(int(sample.clip[2:]))
    flow = np.abs(rng.normal(size=(3, SIDE, SIDE))) + value
    return replace(SampleRecord(sample, flow, notes={"fallbacks": []}), **changes)


def encoded(i: int) -> bytes:
    return encode_sample(record(row(i)))


def write(
    path: Path, samples: list[Sample], pipeline: dict[str, Any] = PIPELINE, value: float = 0.0
) -> set[str]:
    """Build what is missing of SAMM; returns what was there already."""
    with StoreWriter(path, pipeline) as writer:
        done = writer.begin("samm", SampleTable(samples))
        for sample in samples:
            if sample.sample_id not in done:
                writer.commit(sample.sample_id, encode_sample(record(sample, value)))
        writer.finish()
    return done
