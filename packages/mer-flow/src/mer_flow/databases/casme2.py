"""CASME II (Yan et al. 2014, doi:10.1371/journal.pone.0086041): 200 fps, coding sheet with apex."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mer_flow.databases.base import Database
from mer_flow.databases.layout import (
    ClipFolder,
    ClipLocator,
    check_root,
    first_image,
    image_numbers,
    select_release,
    walk,
)
from mer_flow.databases.reading import Notes, RawRow
from mer_flow.databases.sheets import SHEET_SUFFIXES, Form, Grid, SheetMatch, find_form, read_workbook, text
from mer_flow.work.errors import SheetError

if TYPE_CHECKING:
    from mer_flow.samples import Sample

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
_RELEASES = ("raw", "selected", "cropped")
_TOKENS = (("crop", "cropped"), ("select", "selected"), ("raw", "raw"))
_EXAMPLE = "CASME2_RAW_selected/sub01/EP02_01f/img46.jpg or Cropped/sub01/EP02_01f/reg_img46.jpg"


class Casme2(Database):
    """Reads CASME II's coding sheets of 2014, 2019 and their re-saved and updated forms."""

    name = "casme2"
    title = "CASME II"
    fps = 200.0
    has_apex = True
    forms = (_CODING,)
    refused = (
        (_OBJECTIVE, "it has no frame numbers; give the coding sheet and leave this file next to it."),
    )

    def _form_name(self, match: SheetMatch) -> str:
        # The older .xls is the same but for the two blank columns.
        compact = match.columns["onset"] == match.columns["filename"] + 1
        return "coding-compact" if compact else "coding"

    def _rows(self, match: SheetMatch, grids: Sequence[Grid], notes: Notes) -> Iterator[RawRow]:
        classes = {} if "objective" in match.columns else self._objective_classes(match.grid.path, notes)
        for row, values in match.data():
            clip, given = text(values["filename"]), text(values["subject"])
            if not clip:
                notes.drop(row, given, "no Filename")
                continue
            number = _SUBJECT.fullmatch(given)
            if number is None:
                notes.drop(row, clip, f"Subject '{given}' is no subject number; expected '01' to '26'")
                continue
            subject = f"sub{int(number[1]):02d}"
            yield RawRow(
                row,
                subject,
                clip,
                values["onset"],
                values["apex"],
                values["offset"],
                values["emotion"],
                values.get("action_units"),
                values.get("objective") or classes.get((subject, clip.lower())),
            )

    def _objective_classes(self, sheet: Path, notes: Notes) -> dict[tuple[str, str], object]:
        """Reads the objective classes from the workbook next to the sheet that has such columns, if any."""
        for path in sorted(sheet.parent.iterdir()):
            if (
                path == sheet
                or path.suffix.lower() not in SHEET_SUFFIXES
                or path.name.startswith((".", "~$"))
            ):
                continue
            try:
                match = find_form(read_workbook(path), [_OBJECTIVE])
            except SheetError as error:
                notes.warnings.append(f"skipped while looking for objective classes: {error}")
                continue
            if match is None:
                continue
            classes = {}
            for _, values in match.data():
                number = _SUBJECT.fullmatch(text(values["subject"]))
                if number is not None:
                    classes[(f"sub{int(number[1]):02d}", text(values["filename"]).lower())] = values[
                        "objective"
                    ]
            return classes
        return {}

    def locate(self, root: Path, release: str = "auto") -> ClipLocator:
        """Finds `<any>/sub01/EP02_01f` folders of the raw, selected and cropped releases."""
        root = check_root(root, self.name, _EXAMPLE)
        of_base: dict[tuple[str, ...], str] = {}
        clips = []
        for path, parts in walk(
            root, lambda _, p: len(p) > 1 and _SUBJECT_FOLDER.fullmatch(p[-2]) is not None
        ):
            base = parts[:-2]
            if base not in of_base:
                of_base[base] = _release((root.name, *base), path)
            number = _SUBJECT_FOLDER.fullmatch(parts[-2])
            assert number is not None
            clips.append(ClipFolder(_key(int(number[1]), parts[-1]), path, of_base[base]))
        chosen, folders = select_release(self.name, root, clips, release, _RELEASES, _EXAMPLE)
        return ClipLocator(self.name, root, chosen, folders, _keys, frames_are_cropped=chosen == "cropped")


def _key(subject: int, clip: str) -> str:
    return f"{subject}/{clip.strip().lower()}"


def _keys(sample: Sample) -> tuple[str, ...]:
    digits = re.sub(r"\D", "", sample.subject.partition("/")[2])
    return (_key(int(digits or -1), sample.clip),)


def _release(parts: tuple[str, ...], clip: Path) -> str:
    """Tells the release by the nearest telling folder name, else by the files of one clip."""
    for part in reversed(parts):
        for token, release in _TOKENS:
            if token in part.lower():
                return release
    image = first_image(clip)
    if image is not None and image.lower().startswith("reg_"):
        return "cropped"
    numbers = image_numbers(clip)
    # Raw recordings are numbered from 1; selected ones begin at the onset.
    return "raw" if numbers and numbers[0] <= 1 else "selected"


DATABASE = Casme2()
