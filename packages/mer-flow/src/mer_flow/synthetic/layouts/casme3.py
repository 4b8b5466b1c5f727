"""CAS(ME)^3 Part A: `part_A/spNO.1/a/color/166.jpg` and the second version of its sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mer_flow.synthetic.casting import Clip, Plan, Quirks, cast, take_numbers
from mer_flow.synthetic.layouts.workbook import new_workbook, write_header
from mer_flow.synthetic.movements import objective_class

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
    """Plans a CAS(ME)^3 tree: names, numbers and the sheet's oddities."""
    troupe = cast(_VOCABULARY, subjects, clips_per_subject, (9, 13), rng)
    keys = [(s, c) for s in range(subjects) for c in range(clips_per_subject)]
    quirks = Quirks(rng, len(keys))

    def is_other(key: tuple[int, int]) -> bool:
        return troupe[key[0]][key[1]].emotion == "others"

    apex_first = quirks.choose(keys, is_other)
    no_offset = quirks.choose(keys, is_other)
    capital = quirks.choose([key for key in keys if is_other(key)]) or apex_first
    upper = quirks.choose(keys)
    chosen = (quirks.choose(keys) for _ in range(max(1, round(len(keys) / _DROP_EVERY))))
    dropped: set[tuple[int, int]] = {key for key in chosen if key is not None}
    # The first of them loses its very apex.
    no_apex_frame = min(dropped, default=None)
    marked: dict[str, tuple[str, ...]] = {}
    clips = []
    for s, number in enumerate(take_numbers(_SUBJECTS, subjects)):
        subject = f"spNO.{number}"
        videos = _draw_videos(clips_per_subject, shared=s % 2 == 1, rng=rng)
        for c, (role, (letter, onset)) in enumerate(zip(troupe[s], videos, strict=True)):
            key = (s, c)
            apex, offset = onset + role.rise, onset + role.length - 1
            filename = letter.upper() if key == upper else letter
            sample_id = f"casme3/{subject}/{filename}_{onset}"
            missing: tuple[int, ...] = ()
            if key in dropped:
                inner = onset + (2 if apex != onset + 2 else 3)
                missing = (apex if key == no_apex_frame else inner,)
            cells = {
                "subject": subject,
                "number": number,
                "filename": filename,
                "apex": onset if key == apex_first else apex,
                "offset": 0 if key == no_offset else offset,
                "emotion": "Others" if key == capital and is_other(key) else role.emotion,
            }
            for quirk, bearers in (
                ("apex-is-onset", {apex_first}),
                ("no-offset", {no_offset}),
                ("capital-emotion", {capital}),
                ("capital-letter", {upper}),
                ("missing-frame", dropped),
                ("missing-apex-frame", {no_apex_frame}),
            ):
                if key in bearers:
                    marked[quirk] = (*marked.get(quirk, ()), sample_id)
            folder = f"part_A/{subject}/{letter}/color"
            clips.append(Clip(sample_id, role, folder, "{n}.jpg", onset, apex, offset, 2, missing, cells))
    clips.sort(key=lambda clip: (clip.cells["subject"], clip.cells["filename"].lower(), clip.onset))
    return Plan("casme3", tuple(clips), (640, 480), True, marked)


def write_sheets(root: Path, plan: Plan) -> None:
    """Writes the sheet `label`, and the two empty sheets beside it."""
    with new_workbook(root / SHEET) as workbook:
        sheet = workbook.add_worksheet("label")
        workbook.add_worksheet("Sheet1")
        workbook.add_worksheet("Sheet3")
        write_header(sheet, 0, COLUMNS)
        for row, clip in enumerate(plan.clips, start=1):
            cells: dict[str, Any] = clip.cells
            sheet.write_string(row, 0, cells["subject"])
            sheet.write_string(row, 1, cells["filename"])
            sheet.write_number(row, 2, clip.onset)
            sheet.write_number(row, 3, cells["apex"])
            sheet.write_number(row, 4, cells["offset"])
            sheet.write_string(row, 5, clip.role.movement)
            sheet.write_string(row, 6, _ROMAN[objective_class(clip.role.movement)])
            sheet.write_string(row, 7, cells["emotion"])


def _draw_videos(count: int, shared: bool, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Draws (letter, onset) of one subject's clips; two of them may share a video."""
    found: list[tuple[str, int]] = []
    for i in range(count):
        letter = chr(ord("a") + (max(0, i - 1) if shared else i) % 26)
        earlier = max((onset for name, onset in found if name == letter), default=0)
        found.append((letter, earlier + int(rng.integers(60, 900))))
    return found
