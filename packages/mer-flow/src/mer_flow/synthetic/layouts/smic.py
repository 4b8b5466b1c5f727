"""SMIC HS: `SMIC_all_raw/HS/s1/micro/negative/s1_ne_01/image034208.bmp`, and the sheet of SMIC-E."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mer_flow.synthetic.casting import Clip, Plan, Quirks, cast, take_numbers
from mer_flow.synthetic.layouts.workbook import new_workbook, write_header

SHEET = "SMIC-HS-E_annotation.xlsx"
COLUMNS = (
    *("Subject", "Filename", "", "OnsetF", "OffsetF", "Onset2F", "Offset2F", "Onset3F", "Offset3F", ""),
    *("FirstF", "LastF", "TotalMF1", "TotalMF2", "TotalMF3", "TotalVL", "Emotion"),
)
VIS_COLUMNS = (
    *("Subject", "Filename", "", "OnsetF", "OffsetF", "Onset2F", "Offset2F", ""),
    *("FirstF", "TotalMF1", "TotalMF2", "TotalVL", "Emotion"),
)
#: Subjects of the HS part, in an order that gives a small tree numbers of six, seven and eight digits.
_SUBJECTS = (3, 1, 12, 19, 4, 5, 2, 6, 8, 9, 11, 13, 14, 15, 18, 20)
_SEVEN, _EIGHT = frozenset({5, 12, 18}), frozenset({19, 20})
#: Subjects that the VIS camera filmed too; their first frames are formulas into the sheet `VIS`.
_FIRST_VIS = 11
_CODES = {"negative": "ne", "positive": "po", "surprise": "sur"}
_VOCABULARY = {
    "n": (("negative", ("4", "9", "15", "4+7", "4+9", "15+17")),),
    "p": (("positive", ("12", "6+12", "L12")),),
    "s": (("surprise", ("1+2", "1+2+5", "1+2+26")),),
}


def plan(subjects: int, clips_per_subject: int, rng: np.random.Generator) -> Plan:
    """Plans a SMIC tree: names, numbers and the sheet's oddities."""
    troupe = cast(_VOCABULARY, subjects, clips_per_subject, (10, 13), rng)
    quirks = Quirks(rng, subjects * clips_per_subject)
    drafts: list[Clip] = []
    for s, number in enumerate(take_numbers(_SUBJECTS, subjects)):
        first = 17_500_000 if number in _EIGHT else 1_200_000 if number in _SEVEN else 30_000
        clock = first + int(rng.integers(0, first // 5))
        count = dict.fromkeys(_CODES, 0)
        for role in sorted(troupe[s], key=lambda role: list(_CODES).index(role.emotion)):
            count[role.emotion] += 1
            name = f"s{number}_{_CODES[role.emotion]}_{count[role.emotion]:02d}"
            onset = clock + int(rng.integers(60, 900))
            clock = onset + role.length
            drafts.append(
                Clip(
                    sample_id=f"smic/s{number:02d}/{name}",
                    role=role,
                    folder=f"SMIC_all_raw/HS/s{number}/micro/{role.emotion}/{name}",
                    pattern="image{n:06d}.bmp",
                    onset=onset,
                    apex=onset + role.rise,
                    offset=clock - 1,
                    cells={"subject": number, "filename": name, "emotion": role.emotion},
                )
            )
    marked: dict[str, tuple[str, ...]] = {}
    clips = {clip.sample_id: clip for clip in drafts}
    _join_two(clips, quirks, marked)
    gap = quirks.choose(list(clips))
    if gap:
        clip = clips[gap]
        hole = clip.onset + (2 if clip.apex != clip.onset + 2 else 3)
        clips[gap] = replace(clip, missing=(hole,))
        marked["missing-frame"] = (gap,)
    wrong = quirks.choose([key for key in clips if "_sur_" in key and "second_of" not in clips[key].cells])
    if wrong:
        clips[wrong].cells["emotion"] = "negative"
        marked["emotion-differs-from-name"] = (wrong,)
    return Plan("smic", tuple(clips.values()), (640, 480), True, marked)


def _join_two(clips: dict[str, Clip], quirks: Quirks, marked: dict[str, tuple[str, ...]]) -> None:
    """Makes s3_ne_03 the second micro-expression in the row of s3_ne_02, as in the real sheet."""
    pair = ("smic/s03/s3_ne_02", "smic/s03/s3_ne_03")
    if not all(key in clips for key in pair) or any(quirks.choose([key]) is None for key in pair):
        return
    one, two = (clips[key] for key in pair)
    shift = one.offset + 24 - two.onset
    clips[pair[1]] = replace(
        two,
        onset=two.onset + shift,
        apex=two.apex + shift,
        offset=two.offset + shift,
        cells={**two.cells, "second_of": pair[0]},
    )
    marked["second-expression"] = pair


def write_sheets(root: Path, plan: Plan) -> None:
    """Writes the SMIC-E sheet, mostly formulas with their values, some of them into the sheet `VIS`."""
    second = {clip.cells["second_of"]: clip for clip in plan.clips if "second_of" in clip.cells}
    rows = [clip for clip in plan.clips if "second_of" not in clip.cells]
    with new_workbook(root / SHEET) as workbook:
        hs, vis = workbook.add_worksheet("HS"), workbook.add_worksheet("VIS")
        workbook.add_worksheet("Sheet2")
        workbook.add_worksheet("Sheet3")
        write_header(hs, 0, COLUMNS)
        write_header(vis, 0, VIS_COLUMNS)
        vis_row = 0
        for row, clip in enumerate(rows, start=1):
            other = second.get(clip.sample_id)
            first = None
            lead = 40 + clip.onset % 4
            if clip.cells["subject"] >= _FIRST_VIS:
                vis_row += 1
                first = (f"=VIS!I{vis_row + 1}*4", clip.onset - lead)
                _write_vis(vis, vis_row, clip, (clip.onset - lead) // 4)
            _write_hs(hs, row, clip, other, first or (f"=D{row + 1}-{lead}", clip.onset - lead))


def _write_hs(sheet: Any, row: int, clip: Clip, other: Clip | None, first: tuple[str, int]) -> None:
    """Writes one row of the sheet `HS`; `first` is the formula of FirstF and its value."""
    line = row + 1
    total = clip.offset - clip.onset + 1
    last = (other or clip).offset + 35
    sheet.write_number(row, 0, clip.cells["subject"])
    sheet.write_string(row, 1, clip.cells["filename"])
    sheet.write_number(row, 3, clip.onset)
    sheet.write_formula(row, 4, f"=D{line}+M{line}-1", value=clip.offset)
    if other is not None:
        gap = other.onset - clip.onset
        sheet.write_formula(row, 5, f"=D{line}+{gap}", value=other.onset)
        sheet.write_formula(row, 6, f"=F{line}+N{line}-1", value=other.offset)
        sheet.write_number(row, 13, other.offset - other.onset + 1)
        # As in the real sheet, a formula dragged too far: a third expression of negative length.
        sheet.write_formula(row, 7, f"=F{line}-D{line}", value=gap)
        sheet.write_formula(row, 8, "=0", value=0)
        sheet.write_formula(row, 14, f"=I{line}-H{line}+1", value=1 - gap)
    sheet.write_formula(row, 10, first[0], value=first[1])
    sheet.write_formula(row, 11, f"=K{line}+P{line}-1", value=last)
    sheet.write_number(row, 12, total)
    sheet.write_number(row, 15, last - first[1] + 1)
    sheet.write_string(row, 16, clip.cells["emotion"])


def _write_vis(sheet: Any, row: int, clip: Clip, first: int) -> None:
    """Writes one row of the sheet `VIS`: the same recording at a quarter of the rate."""
    line = row + 1
    onset, offset = clip.onset // 4, clip.offset // 4
    sheet.write_number(row, 0, clip.cells["subject"])
    sheet.write_string(row, 1, clip.cells["filename"])
    sheet.write_number(row, 3, onset)
    sheet.write_formula(row, 4, f"=D{line}+J{line}-1", value=offset)
    sheet.write_number(row, 8, first)
    sheet.write_number(row, 9, offset - onset + 1)
    sheet.write_number(row, 11, offset - first + 9)
    sheet.write_string(row, 12, clip.cells["emotion"])
