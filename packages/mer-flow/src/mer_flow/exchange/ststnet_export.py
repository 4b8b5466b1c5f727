"""Export to STSTNet's flat folder and LOSO folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mer_flow.exchange.label_list import bare_subject, list_line, map_stem, stem_key
from mer_flow.exchange.layouts import TEST, TRAIN
from mer_flow.exchange.selection import Selection
from mer_flow.labels import megc_key
from mer_flow.samples import Sample
from mer_flow.store.reader import FlowStore
from mer_flow.views import parse_view
from mer_flow.work.cells import FORMULA_MARKS
from mer_flow.work.errors import ExchangeError
from mer_flow.work.files import new_folder

if TYPE_CHECKING:
    from mer_flow.views import ViewData

#: Normalisations that eight bits per channel can hold.
PNG_NORMALISATIONS = ("minmax", "minmax-255")


def list_beside(out: Path) -> Path:
    """Return where an export puts its list: beside the folder, in which every entry counts as a subject.

    >>> list_beside(Path("maps/loso")).as_posix()
    'maps/loso-labels.csv'
    """
    return out.with_name(f"{out.name}-labels.csv")


def export_folders(
    store: FlowStore, out: Path, selection: Selection | None = None, layout: str = "loso", copy: bool = False
) -> dict[str, Any]:
    """Write one PNG file per sample, `<subject>_<clip> .png`, and the list of labels beside the folder.

    In the LOSO layout, `<subject>/u_train|u_test/<label>/*.png`, every map stands in every fold: 442 samples
    of 68 subjects make 30,056 files. They are hard links to one file per sample, so they take the room of
    442; where the file system has no links, or with `copy`, they are copies. Counts are returned.

    Raises:
        UsageError: `out` is in use.
        ExchangeError: Names clash, there are fewer than two subjects for `loso`, or the normalisation does
            not fit 8 bits.
        ViewError: The store cannot give the view.
    """
    selection = selection or Selection()
    _refuse_other_than_flow(selection)
    data, samples = read_maps(store, selection)
    if layout == "loso":
        places = loso_folders(samples, data.labels)
    else:
        places = [[Path()]] * len(samples)
    with new_folder(out) as part:
        linked = write_maps(part, samples, data.maps, places, copy)
        lines = [list_line(s, int(n), data.classes) for s, n in zip(samples, data.labels, strict=True)]
        text = "".join(f"{line}\r\n" for line in lines)
        list_beside(out).write_text(text, encoding="utf-8", newline="")
    return {
        "out": str(out),
        "labels": str(list_beside(out)),
        "samples": len(samples),
        "subjects": len(set(map(bare_subject, samples))),
        "files": sum(map(len, places)),
        "linked": linked,
        "dropped": dict(data.dropped),
    }


def read_maps(store: FlowStore, selection: Selection) -> tuple[ViewData, list[Sample]]:
    """Read what an export of pictures writes: maps of 0 to 255, and the samples beside them.

    Raises:
        ExchangeError: Names of files or folders clash, or no list of labels can hold them.
        ViewError: The store cannot give the view.
    """
    data, table = selection.read(store, "minmax-255"), store.table()
    samples = [table[str(sample_id)] for sample_id in data.sample_ids]
    _refuse_clashes(samples)
    _refuse_formulas(samples)
    return data, samples


def _refuse_formulas(samples: Iterable[Sample]) -> None:
    """Refuse names that a spreadsheet would compute; scripts read lists as they are, none can be marked."""
    for sample in samples:
        for name in (bare_subject(sample), megc_key(sample)[2]):
            if name.startswith(FORMULA_MARKS) or "," in name:
                raise ExchangeError(
                    f"{sample.sample_id}: the list of labels cannot hold the name '{name}', which a "
                    "spreadsheet takes for a formula or which has a comma; give the subject or clip another "
                    "name in the sheet"
                )


def map_name(sample: Sample) -> str:
    """Return the name of a sample's map; the blank is part of STSTNet's names."""
    return f"{map_stem(sample)} .png"


def loso_folders(samples: Sequence[Sample], labels: Iterable[int]) -> list[list[Path]]:
    """Return the folders, `<held-out subject>/u_train|u_test/<label>`, in which each sample's map stands.

    Raises:
        ExchangeError: There are fewer than two subjects.
    """
    subjects = list(dict.fromkeys(map(bare_subject, samples)))
    if len(subjects) < 2:
        raise ExchangeError(
            f"leave-one-subject-out needs at least two subjects, got {subjects}; export more databases"
        )
    return [
        [Path(fold, TEST if fold == bare_subject(sample) else TRAIN, str(label)) for fold in subjects]
        for sample, label in zip(samples, labels, strict=True)
    ]


def write_maps(
    root: Path,
    samples: Sequence[Sample],
    maps: np.ndarray,
    places: Sequence[Sequence[Path]],
    copy: bool = False,
) -> int:
    """Write each map into the folders where it stands: a file in the first, links to it in the others.

    Args:
        root: Folder above all.
        samples: One per map.
        maps: (N, 3, H, W) float, 0 to 255.
        places: Folders of each, relative to `root`.
        copy: Write copies instead of links.

    Returns:
        How many files are links.
    """
    linked = 0
    for sample, planes, folders in zip(samples, maps, places, strict=True):
        first, *others = [root / folder / map_name(sample) for folder in folders]
        first.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.rint(np.clip(planes, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(pixels), "RGB").save(first, format="PNG")
        for path in others:
            path.parent.mkdir(parents=True, exist_ok=True)
            linked += _link_or_copy(first, path, copy)
    return linked


def _refuse_other_than_flow(selection: Selection) -> None:
    if selection.normalisation not in PNG_NORMALISATIONS:
        raise ExchangeError(
            f"normalisation '{selection.normalisation}' does not fit 8-bit pictures, which hold "
            f"{' or '.join(PNG_NORMALISATIONS)} only (per image and channel, 0 to 255). "
            "Use `mer-flow export npz` for other normalisations."
        )
    if parse_view(selection.view).family in ("faces", "clips"):
        raise ExchangeError(
            f"view '{selection.view}' holds pictures; these folders hold flow: whole-N, regions-N or htnet-N"
        )


def _refuse_clashes(samples: list[Sample]) -> None:
    """Refuse two samples with one file name, or two databases' subjects with one folder."""
    owner: dict[tuple[str, str], str] = {}
    for sample in samples:
        name, subject = map_stem(sample), bare_subject(sample)
        unsafe = [text for text in (name, subject) if "/" in text or "\\" in text or text in (".", "..")]
        if unsafe:
            raise ExchangeError(
                f"{sample.sample_id}: '{unsafe[0]}' cannot name a file; use `mer-flow export npz`"
            )
        for what, text, mine in (
            ("file name", map_name(sample), sample.sample_id), ("folder", subject, sample.subject)
        ):  # fmt: skip
            other = owner.setdefault((what, stem_key(text)), mine)
            if other != mine:
                raise ExchangeError(
                    f"{other} and {mine} would share the {what} '{text}'. "
                    "Export one database at a time with --db."
                )


def _link_or_copy(source: Path, target: Path, copy: bool) -> bool:
    """Make `target` a hard link to `source`, else a copy; say whether it is a link."""
    if not copy:
        try:
            os.link(source, target)
        except OSError:  # no links on this file system, or too many on this file
            pass
        else:
            return True
    shutil.copyfile(source, target)
    return False
