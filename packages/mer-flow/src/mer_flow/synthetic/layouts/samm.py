"""SAMM: `SAMM/006/006_1_2/006_05562.jpg`, grayscale, and a sheet whose header stands in row 14."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mer_flow.synthetic.casting import AMPLITUDE_BANDS, Clip, Plan, Quirks, Role, cast, take_numbers
from mer_flow.synthetic.layouts.workbook import Cell, write_workbook
from mer_flow.synthetic.movements import objective_class, parse_action_units

STREAM = 1
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
    """Plan a SAMM tree: names, numbers and the sheet's oddities."""
    roles = cast(_VOCABULARY, subjects, clips_per_subject, (11, 16), rng)
    quirks = Quirks(rng, len(roles))
    outside = quirks.choose(roles, "apex-outside", lambda place: roles[place].kind == "n")
    doubtful = quirks.choose(roles)
    trailing = quirks.choose(roles)
    clips = {}
    for s, number in enumerate(take_numbers(_SUBJECTS, subjects)):
        subject = f"{number:03d}"
        clock: dict[int, int] = {}
        for c, (code, index) in enumerate(_draw_recordings(clips_per_subject, rng)):
            role = roles[s, c]
            start = clock.get(code) or int(rng.integers(300, 9000)) + (3000 if code == 7 else 0)
            onset = start + int(rng.integers(40, 200))
            apex, offset = onset + role.rise, onset + role.length - 1
            clock[code] = offset + 60
            name = f"{subject}_{code}_{index}"
            digits = 5 if f"{subject}_{code}" in _FIVE_DIGITS else 4
            units = _with_intensity(role)
            if (s, c) == doubtful:
                units = f"{units} or {role.movement}"
            cells = {
                "subject": subject,
                "filename": name,
                "code": code,
                "apex": offset + int(rng.integers(15, 40)) if (s, c) == outside else apex,
                "units": f"{units} " if (s, c) == trailing else units,
                "notes": "soft focus" if (s, c) == doubtful else "",
            }
            sample_id, folder = f"samm/{subject}/{name}", f"SAMM/{subject}/{name}"
            pattern = f"{subject}_{{n:0{digits}d}}.jpg"
            clips[s, c] = Clip(sample_id, role, folder, pattern, onset, apex, offset, cells=cells)
    ordered = sorted(clips.values(), key=lambda clip: clip.cells["filename"])
    return Plan(tuple(ordered), quirks.marked(clips), (768, 432), colour=False)


def write_sheets(root: Path, plan: Plan) -> None:
    """Write the FACS sheet: preamble, header in row 14, durations as formulas with their values."""
    rows: list[tuple[Cell, ...]] = [*((text,) for text in _PREAMBLE), COLUMNS]
    for clip in plan.clips:
        cells, line = clip.cells, len(rows) + 1
        units = cells["units"]
        rows.append(
            (
                *(cells["subject"], cells["filename"], cells["code"], clip.onset, cells["apex"], clip.offset),
                (f"=SUM(F{line}-D{line})+1", clip.offset - clip.onset + 1),
                "Micro - 1/2",
                int(units) if units.isdigit() else units,
                clip.role.emotion.capitalize(),
                objective_class(clip.role.movement),
                cells["notes"],
            )
        )
    write_workbook(root / SHEET, {"MICRO_ONLY": rows})


def _draw_recordings(count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw (inducement code, index) pairs of one subject, rising."""
    codes = np.sort(rng.integers(1, 8, count))
    index: dict[int, int] = {}
    pairs = []
    for code in codes.tolist():
        index[code] = index.get(code, 0) + int(rng.integers(1, 4))
        pairs.append((code, index[code]))
    return pairs


def _with_intensity(role: Role) -> str:
    """Write action units as SAMM does: a letter of intensity where it is beyond a trace."""
    band = sum(role.amplitude >= low for low, _ in AMPLITUDE_BANDS[1:])
    letter = ("", "B", "C", "D")[band]
    return "+".join(f"{side}{unit}{letter}" for side, unit in parse_action_units(role.movement))
