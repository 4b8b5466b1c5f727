"""Export of everything but the maps to Parquet: samples, classes, and what was decided per sample."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from mer_flow.exchange.selection import Selection
from mer_flow.labels import apply_scheme
from mer_flow.samples import COLUMNS, SampleTable
from mer_flow.store.reader import FlowStore
from mer_flow.work.errors import MissingDependencyError
from mer_flow.work.files import new_file
from mer_flow.work.libraries import extra_command


def export_parquet(
    store: FlowStore, out: Path, selection: Selection | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write one row per sample: the sample table, then `label`, `class`, `dropped`, `notes`.

    `label` and `class` are null where the scheme drops the sample, and `dropped` says why. `notes` is JSON.
    The file's metadata carries under `mer_flow` the pipeline, its hash, the store's digest, the scheme and
    the failures. No map is read; counts are returned.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        UsageError: The scheme or a database is unknown, or `out` exists.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        # pyarrow of late wants NumPy 2, which the face models of older Pythons exclude
        broken = importlib.util.find_spec("pyarrow") is not None
        command = "pip install 'pyarrow>=15,<21'" if broken else extra_command("parquet")
        raise MissingDependencyError(
            f"Parquet needs pyarrow, which cannot be imported ({error}). Mend it with: {command}"
        ) from error
    selection = selection or Selection()
    chosen = selection.databases or store.databases
    table = SampleTable(sample for database in chosen for sample in store.samples(database))
    labelled = apply_scheme(table, selection.scheme)
    labels = [labelled.labels.get(sample.sample_id) for sample in table]
    types = {"i": pa.int64(), "f": pa.float64(), "O": pa.string()}
    values = {name: table.column(name) for name in COLUMNS}
    columns = {name: pa.array(column.tolist(), types[column.dtype.kind]) for name, column in values.items()}
    columns["label"] = pa.array(labels, pa.int64())
    columns["class"] = pa.array([None if n is None else labelled.classes[n] for n in labels], pa.string())
    columns["dropped"] = pa.array([labelled.dropped.get(sample.sample_id) for sample in table], pa.string())
    notes = [json.dumps(note, sort_keys=True) for database in chosen for note in store.notes(database)]
    columns["notes"] = pa.array(notes, pa.string())
    failures = [f for database in chosen for f in store.failures(database)]
    about = {
        "schema_version": store.schema_version,
        "pipeline": store.pipeline,
        "pipeline_hash": store.pipeline_hash,
        "store_digest": store.digest(chosen),
        "scheme": selection.scheme,
        "classes": list(labelled.classes),
        "failures": [{"sample_id": f.sample_id, "stage": f.stage, "reason": f.reason} for f in failures],
    }
    content = pa.table(columns).replace_schema_metadata({"mer_flow": json.dumps(about, sort_keys=True)})
    with new_file(out, overwrite) as part:
        pq.write_table(content, part)
    return {
        "out": str(out),
        "samples": len(table),
        "subjects": len(table.subjects),
        "labelled": len(labelled.labels),
        "failures": len(failures),
        "dropped": labelled.dropped_by_reason(),
    }
