"""Export to the folders and the list that HTNet's training script reads.

Source: Wang et al., "HTNet for micro-expression recognition", Neurocomputing 2024, arXiv:2307.14637; its
`main_HTNet.py` finds face points on a picture of each apex and cuts the flow maps about them.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mer_flow.exchange.label_list import HTNET_COLUMNS, MEGC_CLASSES, bare_subject, megc_key
from mer_flow.exchange.selection import Selection
from mer_flow.exchange.ststnet_export import loso_folders, read_maps, write_maps
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.store.reader import FlowStore
from mer_flow.work.errors import ExchangeError
from mer_flow.work.files import new_folder

#: Names in the script, relative to the folder it is started in.
LIST = "combined_3_class2_for_optical_flow.csv"
APEXES = Path("datasets/combined_datasets_whole")
WHOLE = Path("datasets/STSNet_whole_norm_u_v_os")
FOLDS = Path("datasets/three_norm_u_v_os")
#: The script saves into this folder and does not make it.
WEIGHTS = "ourmodel_threedatasets_weights"

#: Side of a picture that stands for an apex whose face the store has not, px.
_GREY_SIDE = 224


def export_htnet(
    store: FlowStore, out: Path, selection: Selection | None = None, copy: bool = False
) -> dict[str, Any]:
    """Write all that HTNet's script reads; it then runs in `out`.

    The list, a JPEG of each aligned apex, the maps `<subject>_<clip> .png` and the same in folders
    `<subject>/u_train|u_test/<label>`: one file per map, links elsewhere. A sample whose face the store did
    not keep gets a grey picture, in which the script finds no face and takes its own fixed points; the
    counts, which are returned, tell how many.

    Args:
        store: With flow in pixels, or imported maps of 28 px.
        out: Folder to make.
        selection: Its scheme and databases count; the view is `whole-28`, as the script cuts it itself.
        copy: Write copies instead of links.

    Raises:
        UsageError: `out` is in use.
        ExchangeError: Names clash, there are fewer than two subjects, the scheme has other classes, or the
            script would misread the subjects' names.
        ViewError: The store cannot give the view.
    """
    selection = selection or Selection()
    data, samples = read_maps(store, selection)
    if data.classes != MEGC_CLASSES:
        raise ExchangeError(
            f"HTNet's script knows the classes {', '.join(MEGC_CLASSES)}; scheme {selection.scheme} has "
            f"{', '.join(data.classes)}. Use --scheme megc3, or `mer-flow export ststnet-loso`."
        )
    subjects = list(dict.fromkeys(map(bare_subject, samples)))
    if all(subject.isdecimal() for subject in subjects):
        raise ExchangeError(
            f"HTNet's script reads the subject '{subjects[0]}' as the number {int(subjects[0])} where every "
            "subject of its list is a number, and then misses the maps; export another database too"
        )
    folds = loso_folders(samples, data.labels)
    places = [[WHOLE, *(FOLDS / folder for folder in folders)] for folders in folds]
    grey = 0
    with new_folder(out) as part:
        linked = write_maps(part, samples, data.maps, places, copy)
        (part / WEIGHTS).mkdir()
        (part / APEXES).mkdir()
        rows = {row.sample_id: i for name in store.databases for i, row in enumerate(store.samples(name))}
        for sample in samples:
            face = _apex_face(store, sample.database, rows[sample.sample_id])
            grey += face is None
            picture = np.full((_GREY_SIDE, _GREY_SIDE), 128, np.uint8) if face is None else face
            Image.fromarray(picture).save(part / APEXES / _picture_name(sample), quality=95)
        with (part / LIST).open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(HTNET_COLUMNS)
            for sample, label in zip(samples, data.labels, strict=True):
                apex = "" if sample.apex == UNKNOWN_FRAME else sample.apex
                name = (sample.database, bare_subject(sample), megc_key(sample)[2])
                table.writerow((*name, int(label), apex, _picture_name(sample), ""))
    return {
        "out": str(out),
        "labels": str(out / LIST),
        "samples": len(samples),
        "subjects": len(subjects),
        "files": sum(map(len, places)) + len(samples) + 1,
        "linked": linked,
        "grey_apexes": grey,
        "dropped": dict(data.dropped),
    }


def _picture_name(sample: Sample) -> str:
    return f"{bare_subject(sample)}_{sample.clip}.jpg"


def _apex_face(store: FlowStore, database: str, index: int) -> np.ndarray | None:
    """Return the aligned apex, uint8 (S, S[, 3]); None where the store kept none."""
    if not store.has(database, "faces"):
        return None
    apex: np.ndarray = store.faces(database, index)[1]
    return apex if apex.any() else None
