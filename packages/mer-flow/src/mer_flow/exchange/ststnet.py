"""Import of STSTNet's published maps: 28x28 PNG, R, G, B = u, v, strain, each min-max scaled per image.

Source: the maps that accompany Liong et al., "Shallow Triple Stream Three-dimensional CNN (STSTNet) for
Micro-expression Recognition", FG 2019, https://doi.org/10.1109/FG.2019.8756567.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mer_flow.databases import get_database
from mer_flow.exchange.imports import ImportProblem, ImportSummary, fill_store, report
from mer_flow.exchange.label_list import (
    MEGC_CLASSES,
    ListRow,
    bare_subject,
    map_stem,
    read_label_list,
    stem_key,
)
from mer_flow.exchange.layouts import FoundMap, Scan, read_map, scan_folder
from mer_flow.samples import Sample
from mer_flow.store.encode import SampleRecord
from mer_flow.work.errors import ExchangeError

#: Side of the published maps, px.
MAP_SIZE = 28


def ststnet_pipeline(map_size: int = MAP_SIZE) -> dict[str, Any]:
    """Return what a store says about the origin of imported maps."""
    return {
        "map_kind": {"kind": "imported", "map_size": map_size, "values": "minmax-255"},
        "import": {
            "layout": "ststnet",
            "channels": ["u", "v", "strain"],
            "scaled": "per image and channel, to 0..255",
        },
    }


def import_ststnet(
    folder: Path,
    store: Path,
    labels: Path | None = None,
    *,
    layout: str = "auto",
    map_size: int = MAP_SIZE,
) -> ImportSummary:
    """Import a folder of STSTNet's maps into a store; a later call adds what was missing.

    Every row of the list becomes a sample. A row without a usable map is recorded in the store as failed; a
    map without a row is reported.

    Args:
        folder: A flat folder of PNG files named `<subject>_<clip> .png`, or the LOSO folders
            `<subject>/u_train|u_test/<label>/*.png`.
        store: The HDF5 file to make or extend.
        labels: A list `database,subject,clip,label`; the shipped MEGC2019 list unless given.
        layout: `flat`, `loso`, or `auto` to recognise it.
        map_size: Expected side of the maps, px.

    Raises:
        ExchangeError: The folder or the list is unusable, or not one file belongs to a row of the list.
    """
    from mer_flow.databases.completeness import directory
    from mer_flow.databases.registry import database_names

    list_path = labels or directory() / "megc2019.csv"
    rows = {stem_key(map_stem(row.sample)): row for row in read_label_list(list_path, database_names())}
    scan = scan_folder(folder, layout)
    problems = [*scan.problems, *_mismatches(rows, scan, list_path.name)]
    lost = {problem.sample_id: problem for problem in problems}
    chosen = {
        row.sample.sample_id: scan.maps[key] for key, row in rows.items() if row.sample.sample_id not in lost
    }
    if not chosen:
        raise ExchangeError(
            f"no map of {folder} belongs to a row of {list_path}. "
            f"Expected names such as '{map_stem(next(iter(rows.values())).sample)} .png'; "
            f"check that folder and list belong together.\n{report(problems, limit=5)}"
        )

    def read(sample: Sample) -> SampleRecord | ImportProblem:
        if sample.sample_id in lost:
            return lost[sample.sample_id]
        path = chosen[sample.sample_id].path
        try:
            pixels = read_map(path, map_size)
        except ExchangeError as error:
            remedy = "fetch the file again and import again"
            return ImportProblem("unreadable", path.name, str(error), remedy, sample.sample_id)
        return SampleRecord(sample, pixels.astype("float32"), notes={"file": path.name})

    samples = [replace(row.sample, fps=get_database(row.sample.database).fps) for row in rows.values()]
    summary = ImportSummary(folder, store, scan.layout, problems=problems)
    fill_store(summary, ststnet_pipeline(map_size), samples, read)
    return summary


def _mismatches(rows: Mapping[str, ListRow], scan: Scan, list_name: str) -> Iterator[ImportProblem]:
    """Tell what stays over on either side, rows without a usable map first."""
    for key, row in rows.items():
        sample_id, stem = row.sample.sample_id, map_stem(row.sample)
        if key in scan.spoilt:
            remedy = "keep one right copy and import again"
            yield ImportProblem("contradiction", stem, scan.spoilt[key], remedy, sample_id)
        elif key not in scan.maps:
            detail = f"line {row.line} of {list_name} has no file '{stem} .png'"
            yield ImportProblem("no-file", sample_id, detail, "add the files and import again", sample_id)
        elif fault := _disagreement(row, scan.maps[key]):
            remedy = "correct the folder or the list, and import again"
            yield ImportProblem("label-disagrees", sample_id, fault, remedy, sample_id)
    for key in dict.fromkeys([*scan.maps, *scan.spoilt]):
        if key not in rows:
            name = scan.maps[key].path.name if key in scan.maps else key
            detail = f"no row of {list_name} is named so; not imported"
            yield ImportProblem("no-label", name, detail, "add rows to the list, or remove the files")


def _disagreement(row: ListRow, found: FoundMap) -> str:
    """Say where the LOSO folders contradict the list; empty where they agree, or in a flat folder."""
    if found.label is not None and found.label != row.label:
        listed = f"{row.label} ({MEGC_CLASSES[row.label]}) on line {row.line} of the list"
        return f"label folder {found.label}, but {listed}"
    subject = bare_subject(row.sample)
    if found.fold and stem_key(found.fold) != stem_key(subject):
        return f"test sample of folder {found.fold}, but of subject {subject} on line {row.line} of the list"
    return ""
