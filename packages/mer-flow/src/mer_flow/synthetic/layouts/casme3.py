"""CAS(ME)^3 Part A: `part_A/spNO.1/a/color/166.jpg` and the second version of its sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mer_flow.synthetic.casting import Clip, Place, Plan, Quirks, cast, take_numbers
from mer_flow.synthetic.layouts.workbook import Cell, write_workbook
from mer_flow.synthetic.movements import objective_class

STREAM = 3
SHEET = "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"
COLUMNS = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")
_ROMAN = ("", "I", "II", "III", "IV", "V", "VI", "VII")
_SUBJECTS = (1, 2, 3, 10, 11, 14, *range(139, 148), *range(152, 210))
#: One clip in this many lacks a frame.
_DROP_EVERY = 10
_VOCABULARY = {
    "n": (
        ("disgust", ("4", "4+7", "9", "4+9")),
        ("fear", ("20", "4+20")),
        ("disgust", ("4", "9", "10")),
        ("anger", ("4+7", "4")),
        ("sad", ("15", "15+17")),
    ),
    "p": (("happy", ("12", "6+12", "R12")),),
    "s": (("surprise", ("1+2", "L2+L1", "1+2+5", "1+2+26")),),
    "d": (("others", ("14", "17", "R14")),),
}


def plan(subjects: int, clips_per_subject: int, rng: np.random.Generator) -> Plan:
    """Plan a CAS(ME)^3 tree: names, numbers and the sheet's oddities."""
    roles = cast(_VOCABULARY, subjects, clips_per_subject, (9, 13), rng)
    quirks = Quirks(rng, len(roles))

    def is_other(place: Place) -> bool:
        return roles[place].emotion == "others"

    apex_first = quirks.choose(roles, "apex-is-onset", is_other)
    no_offset = quirks.choose(roles, "no-offset", is_other)
    capital = quirks.choose(filter(is_other, roles)) or apex_first
    quirks.mark("capital-emotion", capital)
    upper = quirks.choose(roles, "capital-letter")
    chosen = (quirks.choose(roles, "missing-frame") for _ in range(max(1, round(len(roles) / _DROP_EVERY))))
    dropped: set[Place] = {place for place in chosen if place is not None}
    # The first of them loses its very apex.
    no_apex_frame = min(dropped, default=None)
    quirks.mark("missing-apex-frame", no_apex_frame)
    clips = {}
    for s, number in enumerate(take_numbers(_SUBJECTS, subjects)):
        subject = f"spNO.{number}"
        for c, (letter, onset) in enumerate(_draw_videos(clips_per_subject, s % 2 == 1, rng)):
            place, role = (s, c), roles[s, c]
            apex, offset = onset + role.rise, onset + role.length - 1
            filename = letter.upper() if place == upper else letter
            inner = onset + (2 if apex != onset + 2 else 3)
            missing = (apex if place == no_apex_frame else inner,) if place in dropped else ()
            cells = {
                "subject": subject,
                "filename": filename,
                "apex": onset if place == apex_first else apex,
                "offset": 0 if place == no_offset else offset,
                "emotion": "Others" if place == capital and is_other(place) else role.emotion,
            }
            sample_id = f"casme3/{subject}/{filename}_{onset}"
            folder = f"part_A/{subject}/{letter}/color"
            clips[place] = Clip(sample_id, role, folder, "{n}.jpg", onset, apex, offset, 2, missing, cells)
    ordered = sorted(
        clips.values(), key=lambda clip: (clip.cells["subject"], clip.cells["filename"].lower(), clip.onset)
    )
    return Plan(tuple(ordered), quirks.marked(clips))


def write_sheets(root: Path, plan: Plan) -> None:
    """Write the sheet `label`, and the two empty sheets beside it."""
    rows: list[tuple[Cell, ...]] = [COLUMNS]
    for clip in plan.clips:
        cells, movement = clip.cells, clip.role.movement
        frames = (clip.onset, cells["apex"], cells["offset"])
        shown = (movement, _ROMAN[objective_class(movement)], cells["emotion"])
        rows.append((cells["subject"], cells["filename"], *frames, *shown))
    write_workbook(root / SHEET, {"label": rows, "Sheet1": (), "Sheet3": ()})


def _draw_videos(count: int, shared: bool, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Draw (letter, onset) of one subject's clips; two of them may share a video."""
    found: list[tuple[str, int]] = []
    for i in range(count):
        letter = chr(ord("a") + (max(0, i - 1) if shared else i) % 26)
        earlier = max((onset for name, onset in found if name == letter), default=0)
        found.append((letter, earlier + int(rng.integers(60, 900))))
    return found
