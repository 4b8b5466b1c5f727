"""CASME II: `CASME2_RAW_selected/sub01/EP02_01f/img46.jpg`, coding sheet and objective classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mer_flow.synthetic.casting import Clip, Plan, Quirks, cast, take_numbers
from mer_flow.synthetic.layouts.workbook import write_workbook
from mer_flow.synthetic.movements import objective_class

STREAM = 0
SHEET = "CASME2-coding-20140508.xlsx"
OBJECTIVE_SHEET = "CASME2-ObjectiveClasses.xlsx"
COLUMNS = (
    *("Subject", "Filename", "", "OnsetFrame", "ApexFrame", "OffsetFrame", ""),
    *("Action Units", "Estimated Emotion"),
)
_VOCABULARY = {
    "n": (
        ("disgust", ("4", "4+7", "9", "4+9")),
        ("repression", ("15", "15+17")),
        ("disgust", ("4", "4+7", "10")),
    ),
    "p": (("happiness", ("12", "6+12", "12", "L12")),),
    "s": (("surprise", ("1+2", "1+2", "R1+R2", "1+2+25", "1+2+5")),),
    "d": (("others", ("14", "17")), ("sadness", ("1+4",)), ("others", ("R14", "L14"))),
}
#: Clip names that do not follow the pattern `EP02_01` or `EP02_01f`.
_IRREGULAR = ("EP{0:02d}_2", "EP{0:02d}_02_01", "EP{0:02d}f")


def plan(subjects: int, clips_per_subject: int, rng: np.random.Generator) -> Plan:
    """Plan a CASME II tree: names, numbers and the sheet's oddities."""
    roles = cast(_VOCABULARY, subjects, clips_per_subject, (10, 15), rng)
    quirks = Quirks(rng, len(roles))
    no_apex = quirks.choose(roles, "no-apex", lambda place: roles[place].emotion == "disgust")
    apex_last = quirks.choose(roles, "apex-is-offset", lambda place: roles[place].emotion == "others")
    no_units = quirks.choose(roles, "no-units")
    irregular = {quirks.choose(roles, "irregular-name"): name for name in _IRREGULAR}
    numbers = take_numbers(range(1, 27), subjects)
    clips = {}
    for place, role in roles.items():
        subject = f"sub{numbers[place[0]]:02d}"
        episode = 1 + 2 * place[1] + int(rng.integers(0, 2))
        name = f"EP{episode:02d}_{int(rng.integers(1, 13)):02d}{'f' if rng.random() < 0.35 else ''}"
        name = irregular.get(place, name).format(episode)
        onset = int(rng.integers(20, 240))
        apex = onset + role.rise
        # A clip may end at its apex.
        offset = apex if place == apex_last else onset + role.length - 1
        units: int | str = int(role.movement) if role.movement.isdigit() else role.movement
        cells = {
            "subject": subject[3:],
            "filename": name,
            "apex": "/" if place == no_apex else apex,
            "units": "?" if place == no_units else units,
        }
        sample_id, folder = f"casme2/{subject}/{name}", f"CASME2_RAW_selected/{subject}/{name}"
        clips[place] = Clip(sample_id, role, folder, "img{n}.jpg", onset, apex, offset, cells=cells)
    ordered = sorted(clips.values(), key=lambda clip: clip.sample_id)
    return Plan(tuple(ordered), quirks.marked(clips))


def write_sheets(root: Path, plan: Plan) -> None:
    """Write the coding sheet and the sheet of objective classes."""
    rows: list[tuple[int | str, ...]] = [COLUMNS]
    classes: list[tuple[int | str, ...]] = [("Subject", "Filename", "Objective Class")]
    for clip in plan.clips:
        cells = clip.cells
        name = (cells["subject"], cells["filename"])
        frames = ("", clip.onset, cells["apex"], clip.offset, "")
        rows.append((*name, *frames, cells["units"], clip.role.emotion))
        classes.append((*name, objective_class(clip.role.movement)))
    write_workbook(root / SHEET, {"Sheet1": rows, "Sheet2": (), "Sheet3": ()})
    write_workbook(root / OBJECTIVE_SHEET, {"Sheet1": classes})
