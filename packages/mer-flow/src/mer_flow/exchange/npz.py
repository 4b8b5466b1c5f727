"""Export of a view to one `.npz` file of plain arrays, and import back."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_flow.exchange.problems import Problem
from mer_flow.exchange.selection import Selection
from mer_flow.exchange.summary import ImportSummary
from mer_flow.samples import COLUMNS, INT_COLUMNS, UNKNOWN_FRAME, Sample, SampleTable
from mer_flow.store.reader import FlowStore
from mer_flow.views import ViewName, parse_views
from mer_flow.work.errors import ExchangeError
from mer_flow.work.files import new_file

FORMAT_VERSION = 1
#: What a file must hold to be imported; every other column of the sample table has a default.
REQUIRED = ("maps", "database", "subject", "clip", "emotion", "view", "normalisation")
#: Normalisation of the file -> (values of the store, factor).
_IMPORTABLE = {"raw": ("px", 1.0), "minmax-255": ("minmax-255", 1.0), "minmax": ("minmax-255", 255.0)}


def export_npz(
    store: FlowStore, out: Path, selection: Selection | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Writes a view, its labels and its sample table as plain arrays (no pickle).

    Args:
        store: The store to read.
        out: The file to make.
        selection: Samples and view; all samples with a class of `megc3`, `whole-28:minmax` unless given.
        overwrite: Replace a present file.

    Returns:
        Counts for a summary.

    Raises:
        UsageError: `out` exists.
        ViewError: The store cannot give the view.
    """
    selection = selection or Selection()
    data = selection.read(store)
    table = store.table().select([str(sample_id) for sample_id in data.sample_ids])
    arrays: dict[str, NDArray[Any]] = {
        "format_version": np.int64(FORMAT_VERSION),  # type: ignore[dict-item]
        "maps": np.ascontiguousarray(data.maps, dtype=np.float32),
        "labels": np.asarray(data.labels, dtype=np.int64),
        "classes": _text(data.classes),
        "channels": _text(_channels(parse_views(selection.view), data.maps.shape[1])),
        "view": _text(selection.view),
        "normalisation": _text(selection.normalisation),
        "scheme": _text(selection.scheme),
        "pipeline": _text(json.dumps(store.pipeline, sort_keys=True)),
        "source_digest": _text(str(data.source_digest)),
    }
    for name in COLUMNS:
        column = table.column(name)
        arrays[name] = column if name in (*INT_COLUMNS, "fps") else _text(column.tolist())
    with new_file(out, overwrite) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    return {
        "out": str(out),
        "samples": len(table),
        "subjects": len(table.subjects),
        "shape": list(data.maps.shape),
        "dropped": dict(data.dropped),
    }


def _channels(parts: Sequence[ViewName], count: int) -> list[str]:
    """Names the channels of a view; in a combined view the part goes before them."""
    fixed = sum(part.channels() for part in parts)
    per_frame = sum(part.channels(clip_length=1) - part.channels() for part in parts)
    length = (count - fixed) // per_frame if per_frame else 0
    names = []
    for part in parts:
        own = ["u", "v", "strain"]
        if part.is_image:
            own = ["onset", "apex"] if part.family == "faces" else [f"frame-{n}" for n in range(length)]
        if part.layout == "rgb":
            own = [f"{name}-{colour}" for name in own for colour in ("red", "green", "blue")]
        names += [f"{part}:{name}" for name in own] if len(parts) > 1 else own
    return names


def _text(value: Any) -> NDArray[Any]:
    """Returns text as a fixed-width array, which needs no pickle."""
    return np.array(value, dtype=np.str_)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Reads every array of a file, without ever unpickling.

    Args:
        path: An `.npz` file.

    Returns:
        Name -> array.

    Raises:
        ExchangeError: The file is missing, damaged or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array, not an archive")
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ExchangeError(
            f"cannot read {path}: {error}. Expected an .npz archive of plain arrays, as `mer-flow export "
            "npz` writes (object arrays are refused: they can run code)."
        ) from error


