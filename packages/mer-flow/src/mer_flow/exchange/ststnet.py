"""Import of STSTNet's published maps: 28x28 PNG, R, G, B = u, v, strain, each min-max scaled per image.

Source: the maps that accompany Liong et al., "Shallow Triple Stream Three-dimensional CNN (STSTNet) for
Micro-expression Recognition", FG 2019, https://doi.org/10.1109/FG.2019.8756567.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mer_flow.exchange.label_list import (
    MEGC_CLASSES,
    ListRow,
    bare_subject,
    map_stem,
    read_label_list,
    stem_key,
)
from mer_flow.exchange.layouts import FoundMap, Scan, read_map, scan_folder
from mer_flow.exchange.problems import Problem, report
from mer_flow.exchange.summary import ImportSummary
from mer_flow.samples import SampleTable
from mer_flow.work.errors import ExchangeError

#: Side of the published maps, px.
MAP_SIZE = 28


def ststnet_pipeline(map_size: int = MAP_SIZE) -> dict[str, Any]:
    """Returns what a store says about the origin of imported maps.

    Args:
        map_size: Side of the maps, px.

    Returns:
        The `pipeline` of the store.
    """
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
    """Imports a folder of STSTNet's maps into a store.

    Every row of the list becomes a sample. A row without a usable map is recorded in the store as failed; a
    map without a row is reported. A later call adds what was missing.

    Args:
        folder: A flat folder of PNG files named `<subject>_<clip> .png`, or the LOSO folders
            `<subject>/u_train|u_test/<label>/*.png`.
        store: The HDF5 file to make or extend.
        labels: A list `database,subject,clip,label`; the shipped MEGC2019 list unless given.
        layout: `flat`, `loso`, or `auto` to recognise it.
        map_size: Expected side of the maps, px.

    Returns:
        What was imported and every problem found.

    Raises:
        ExchangeError: The folder or the list is unusable, or not one file belongs to a row of the list.
        StoreMismatchError: The store exists and holds something else.
        StoreBusyError: Another process writes the store.
    """
    from mer_flow.databases.registry import database_names

    list_path = labels or _shipped_list()
    rows = read_label_list(list_path, database_names())
    scan = scan_folder(folder, layout)
    summary = ImportSummary(folder, store, scan.layout)
    summary.problems += scan.problems
    chosen = _match(rows, scan, list_path, summary.problems)
    if not chosen:
        raise ExchangeError(
            f"no map of {folder} belongs to a row of {list_path}. "
            f"Expected names such as '{map_stem(rows[0].sample)} .png'; "
            f"check that folder and list belong together.\n{report(summary.problems, limit=5)}"
        )
    _write(rows, chosen, store, map_size, summary)
    return summary


def _shipped_list() -> Path:
    """Returns the list that ships with the package."""
    from mer_flow.databases.completeness import directory

    return directory() / "megc2019.csv"


def _match(
    rows: Sequence[ListRow], scan: Scan, list_path: Path, problems: list[Problem]
) -> dict[str, FoundMap]:
    """Gives each row its map; what stays over on either side is a problem."""
    chosen: dict[str, FoundMap] = {}
    keys = {stem_key(map_stem(row.sample)): row for row in rows}
    for key, row in keys.items():
        if key in scan.spoilt:
            problems.append(
                Problem(
                    "contradiction",
                    map_stem(row.sample),
                    scan.spoilt[key],
                    "keep one right copy and import again",
                    row.sample_id,
                )
            )
        elif key not in scan.maps:
            detail = f"line {row.line} of {list_path.name} has no file '{map_stem(row.sample)} .png'"
            problems.append(
                Problem("no-file", row.sample_id, detail, "add the files and import again", row.sample_id)
            )
        elif fault := _disagreement(row, scan.maps[key]):
            remedy = "correct the folder or the list, and import again"
            problems.append(Problem("label-disagrees", row.sample_id, fault, remedy, row.sample_id))
        else:
            chosen[row.sample_id] = scan.maps[key]
    for key in [*scan.maps, *scan.spoilt]:
        if key not in keys:
            name = scan.maps[key].path.name if key in scan.maps else key
            detail = f"no row of {list_path.name} is named so; not imported"
            problems.append(Problem("no-label", name, detail, "add rows to the list, or remove the files"))
    return chosen


def _disagreement(row: ListRow, found: FoundMap) -> str:
    """Says where the LOSO folders contradict the list; empty where they agree, or in a flat folder."""
    if found.label is not None and found.label != row.label:
        listed = f"{row.label} ({MEGC_CLASSES[row.label]}) on line {row.line} of the list"
        return f"label folder {found.label}, but {listed}"
    subject = bare_subject(row.sample)
    if found.subject and stem_key(found.subject) != stem_key(subject):
        return (
            f"test sample of folder {found.subject}, but of subject {subject} on line {row.line} of the list"
        )
    return ""


def _write(
    rows: Sequence[ListRow], chosen: dict[str, FoundMap], store: Path, map_size: int, summary: ImportSummary
) -> None:
    """Writes the chosen maps database by database, and records the others as failed."""
    from mer_flow.databases import get_database
    from mer_flow.store.record import SampleRecord, encode_sample
    from mer_flow.store.writer import StoreWriter

    lost = {problem.sample_id: problem for problem in summary.problems if problem.sample_id}
    with StoreWriter(store, ststnet_pipeline(map_size)) as writer:
        for database in dict.fromkeys(row.sample.database for row in rows):
            fps = get_database(database).fps
            own = [row for row in rows if row.sample.database == database]
            table = SampleTable(replace(row.sample, fps=fps) for row in own)
            done = writer.begin(database, table)
            kept: list[ListRow] = []
            for row in own:
                summary.samples[database] += 1
                sample_id = row.sample_id
                if sample_id in done:
                    summary.already += 1
                elif sample_id in lost:
                    writer.fail(sample_id, "import", f"{lost[sample_id].detail}; {lost[sample_id].remedy}")
                    continue
                else:
                    path = chosen[sample_id].path
                    try:
                        pixels = read_map(path, map_size)
                    except ExchangeError as error:
                        remedy = "fetch the file again and import again"
                        summary.problems.append(
                            Problem("unreadable", path.name, str(error), remedy, sample_id)
                        )
                        writer.fail(sample_id, "import", f"{path.name}: {error}; {remedy}")
                        continue
                    record = SampleRecord(
                        table[sample_id], pixels.astype("float32"), notes={"file": path.name}
                    )
                    writer.commit(sample_id, encode_sample(record))
                kept.append(row)
            summary.imported[database] = len(kept)
            summary.subjects[database] = len({row.sample.subject for row in kept})
            summary.classes.update(MEGC_CLASSES[row.label] for row in kept)
        writer.finish()
