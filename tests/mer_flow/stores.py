"""Samples and stores written for a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mer_flow.samples import Sample, SampleTable
from mer_flow.store.reader import FlowStore
from mer_flow.store.writer import SampleRecord, StoreWriter, encode_sample


def sample_of(database: str, subject: str, clip: str, emotion: str) -> Sample:
    """A sample of frames 10, 20 and 31."""
    key = f"{database}/{subject}"
    return Sample(f"{key}/{clip}", database, key, clip, 10, 20, 31, "sheet", emotion, "R1+R2", 2, 200.0)


def write_store(
    path: Path,
    rows: Iterable[tuple[Sample, np.ndarray]],
    *,
    values: str = "px",
    notes: Mapping[str, Any] | None = None,
    **parts: np.ndarray | None,
) -> FlowStore:
    """Writes rows of one database, each with its maps (3, S, S); notes by clip, parts the same for all."""
    rows = list(rows)
    database, side = rows[0][0].database, rows[0][1].shape[-1]
    kind = {"kind": "computed" if values == "px" else "imported", "map_size": side, "values": values}
    with StoreWriter(path, {"map_kind": kind}) as writer:
        writer.begin(database, SampleTable(sample for sample, _ in rows))
        for sample, maps in rows:
            record = SampleRecord(sample, maps, notes=(notes or {}).get(sample.clip, {}), **parts)
            writer.commit(sample.sample_id, encode_sample(record))
        writer.finish()
    return FlowStore(path)
