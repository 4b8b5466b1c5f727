"""Export of a view to one `.npz` file of plain arrays, and import back."""

from __future__ import annotations

import io
import json
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_flow.exchange.imports import ImportProblem, ImportSummary, fill_store
from mer_flow.exchange.selection import Selection
from mer_flow.samples import COLUMNS, MOST_FRAMES, UNKNOWN_FRAME, Sample, SampleTable, row_fault
from mer_flow.store.encode import EncodeOptions, SampleRecord
from mer_flow.store.reader import FlowStore
from mer_flow.views import ViewName, parse_views
from mer_flow.work.errors import ExchangeError
from mer_flow.work.files import new_file, size_of

FORMAT_VERSION = 1
#: Bytes that the arrays of an imported file may take.
MOST_BYTES = 4 << 30
#: What a file must hold to be imported; every other column of the sample table has a default.
REQUIRED = ("maps", "database", "subject", "clip", "emotion", "view", "normalisation")
#: Column -> its value where a file lacks it; texts are empty.
_DEFAULTS: dict[str, Any] = {
    "onset": UNKNOWN_FRAME, "apex": UNKNOWN_FRAME, "offset": UNKNOWN_FRAME,
    "apex_source": "none", "objective_class": 0, "fps": 0.0,
}  # fmt: skip
#: Normalisation of the file -> (values of the store, factor).
_IMPORTABLE = {"raw": ("px", 1.0), "minmax-255": ("minmax-255", 1.0), "minmax": ("minmax-255", 255.0)}


#: What reading a damaged or hostile archive may raise; NumPy parses headers as Python.
_DAMAGE = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError),
    *(SyntaxError, tokenize.TokenError, RecursionError, KeyError, TypeError),
)


