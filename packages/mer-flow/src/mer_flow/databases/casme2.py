"""CASME II (Yan et al. 2014, doi:10.1371/journal.pone.0086041): 200 fps, coding sheet with apex."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mer_flow.databases.base import BY_AGREEMENT, Database
from mer_flow.databases.frames import image_names, image_numbers
from mer_flow.databases.layout import ClipFolder, walk
from mer_flow.databases.reading import Notes, RawRow
from mer_flow.databases.sheets import Form, Grid, SheetMatch, find_form, read_workbook, sheet_files, text
from mer_flow.samples import Sample
from mer_flow.work.errors import SheetError

_CODING = Form(
    name="coding",
    title="a CASME II coding sheet",
    required={
        "subject": "Subject",
        "filename": "Filename",
        "onset": "OnsetFrame",
        "apex": "ApexFrame",
        "offset": "OffsetFrame",
        "emotion": "Estimated Emotion",
    },
    optional={"action_units": "Action Units", "objective": "Objective Class"},
    absent=("Inducement Code",),  # SAMM's columns are otherwise the same
)
_OBJECTIVE = Form(
    name="objective-classes",
    title="CASME II's file of objective classes",
    required={"subject": "Subject", "filename": "Filename", "objective": "Objective Class"},
    absent=("OnsetFrame", "Onset", "Inducement Code"),
)
_SUBJECT = re.compile(r"(?:sub)?[\s_-]*0*(\d+)", re.IGNORECASE)
_SUBJECT_FOLDER = re.compile(r"sub[\s_-]*0*(\d+)", re.IGNORECASE)
_TOKENS = (("crop", "cropped"), ("select", "selected"), ("raw", "raw"))


class Casme2(Database):
    """CASME II: coding sheets of 2014 and 2019, and their re-saved and updated forms."""

    name = "casme2"
    title = "CASME II"
    fps = 200.0
    licence = BY_AGREEMENT
    forms = (_CODING,)
    refused = (
        (_OBJECTIVE, "it has no frame numbers; give the coding sheet and leave this file next to it."),
    )
    releases = ("raw", "selected", "cropped")
    example = "CASME2_RAW_selected/sub01/EP02_01f/img46.jpg or Cropped/sub01/EP02_01f/reg_img46.jpg"
    synthetic = "mer_flow.synthetic.layouts.casme2"

    def form_name(self, match: SheetMatch) -> str:
        """Tell the older .xls, which is the same but for two blank columns."""
        compact = match.columns["onset"] == match.columns["filename"] + 1
        return "coding-compact" if compact else "coding"

    def names(self, row: int, values: dict[str, Any], notes: Notes) -> tuple[str, str]:
        """Return `sub01` and the clip as written: suffixes and irregular names are right."""
        given = text(values["subject"])
        number = _SUBJECT.fullmatch(given)
        if number is None:
            raise ValueError(f"Subject '{given}' is no subject number; expected '01' to '26'")
        return f"sub{int(number[1]):02d}", text(values["filename"])

    def rows(self, match: SheetMatch, grids: Sequence[Grid], notes: Notes) -> Iterator[RawRow]:
        """Yield the rows, with the objective classes of the workbook that lies next to the sheet."""
        classes = {} if "objective" in match.columns else self._objective_classes(match.grid.path, notes)
        for row in super().rows(match, grids, notes):
            row.values["objective"] = row.values.get("objective") or classes.get(row.key.lower())
            yield row

    def _objective_classes(self, sheet: Path, notes: Notes) -> dict[str, object]:
        for path in sheet_files(sheet.parent, depth=0):
            try:
                match = find_form(read_workbook(path), [_OBJECTIVE]) if path != sheet else None
            except SheetError as error:
                notes.warn(f"skipped while looking for objective classes: {error}")
                continue
            if match is not None:
                rows = super().rows(match, (), Notes())
                return {row.key.lower(): row.values["objective"] for row in rows}
        return {}

    def clip_folders(self, root: Path) -> Iterator[ClipFolder]:
        """Find `<any>/sub01/EP02_01f`."""
        of_base: dict[tuple[str, ...], str] = {}
        for path, parts, subject in walk(root, _subject_above):
            base = parts[:-2]
            if base not in of_base:
                of_base[base] = _release((root.name, *base), path)
            yield ClipFolder(_key(subject, parts[-1]), path, of_base[base])

    def keys(self, sample: Sample, release: str) -> tuple[str, ...]:
        """Return the subject's number and the clip in lower case."""
        digits = re.sub(r"\D", "", sample.subject.partition("/")[2])
        return (_key(int(digits or -1), sample.clip),)


def _key(subject: int, clip: str) -> str:
    return f"{subject}/{clip.strip().lower()}"


def _subject_above(parts: tuple[str, ...]) -> int | None:
    """Return the number of the subject whose folder a folder lies in."""
    number = _SUBJECT_FOLDER.fullmatch(parts[-2]) if len(parts) > 1 else None
    return int(number[1]) if number else None


def _release(parts: tuple[str, ...], clip: Path) -> str:
    """Tell the release by the nearest telling folder name, else by the files of one clip."""
    for part in reversed(parts):
        for token, release in _TOKENS:
            if token in part.lower():
                return release
    if next(iter(image_names(clip)), "").lower().startswith("reg_"):
        return "cropped"
    # Raw recordings are numbered from 1; selected ones begin at the onset.
    return "raw" if min(image_numbers(clip), default=2) <= 1 else "selected"
