"""SAMM: `SAMM/006/006_1_2/006_05562.jpg`, grayscale, and a sheet whose header stands in row 14."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mer_flow.synthetic.casting import AMPLITUDE_BANDS, Clip, Plan, Quirks, Role, cast, take_numbers
from mer_flow.synthetic.layouts.workbook import new_workbook, write_header
from mer_flow.synthetic.movements import objective_class, parse_action_units

SHEET = "SAMM_Micro_FACS_Codes_v2.xlsx"
COLUMNS = (
    *("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration"),
    *("Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes"),
)
#: What stands above the header: thirteen rows of text, some of them blank.
_PREAMBLE = (
    "Synthetic micro-movements in the format of the SAMM sheet",
    "",
    "Made by mer-flow demo: real face pixels, known movements, no real annotation",
    "",
    "New updates with Emotional and Objective Classes",
    "",
    "Symbols",
    "L / R: left or right side of the subject's face",
    "?: the unit is uncertain",
    "A to E: intensity of the unit, from trace to maximum",
    "",
    "AU: action unit of the Facial Action Coding System",
    "",
)
_SUBJECTS = (6, 7, *range(9, 27), 28, *range(30, 38))
#: Recordings whose file numbers have five digits whatever their size; all others have four.
_FIVE_DIGITS = frozenset(
    (
        *("006_1", "011_1", "013_1", "014_1", "016_7", "018_1", "018_7", "020_1"),
        *("023_1", "026_1", "030_1", "033_1", "034_7", "035_1", "035_7", "036_7"),
    )
)
_VOCABULARY = {
    "n": (
        ("anger", ("4", "4+7")),
        ("disgust", ("9", "4+9", "10")),
        ("anger", ("4", "4+7")),
        ("contempt", ("R14", "L14")),
        ("sadness", ("15", "15+17")),
        ("fear", ("20", "4+20")),
    ),
    "p": (("happiness", ("12", "6+12", "12")),),
    "s": (("surprise", ("1+2", "1+2+5", "1+2+26")),),
    "d": (("other", ("17", "14")),),
}


def plan(subjects: int, clips_per_subject: int, rng: np.random.Generator) -> Plan:
    """Plans a SAMM tree: names, numbers and the sheet's oddities."""
    troupe = cast(_VOCABULARY, subjects, clips_per_subject, (11, 16), rng)
    keys = [(s, c) for s in range(subjects) for c in range(clips_per_subject)]
    quirks = Quirks(rng, len(keys))
    outside = quirks.choose(keys, lambda key: troupe[key[0]][key[1]].kind == "n")
    doubtful = quirks.choose(keys)
    trailing = quirks.choose(keys)
    marked: dict[str, tuple[str, ...]] = {}
    clips = []
    for s, number in enumerate(take_numbers(_SUBJECTS, subjects)):
        subject = f"{number:03d}"
        recordings = _draw_recordings(clips_per_subject, rng)
        clock: dict[int, int] = {}
        for c, (role, (code, index)) in enumerate(zip(troupe[s], recordings, strict=True)):
            start = clock.get(code) or int(rng.integers(300, 9000)) + (3000 if code == 7 else 0)
            onset = start + int(rng.integers(40, 200))
            apex, offset = onset + role.rise, onset + role.length - 1
            clock[code] = offset + 60
            name = f"{subject}_{code}_{index}"
            sample_id = f"samm/{subject}/{name}"
            digits = 5 if f"{subject}_{code}" in _FIVE_DIGITS else 4
            cells = {
                "subject": subject,
                "filename": name,
                "code": code,
                "apex": apex,
                "units": _with_intensity(role),
                "notes": "",
            }
            if (s, c) == outside:
                cells["apex"] = offset + int(rng.integers(15, 40))
                marked["apex-outside"] = (sample_id,)
            if (s, c) == doubtful:
                cells["units"] = f"{cells['units']} or {role.movement}"
                cells["notes"] = "soft focus"
            if (s, c) == trailing:
                cells["units"] = f"{cells['units']} "
            folder = f"SAMM/{subject}/{name}"
            clips.append(
                Clip(
                    sample_id,
                    role,
                    folder,
                    f"{subject}_{{n:0{digits}d}}.jpg",
                    onset,
                    apex,
                    offset,
                    cells=cells,
                )
            )
    clips.sort(key=lambda clip: clip.cells["filename"])
    return Plan("samm", tuple(clips), (768, 432), False, marked)


def write_sheets(root: Path, plan: Plan) -> None:
    """Writes the FACS sheet: preamble, header in row 14, durations as formulas with their values."""
    with new_workbook(root / SHEET) as workbook:
        sheet = workbook.add_worksheet("MICRO_ONLY")
        for row, text in enumerate(_PREAMBLE):
            if text:
                sheet.write_string(row, 0, text)
        write_header(sheet, len(_PREAMBLE), COLUMNS)
        for row, clip in enumerate(plan.clips, start=len(_PREAMBLE) + 1):
            cells = clip.cells
            sheet.write_string(row, 0, cells["subject"])
            sheet.write_string(row, 1, cells["filename"])
            sheet.write_number(row, 2, cells["code"])
            sheet.write_number(row, 3, clip.onset)
            sheet.write_number(row, 4, cells["apex"])
            sheet.write_number(row, 5, clip.offset)
            sheet.write_formula(row, 6, f"=SUM(F{row + 1}-D{row + 1})+1", value=clip.offset - clip.onset + 1)
            sheet.write_string(row, 7, "Micro - 1/2")
            if cells["units"].isdigit():
                sheet.write_number(row, 8, int(cells["units"]))
            else:
                sheet.write_string(row, 8, cells["units"])
            sheet.write_string(row, 9, clip.role.emotion.capitalize())
            sheet.write_number(row, 10, objective_class(clip.role.movement))
            if cells["notes"]:
                sheet.write_string(row, 11, cells["notes"])


def _draw_recordings(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draws (inducement code, index) pairs of one subject, rising."""
    codes = np.sort(rng.integers(1, 8, count))
    index: dict[int, int] = {}
    pairs = []
    for code in codes.tolist():
        index[code] = index.get(code, 0) + int(rng.integers(1, 4))
        pairs.append((code, index[code]))
    return pairs


def _with_intensity(role: Role) -> str:
    """Writes action units as SAMM does: a letter of intensity where it is beyond a trace."""
    band = sum(role.amplitude >= low for low, _ in AMPLITUDE_BANDS[1:])
    letter = ("", "B", "C", "D")[band]
    return "+".join(f"{side}{unit}{letter}" for side, unit in parse_action_units(role.movement))
