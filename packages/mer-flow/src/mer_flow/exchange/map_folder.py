"""Import of a folder of published maps: which file is which row of a list, and into the store with them."""

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
from mer_flow.exchange.layouts import FoundMap, Scan, read_map
from mer_flow.samples import Sample
from mer_flow.store.encode import SampleRecord
from mer_flow.work.errors import ExchangeError

#: Side of the published maps, px.
MAP_SIZE = 28


def listed_stems(labels: Path | None = None) -> tuple[dict[str, ListRow], str]:
    """Read a list; the shipped MEGC2019 list unless given.

    Returns:
        The rows by `map_stem`, and the list's name for messages.

    Raises:
        ExchangeError: The list is unusable.
    """
    from mer_flow.databases.completeness import directory
    from mer_flow.databases.registry import database_names

    path = labels or directory() / "megc2019.csv"
    return {map_stem(row.sample): row for row in read_label_list(path, database_names())}, str(path)


def import_scan(
    scan: Scan, rows: Mapping[str, ListRow], list_name: str, store: Path, pipeline: Mapping[str, Any]
) -> ImportSummary:
    """Import what a folder holds; a later call adds what was missing.

    Args:
        scan: What the folder holds.
        rows: The list by the name, without ending, that a row's file should have.
        list_name: Of the list, for messages.
        store: The HDF5 file to make or extend.
        pipeline: Of the store; its `map_kind` has the side of the maps, px.

    Raises:
        ExchangeError: Not one file belongs to a row of the list.
        StoreMismatchError: The store exists and holds something else.
        StoreBusyError: Another process writes the store.
    """
    problems = [*scan.problems, *_mismatches(rows, scan, Path(list_name).name)]
    lost = {problem.sample_id: problem for problem in problems}
    chosen = {
        row.sample.sample_id: scan.maps[stem_key(stem)]
        for stem, row in rows.items()
        if row.sample.sample_id not in lost
    }
    if not chosen:
        raise ExchangeError(
            f"no map of {scan.folder} belongs to a row of {list_name}. "
            f"Expected names such as '{next(iter(rows))} .png'; "
            f"check that folder and list belong together.\n{report(problems, limit=5)}"
        )

    def read(sample: Sample) -> SampleRecord | ImportProblem:
        if sample.sample_id in lost:
            return lost[sample.sample_id]
        path = chosen[sample.sample_id].path
        try:
            pixels = read_map(path, pipeline["map_kind"]["map_size"])
        except ExchangeError as error:
            remedy = "fetch the file again and import again"
            return ImportProblem("unreadable", path.name, str(error), remedy, sample.sample_id)
        return SampleRecord(sample, pixels.astype("float32"), notes={"file": path.name})

    samples = [replace(row.sample, fps=get_database(row.sample.database).fps) for row in rows.values()]
    summary = ImportSummary(scan.folder, store, scan.layout, problems=problems)
    fill_store(summary, pipeline, samples, read)
    return summary


def _mismatches(rows: Mapping[str, ListRow], scan: Scan, list_name: str) -> Iterator[ImportProblem]:
    """Tell what stays over on either side, rows without a usable map first."""
    for stem, row in rows.items():
        sample_id, key = row.sample.sample_id, stem_key(stem)
        if key in scan.spoilt:
            remedy = "keep one right copy and import again"
            yield ImportProblem("contradiction", stem, scan.spoilt[key], remedy, sample_id)
        elif key not in scan.maps:
            detail = f"line {row.line} of {list_name} has no file '{stem} .png'"
            yield ImportProblem("no-file", sample_id, detail, "add the files and import again", sample_id)
        elif fault := _disagreement(row, scan.maps[key]):
            remedy = "correct the folder or the list, and import again"
            yield ImportProblem("label-disagrees", sample_id, fault, remedy, sample_id)
    listed = set(map(stem_key, rows))
    for key in dict.fromkeys([*scan.maps, *scan.spoilt]):
        if key not in listed:
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
