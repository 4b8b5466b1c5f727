"""CASME II: `CASME2_RAW_selected/sub01/EP02_01f/img46.jpg`, coding sheet and objective classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mer_flow.synthetic.casting import Clip, Plan, Quirks, cast, take_numbers
from mer_flow.synthetic.layouts.workbook import new_workbook, write_header
from mer_flow.synthetic.movements import objective_class

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
    """Plans a CASME II tree: names, numbers and the sheet's oddities."""
    troupe = cast(_VOCABULARY, subjects, clips_per_subject, (10, 15), rng)
    keys = [(s, c) for s in range(subjects) for c in range(clips_per_subject)]
    quirks = Quirks(rng, len(keys))
    no_apex = quirks.choose(keys, lambda key: troupe[key[0]][key[1]].emotion == "disgust")
    apex_last = quirks.choose(keys, lambda key: troupe[key[0]][key[1]].emotion == "others")
    unknown_units = quirks.choose(keys)
    irregular = dict(zip((quirks.choose(keys) for _ in _IRREGULAR), _IRREGULAR, strict=True))
    marked: dict[str, tuple[str, ...]] = {}
    clips = []
    for s, number in enumerate(take_numbers(range(1, 27), subjects)):
        for c, role in enumerate(troupe[s]):
            episode = 1 + 2 * c + int(rng.integers(0, 2))
            name = f"EP{episode:02d}_{int(rng.integers(1, 13)):02d}{'f' if rng.random() < 0.35 else ''}"
            name = irregular.get((s, c), name).format(episode)
            onset = int(rng.integers(20, 240))
            apex = onset + role.rise
            # A clip may end at its apex.
            offset = apex if (s, c) == apex_last else onset + role.length - 1
            sample_id = f"casme2/sub{number:02d}/{name}"
            units: int | str = int(role.movement) if role.movement.isdigit() else role.movement
            cells = {
                "subject": f"{number:02d}",
                "filename": name,
                "apex": "/" if (s, c) == no_apex else apex,
                "units": "?" if (s, c) == unknown_units else units,
            }
            for quirk, key in (
                ("no-apex", no_apex),
                ("apex-is-offset", apex_last),
                ("no-units", unknown_units),
            ):
                if key == (s, c):
                    marked[quirk] = (sample_id,)
            if (s, c) in irregular:
                marked["irregular-name"] = (*marked.get("irregular-name", ()), sample_id)
            folder = f"CASME2_RAW_selected/sub{number:02d}/{name}"
            clips.append(Clip(sample_id, role, folder, "img{n}.jpg", onset, apex, offset, cells=cells))
    clips.sort(key=lambda clip: clip.sample_id)
    return Plan("casme2", tuple(clips), (640, 480), True, marked)


def write_sheets(root: Path, plan: Plan) -> None:
    """Writes the coding sheet and the sheet of objective classes."""
    with new_workbook(root / SHEET) as workbook:
        sheet = workbook.add_worksheet("Sheet1")
        workbook.add_worksheet("Sheet2")
        workbook.add_worksheet("Sheet3")
        write_header(sheet, 0, COLUMNS)
        for row, clip in enumerate(plan.clips, start=1):
            sheet.write_string(row, 0, clip.cells["subject"])
            sheet.write_string(row, 1, clip.cells["filename"])
            sheet.write_number(row, 3, clip.onset)
            _write(sheet, row, 4, clip.cells["apex"])
            sheet.write_number(row, 5, clip.offset)
            _write(sheet, row, 7, clip.cells["units"])
            sheet.write_string(row, 8, clip.role.emotion)
    with new_workbook(root / OBJECTIVE_SHEET) as workbook:
        sheet = workbook.add_worksheet("Sheet1")
        write_header(sheet, 0, ("Subject", "Filename", "Objective Class"))
        for row, clip in enumerate(plan.clips, start=1):
            sheet.write_string(row, 0, clip.cells["subject"])
            sheet.write_string(row, 1, clip.cells["filename"])
            sheet.write_number(row, 2, objective_class(clip.role.movement))


def _write(sheet: object, row: int, column: int, value: int | str) -> None:
    """Writes a number as a number and text as text: `4` is an int in the real sheet, `4+7` is not."""
    getattr(sheet, "write_string" if isinstance(value, str) else "write_number")(row, column, value)