def export_npz(
    store: FlowStore, out: Path, selection: Selection | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write a view, its labels and its sample table as plain arrays (no pickle); return counts.

    Raises:
        UsageError: `out` exists and is not to be overwritten.
        ViewError: The store cannot give the view.
    """
    selection = selection or Selection()
    data = selection.read(store)
    table = store.table().select([str(sample_id) for sample_id in data.sample_ids])
    arrays: dict[str, Any] = {
        "format_version": np.int64(FORMAT_VERSION),
        "maps": np.ascontiguousarray(data.maps, dtype=np.float32),
        "labels": np.asarray(data.labels, dtype=np.int64),
        "classes": data.classes,
        "channels": _channels(parse_views(selection.view), data.maps.shape[1]),
        "view": selection.view,
        "normalisation": selection.normalisation,
        "scheme": selection.scheme,
        "pipeline": json.dumps(store.pipeline, sort_keys=True),
        "source_digest": data.source_digest,
        **{name: table.column(name) for name in COLUMNS},
    }
    for name, value in arrays.items():
        array = np.asarray(value)
        if array.dtype.kind in "OU":  # text of fixed width needs no pickle
            arrays[name] = np.array(array.tolist(), dtype=np.str_)
    packed = io.BytesIO()  # on a full disk NumPy would leave its archive half open
    np.savez_compressed(packed, **arrays)
    with new_file(out, overwrite) as part:
        part.write_bytes(packed.getbuffer())
    return {
        "out": str(out),
        "samples": len(table),
        "subjects": len(table.subjects),
        "shape": list(data.maps.shape),
        "dropped": dict(data.dropped),
    }


def _channels(parts: Sequence[ViewName], count: int) -> list[str]:
    """Name the channels of a view; in a combined view the part goes before them."""
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


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of a file, without ever unpickling.

    Raises:
        ExchangeError: The file is missing, damaged or holds pickled objects.
    """
    try:
        size_of(path)
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array, not an archive")
            _refuse_claims(archive.zip)
            return {name: archive[name] for name in archive.files}
    except MemoryError as error:
        raise ExchangeError(
            f"cannot read {path}: it does not fit into memory; export fewer samples"
        ) from error
    except _DAMAGE as error:
        raise ExchangeError(
            f"cannot read {path}: {error}. Expected an .npz archive of plain arrays, as `mer-flow export "
            "npz` writes (object arrays are refused: they can run code)."
        ) from error


def _refuse_claims(archive: zipfile.ZipFile) -> None:
    """Refuse an archive whose arrays would take more than `MOST_BYTES`, or more than their files hold."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > MOST_BYTES:
        raise ValueError(f"it unpacks to {unpacked / 1e6:,.0f} MB, expected {MOST_BYTES / 1e6:,.0f} at most")
    for entry in archive.infolist():
        with archive.open(entry) as stream:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read:
                raise ValueError(f"{entry.filename} follows version {version} of the format")
            shape, _, dtype = read[version](stream)
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize > entry.file_size:
            raise ValueError(
                f"{entry.filename} claims the shape {shape}, its {entry.file_size} bytes hold less"
            )


def import_npz(path: Path, store: Path) -> ImportSummary:
    """Import a file of maps into a store; maps that are not finite are recorded as failed.

    Args:
        path: An `.npz` file with the keys `REQUIRED` at least; `maps` is `(N, 3, S, S)`, `view` a `whole-N`,
            and `normalisation` one of `raw`, `minmax`, `minmax-255`.
        store: The HDF5 file to make or extend.

    Raises:
        ExchangeError: Keys are missing, shapes disagree, or the maps are no whole maps in known units.
    """
    arrays = read_npz(path)
    _check(path, arrays)
    values, factor = _IMPORTABLE[str(arrays["normalisation"])]
    maps = arrays["maps"].astype(np.float32) * np.float32(factor)
    table = SampleTable(_sample(arrays, index) for index in range(len(maps)))
    if bad := next(filter(None, map(row_fault, table)), ""):
        raise ExchangeError(f"{path} cannot be imported: {bad}; mend its columns and export it again")
    place = {sample_id: index for index, sample_id in enumerate(table.sample_ids)}

    def read(sample: Sample) -> SampleRecord | ImportProblem:
        index = place[sample.sample_id]
        if np.isfinite(maps[index]).all():
            return SampleRecord(sample, maps[index], notes={"file": path.name, "index": index})
        where, detail = f"maps[{index}] of {path.name}", "the map holds values that are not finite"
        return ImportProblem("not-finite", where, detail, "export it again", sample.sample_id)

    with np.errstate(over="ignore"):  # what float16 cannot hold is not exact
        exact = bool((maps.astype(np.float16).astype(np.float32) == maps)[np.isfinite(maps)].all())
    options = EncodeOptions(dtype="float16" if exact else "float32")
    summary = ImportSummary(path, store, "npz")
    fill_store(summary, _pipeline(arrays, maps.shape[-1], values), table, read, options)
    return summary


def _check(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check keys, shapes and units, all faults at once."""
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
    columns = {name: arrays[name] for name in COLUMNS if name in arrays}
    wrong = [name for name, column in columns.items() if column.shape != maps.shape[:1]]
    if wrong:
        faults.append(f"columns {wrong} do not have one entry per map")
    for name, column in columns.items():
        if name in _DEFAULTS and name != "apex_source":
            numbers = column.dtype.kind in "fiu" and bool((np.abs(column) <= MOST_FRAMES).all())
            if not numbers or (name != "fps" and bool((column % 1 != 0).any())):
                faults.append(f"column {name} holds something else than numbers up to {MOST_FRAMES}")
    if faults:
        raise ExchangeError(f"{path} cannot be imported:\n  " + "\n  ".join(faults))


def _sample(arrays: Mapping[str, NDArray[Any]], index: int) -> Sample:
    """Build one row; columns that the file lacks are unknown."""
    given = {name: arrays[name][index].item() for name in COLUMNS if name in arrays}
    cells = {name: _DEFAULTS.get(name, "") for name in COLUMNS} | given
    database, subject = str(cells["database"]), str(cells["subject"])
    cells["subject"] = subject if subject.startswith(f"{database}/") else f"{database}/{subject}"
    cells["sample_id"] = cells["sample_id"] or f"{cells['subject']}/{cells['clip']}"
    cells["emotion"] = str(cells["emotion"]).strip().lower()
    return Sample(**{name: type(_DEFAULTS.get(name, ""))(cell) for name, cell in cells.items()})


def _pipeline(arrays: Mapping[str, NDArray[Any]], size: int, values: str) -> dict[str, Any]:
    """Return the store's pipeline; the one that the maps were made with goes along where the file has it."""
    origin: dict[str, Any] = {"layout": "npz", "channels": ["u", "v", "strain"]}
    if "pipeline" in arrays:
        try:
            origin["source_pipeline"] = json.loads(str(arrays["pipeline"]))
        except (ValueError, RecursionError):
            origin["source_pipeline"] = str(arrays["pipeline"])
    return {"map_kind": {"kind": "imported", "map_size": size, "values": values}, "import": origin}