def import_npz(path: Path, store: Path) -> ImportSummary:
    """Imports a file of maps into a store.

    Args:
        path: An `.npz` file with the keys `REQUIRED` at least; `maps` is `(N, 3, S, S)`, `view` a `whole-N`,
            and `normalisation` one of `raw`, `minmax`, `minmax-255`. Other columns of the sample table are
            optional.
        store: The HDF5 file to make or extend.

    Returns:
        What was imported; maps that are not finite are recorded as failed.

    Raises:
        ExchangeError: Keys are missing, shapes disagree, or the maps are no whole maps in known units.
        StoreMismatchError: The store exists and holds something else.
    """
    from mer_flow.store.encode import EncodeOptions, SampleRecord, encode_sample
    from mer_flow.store.writer import StoreWriter

    arrays = read_npz(path)
    maps, table, values = _checked(path, arrays)
    summary = ImportSummary(path, store, "npz")
    exact = bool((maps.astype(np.float16).astype(np.float32) == maps)[np.isfinite(maps)].all())
    options = EncodeOptions(dtype="float16" if exact else "float32")
    with StoreWriter(store, _pipeline(arrays, maps.shape[-1], values), options) as writer:
        for database in table.databases:
            own = SampleTable(sample for sample in table if sample.database == database)
            done = writer.begin(database, own)
            kept = []
            for index, sample in enumerate(table):
                if sample.database != database:
                    continue
                summary.samples[database] += 1
                if sample.sample_id in done:
                    summary.already += 1
                elif not np.isfinite(maps[index]).all():
                    detail, remedy = "the map holds values that are not finite", "export it again"
                    problem = Problem("not-finite", f"maps[{index}]", detail, remedy, sample.sample_id)
                    summary.problems.append(problem)
                    writer.fail(
                        sample.sample_id, "import", f"{path.name}: {problem.where}: {detail}; {remedy}"
                    )
                    continue
                else:
                    record = SampleRecord(sample, maps[index], notes={"file": path.name, "index": index})
                    writer.commit(sample.sample_id, encode_sample(record, options))
                kept.append(sample)
            summary.imported[database] = len(kept)
            summary.subjects[database] = len({sample.subject for sample in kept})
            summary.classes.update(sample.emotion for sample in kept)
        writer.finish()
    return summary


def _checked(path: Path, arrays: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], SampleTable, str]:
    """Checks keys, shapes and units, all faults at once."""
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise ExchangeError(f"{path}: keys {missing} are missing; required are {', '.join(REQUIRED)}")
    faults = []
    maps, view, normalisation = arrays["maps"], str(arrays["view"]), str(arrays["normalisation"])
    if maps.ndim != 4 or maps.shape[1] != 3 or maps.shape[2] != maps.shape[3]:
        faults.append(f"maps has shape {maps.shape}, expected (N, 3, S, S): u, v, strain")
    elif view != f"whole-{maps.shape[-1]}":
        faults.append(
            f"view is '{view}', expected 'whole-{maps.shape[-1]}': "
            "a store keeps whole faces, views are cut on reading"
        )
    if maps.dtype.kind not in "fiu":
        faults.append(f"maps has dtype {maps.dtype}, expected numbers")
    if normalisation not in _IMPORTABLE:
        faults.append(
            f"normalisation is '{normalisation}', expected one of {', '.join(_IMPORTABLE)} "
            "('scaled' maps are clipped: their pixels cannot be recovered)"
        )
    lengths = {name: len(arrays[name]) for name in COLUMNS if name in arrays and arrays[name].ndim == 1}
    wrong = {name: length for name, length in lengths.items() if maps.ndim and length != len(maps)}
    flat = [name for name in COLUMNS if name in arrays and arrays[name].ndim != 1]
    if wrong or flat:
        faults.append(f"columns {sorted([*wrong, *flat])} do not have one entry per map")
    if faults:
        raise ExchangeError(f"{path} cannot be imported:\n  " + "\n  ".join(faults))
    values, factor = _IMPORTABLE[normalisation]
    table = SampleTable(_sample(arrays, index) for index in range(len(maps)))
    return maps.astype(np.float32) * np.float32(factor), table, values


def _sample(arrays: Mapping[str, NDArray[Any]], index: int) -> Sample:
    """Builds one row; columns that the file lacks are unknown."""

    def cell(name: str, default: Any) -> Any:
        return arrays[name][index].item() if name in arrays else default

    database, clip = str(cell("database", "")), str(cell("clip", ""))
    subject = str(cell("subject", ""))
    subject = subject if subject.startswith(f"{database}/") else f"{database}/{subject}"
    return Sample(
        sample_id=str(cell("sample_id", f"{subject}/{clip}")),
        database=database,
        subject=subject,
        clip=clip,
        onset=int(cell("onset", UNKNOWN_FRAME)),
        apex=int(cell("apex", UNKNOWN_FRAME)),
        offset=int(cell("offset", UNKNOWN_FRAME)),
        apex_source=str(cell("apex_source", "none")),
        emotion=str(cell("emotion", "")).strip().lower(),
        action_units=str(cell("action_units", "")),
        objective_class=int(cell("objective_class", 0)),
        fps=float(cell("fps", 0.0)),
    )


def _pipeline(arrays: Mapping[str, NDArray[Any]], size: int, values: str) -> dict[str, Any]:
    """Returns the store's pipeline; the one that the maps were made with goes along where the file has it."""
    origin: dict[str, Any] = {"layout": "npz", "channels": ["u", "v", "strain"]}
    if "pipeline" in arrays:
        try:
            origin["source_pipeline"] = json.loads(str(arrays["pipeline"]))
        except ValueError:
            origin["source_pipeline"] = str(arrays["pipeline"])
    return {"map_kind": {"kind": "imported", "map_size": size, "values": values}, "import": origin}
