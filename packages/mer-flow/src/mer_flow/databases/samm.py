"""SAMM (Davison et al. 2018, doi:10.1109/TAFFC.2016.2573832): 200 fps grey, sheet with preamble and apex."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mer_flow.databases.base import BY_AGREEMENT, Database
from mer_flow.databases.layout import ClipFolder, walk
from mer_flow.databases.reading import Notes
from mer_flow.databases.sheets import LOST, Form, frame, text
from mer_flow.samples import Sample

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


class Samm(Database):
    """SAMM, whose sheet may have lost its preamble of thirteen rows."""

    name = "samm"
    title = "SAMM"
    fps = 200.0
    licence = BY_AGREEMENT
    forms = (_MICRO,)
    refused = ((_LONG, "it has no emotions; give SAMM_Micro_FACS_Codes, the sheet of the cut clips."),)
    releases = ("raw", "cropped")
    example = "SAMM/006/006_1_2/006_05562.jpg"
    synthetic = "mer_flow.synthetic.layouts.samm"

    def names(self, row: int, values: dict[str, Any], notes: Notes) -> tuple[str, str]:
        """Take both from the file's name, as `006` and `006_1_2`."""
        clip, given = text(values["filename"]), text(values["subject"])
        name = _CLIP.fullmatch(clip)
        if name is None:
            raise ValueError("Filename is not <subject>_<inducement>_<index>, as in 006_1_2")
        if given and given.lstrip("0") != name[1]:
            notes.warn(f"row {row}: Subject '{given}' and Filename '{clip}' differ; the name is trusted")
        _check_duration(row, clip, values, notes)
        subject = f"{int(name[1]):03d}"
        return subject, f"{subject}_{name[2]}_{name[3]}"

    def clip_folders(self, root: Path) -> Iterator[ClipFolder]:
        """Find `<any>/006/006_1_2`; `crop` in the name of a folder above makes them cropped."""
        for path, parts, _ in walk(root, lambda parts: _CLIP.fullmatch(parts[-1])):
            cropped = any("crop" in part.lower() for part in (root.name, *parts[:-1]))
            yield ClipFolder(_key(parts[-1]), path, "cropped" if cropped else "raw")

    def keys(self, sample: Sample, release: str) -> tuple[str, ...]:
        """Return the clip's name without zeros before it."""
        return (_key(sample.clip),)


def _key(clip: str) -> str:
    return clip.strip().lstrip("0")


def _check_duration(row: int, clip: str, values: dict[str, Any], notes: Notes) -> None:
    """Warn where the Duration column (a formula, offset - onset + 1) tells of a changed frame number."""
    duration = values.get("duration")
    if duration is LOST or not text(duration):
        return
    try:
        onset, offset, stated = frame(values["onset"]), frame(values["offset"]), frame(duration)
    except ValueError:
        return  # the frame numbers are judged where the sample is made
    if onset is not None and offset is not None and stated != offset - onset + 1:
        notes.warn(
            f"row {row} ({clip}): Duration is {stated}, but offset - onset + 1 is {offset - onset + 1}; "
            "the frames are trusted"
        )
