"""Export to STSTNet's flat folder and LOSO folders."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_flow.exchange.label_list import bare_subject, list_lines, map_stem, stem_key
from mer_flow.exchange.layouts import TEST, TRAIN
from mer_flow.exchange.selection import Selection
from mer_flow.samples import Sample
from mer_flow.store.reader import FlowStore
from mer_flow.views import parse_view
from mer_flow.work.errors import ExchangeError
from mer_flow.work.files import new_folder

#: Normalisations that eight bits per channel can hold.
PNG_NORMALISATIONS = ("minmax", "minmax-255")


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What one export wrote.

    Attributes:
        out: The folder or file.
        labels: The ground-truth list beside it.
        samples: Samples written.
        subjects: Their subjects.
        files: Map files written, links included.
        linked: How many of them are hard links.
        dropped: Samples that the label scheme gives no class, by reason.
    """

    out: Path
    labels: Path
    samples: int
    subjects: int
    files: int
    linked: int
    dropped: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns the summary for `--json`."""
        return {
            "out": str(self.out),
            "labels": str(self.labels),
            "samples": self.samples,
            "subjects": self.subjects,
            "files": self.files,
            "linked": self.linked,
            "dropped": self.dropped,
        }


def list_beside(out: Path) -> Path:
    """Returns where an export puts its list: beside the folder, in which every entry counts as a subject.

    >>> list_beside(Path("maps/loso")).as_posix()
    'maps/loso-labels.csv'
    """
    return out.with_name(f"{out.name}-labels.csv")


@dataclass(frozen=True, slots=True)
class _Maps:
    """What both layouts need: pixels, names, folders and classes, in one order."""

    pixels: NDArray[np.uint8]
    names: tuple[str, ...]
    subjects: tuple[str, ...]
    labels: tuple[int, ...]
    list_text: str
    dropped: dict[str, int]


def _collect(store: FlowStore, selection: Selection) -> _Maps:
    """Reads the view and names every map; refuses what a PNG folder cannot hold."""
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
    data = selection.read(store, "minmax-255")
    table = store.table()
    samples: list[Sample] = [table[str(sample_id)] for sample_id in data.sample_ids]
    names = tuple(map_stem(sample) for sample in samples)
    subjects = tuple(bare_subject(sample) for sample in samples)
    _refuse_clashes(samples, names, subjects)
    labels = tuple(int(label) for label in data.labels)
    return _Maps(
        np.rint(np.clip(data.maps, 0, 255)).astype(np.uint8),
        tuple(f"{name} .png" for name in names),  # the blank is part of STSTNet's names
        subjects,
        labels,
        "".join(f"{line}\r\n" for line in list_lines(samples, labels, data.classes)),
        dict(data.dropped),
    )  # fmt: skip


def _refuse_clashes(samples: list[Sample], names: tuple[str, ...], subjects: tuple[str, ...]) -> None:
    """Refuses two samples with one file name, or two databases' subjects with one folder."""
    file_of: dict[str, str] = {}
    owner: dict[str, str] = {}
    for sample, name, subject in zip(samples, names, subjects, strict=True):
        unsafe = [text for text in (name, subject) if "/" in text or "\\" in text or text in (".", "..")]
        if unsafe:
            raise ExchangeError(
                f"{sample.sample_id}: '{unsafe[0]}' cannot name a file; use `mer-flow export npz`"
            )
        other = file_of.setdefault(stem_key(name), sample.sample_id)
        if other != sample.sample_id:
            raise ExchangeError(
                f"{other} and {sample.sample_id} would share the file name '{name} .png'. "
                "Export one database at a time with --db."
            )
        if owner.setdefault(stem_key(subject), sample.subject) != sample.subject:
            raise ExchangeError(
                f"subjects {owner[stem_key(subject)]} and {sample.subject} would share the folder "
                f"'{subject}'. Export one database at a time with --db."
            )


def _save_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes `(3, H, W)` as an RGB PNG file."""
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)), "RGB").save(path, format="PNG")


def export_flat(store: FlowStore, out: Path, selection: Selection | None = None) -> ExportSummary:
    """Writes one PNG file per sample, named `<subject>_<clip> .png`, and the list beside the folder.

    Args:
        store: The store to read.
        out: The folder to make.
        selection: Samples and view; `minmax` and `minmax-255` both give 0..255 per image and channel. All
            samples with a class of `megc3`, `whole-28` unless given.

    Returns:
        What was written.

    Raises:
        UsageError: `out` is in use.
        ExchangeError: Names clash, or the normalisation does not fit 8 bits.
        ViewError: The store cannot give the view.
    """
    maps = _collect(store, selection or Selection())
    with new_folder(out) as part:
        for name, pixels in zip(maps.names, maps.pixels, strict=True):
            _save_png(part / name, pixels)
        list_beside(out).write_text(maps.list_text, encoding="utf-8", newline="")
    count = len(maps.names)
    return ExportSummary(out, list_beside(out), count, len(set(maps.subjects)), count, 0, maps.dropped)


def export_loso(
    store: FlowStore, out: Path, selection: Selection | None = None, *, copy: bool = False
) -> ExportSummary:
    """Writes `<subject>/u_train|u_test/<label>/*.png`, one fold per subject, and the list beside the folder.

    Every map stands in every fold: 442 samples of 68 subjects make 30,056 files. They are hard links to one
    file per sample, so they take the room of 442; where the file system has no links, or with `copy`, they
    are copies.

    Args:
        store: The store to read.
        out: The folder to make.
        selection: As for `export_flat`.
        copy: Write copies, for programs that edit files in place.

    Returns:
        What was written.

    Raises:
        UsageError: `out` is in use.
        ExchangeError: Names clash, there are fewer than two subjects, or the normalisation does not fit
            8 bits.
        ViewError: The store cannot give the view.
    """
    maps = _collect(store, selection or Selection())
    folds = tuple(dict.fromkeys(maps.subjects))
    if len(folds) < 2:
        raise ExchangeError(
            f"leave-one-subject-out needs at least two subjects, got {folds}; export more databases"
        )
    linked = 0
    first: dict[str, Path] = {}
    with new_folder(out) as part:
        for fold in folds:
            for i, name in enumerate(maps.names):
                side = TEST if maps.subjects[i] == fold else TRAIN
                folder = part / fold / side / str(maps.labels[i])
                folder.mkdir(parents=True, exist_ok=True)
                target = folder / name
                if name not in first:
                    _save_png(target, maps.pixels[i])
                    first[name] = target
                else:
                    linked += _link_or_copy(first[name], target, copy)
        list_beside(out).write_text(maps.list_text, encoding="utf-8", newline="")
    count = len(maps.names)
    return ExportSummary(out, list_beside(out), count, len(folds), count * len(folds), linked, maps.dropped)


def _link_or_copy(source: Path, target: Path, copy: bool) -> bool:
    """Makes `target` a hard link to `source`, else a copy; says whether it is a link."""
    if not copy:
        try:
            os.link(source, target)
        except OSError:  # no links on this file system, or too many on this file
            pass
        else:
            return True
    shutil.copyfile(source, target)
    return False
