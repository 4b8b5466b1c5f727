"""SAMM (Davison et al. 2018, doi:10.1109/TAFFC.2016.2573832): 200 fps grey, sheet with preamble and apex."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mer_flow.databases.base import Database
from mer_flow.databases.layout import ClipFolder, ClipLocator, check_root, select_release, walk
from mer_flow.databases.reading import Notes, RawRow
from mer_flow.databases.sheets import LOST, Form, Grid, SheetMatch, frame, text

_MICRO = Form(
    name="micro-only",
    title="a SAMM sheet",
    required={
        "subject": "Subject",
        "filename": "Filename",
        "onset": "Onset Frame",
        "apex": "Apex Frame",
        "offset": "Offset Frame",
        "emotion": "Estimated Emotion",
    },
    optional={"duration": "Duration", "action_units": "Action Units", "objective": "Objective Classes"},
    any_of=("Inducement Code", "Duration", "Micro", "Objective Classes"),
)
_LONG = Form(
    name="long-videos",
    title="a sheet of SAMM Long Videos",
    required={"subject": "Subject", "filename": "Filename", "onset": "Onset", "apex": "Apex", "type": "Type"},
    any_of=("Inducement Code", "Duration"),
)
_CLIP = re.compile(r"0*(\d+)_(\d+)_(\d+)")
_RELEASES = ("raw", "cropped")
_EXAMPLE = "SAMM/006/006_1_2/006_05562.jpg"


class Samm(Database):
    """Reads SAMM's sheet, with or without its preamble of thirteen rows."""

    name = "samm"
    title = "SAMM"
    fps = 200.0
    has_apex = True
    forms = (_MICRO,)
    refused = ((_LONG, "it has no emotions; give SAMM_Micro_FACS_Codes, the sheet of the cut clips."),)

    def _rows(self, match: SheetMatch, grids: Sequence[Grid], notes: Notes) -> Iterator[RawRow]:
        for row, values in match.data():
            clip, given = text(values["filename"]), text(values["subject"])
            if not clip:
                notes.drop(row, given, "no Filename")
                continue
            name = _CLIP.fullmatch(clip)
            if name is None:
                notes.drop(row, clip, "Filename is not <subject>_<inducement>_<index>, as in 006_1_2")
                continue
            subject = f"{int(name[1]):03d}"
            if given and given.lstrip("0") != name[1]:
                notes.warnings.append(
                    f"row {row}: Subject '{given}' and Filename '{clip}' differ; the name is trusted"
                )
            _check_duration(row, clip, values, notes)
            yield RawRow(
                row,
                subject,
                f"{subject}_{name[2]}_{name[3]}",
                values["onset"],
                values["apex"],
                values["offset"],
                values["emotion"],
                values.get("action_units"),
                values.get("objective"),
            )

    def locate(self, root: Path, release: str = "auto") -> ClipLocator:
        """Finds `<any>/006/006_1_2` folders; `crop` in the name of a folder above makes them cropped."""
        root = check_root(root, self.name, _EXAMPLE)
        clips = [
            ClipFolder(
                _key(parts[-1]),
                path,
                "cropped" if any("crop" in part.lower() for part in (root.name, *parts[:-1])) else "raw",
            )
            for path, parts in walk(root, lambda _, p: _CLIP.fullmatch(p[-1]) is not None)
        ]
        chosen, folders = select_release(self.name, root, clips, release, _RELEASES, _EXAMPLE)
        return ClipLocator(
            self.name,
            root,
            chosen,
            folders,
            lambda s: (_key(s.clip),),
            frames_are_cropped=chosen == "cropped",
        )


def _key(clip: str) -> str:
    return clip.strip().lstrip("0")


def _check_duration(row: int, clip: str, values: dict[str, object], notes: Notes) -> None:
    """Warns where the Duration column (a formula, offset - onset + 1) tells of a changed frame number."""
    duration = values.get("duration")
    if duration is LOST or not text(duration):
        return
    try:
        onset, offset, stated = frame(values["onset"]), frame(values["offset"]), frame(duration)
    except ValueError:
        return  # the frame numbers are judged where the sample is made
    if onset is not None and offset is not None and stated != offset - onset + 1:
        notes.warnings.append(
            f"row {row} ({clip}): Duration is {stated}, but offset - onset + 1 is {offset - onset + 1}; "
            "the frames are trusted"
        )


DATABASE = Samm()
