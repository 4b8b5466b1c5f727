"""SMIC HS: `SMIC_all_raw/HS/s1/micro/negative/s1_ne_01/image034208.bmp`, and the sheet of SMIC-E."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mer_flow.synthetic.casting import Clip, Plan, Quirks, cast, take_numbers
from mer_flow.synthetic.layouts.workbook import Cell, write_workbook

STREAM = 2
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
    """Plan a SMIC tree: names, numbers and the sheet's oddities."""
    roles = cast(_VOCABULARY, subjects, clips_per_subject, (10, 13), rng)
    quirks = Quirks(rng, len(roles))
    clips: dict[str, Clip] = {}
    for s, number in enumerate(take_numbers(_SUBJECTS, subjects)):
        first = 17_500_000 if number in _EIGHT else 1_200_000 if number in _SEVEN else 30_000
        clock = first + int(rng.integers(0, first // 5))
        count = dict.fromkeys(_CODES, 0)
        own = [roles[s, c] for c in range(clips_per_subject)]
        for role in sorted(own, key=lambda role: list(_CODES).index(role.emotion)):
            count[role.emotion] += 1
            name = f"s{number}_{_CODES[role.emotion]}_{count[role.emotion]:02d}"
            onset = clock + int(rng.integers(60, 900))
            clock = onset + role.length
            sample_id = f"smic/s{number:02d}/{name}"
            folder = f"SMIC_all_raw/HS/s{number}/micro/{role.emotion}/{name}"
            cells = {"subject": number, "filename": name, "emotion": role.emotion}
            apex, pattern = onset + role.rise, "image{n:06d}.bmp"
            clips[sample_id] = Clip(sample_id, role, folder, pattern, onset, apex, clock - 1, cells=cells)
    _join_two(clips, quirks)
    gap = quirks.choose(clips, "missing-frame")
    if gap:
        clip = clips[gap]
        hole = clip.onset + (2 if clip.apex != clip.onset + 2 else 3)
        clips[gap] = replace(clip, missing=(hole,))
    surprised = [key for key in clips if "_sur_" in key and "second_of" not in clips[key].cells]
    wrong = quirks.choose(surprised, "emotion-differs-from-name")
    if wrong:
        clips[wrong].cells["emotion"] = "negative"
    return Plan(tuple(clips.values()), quirks.marked(clips))


def _join_two(clips: dict[str, Clip], quirks: Quirks) -> None:
    """Make s3_ne_03 the second micro-expression in the row of s3_ne_02, as in the real sheet."""
    pair = ("smic/s03/s3_ne_02", "smic/s03/s3_ne_03")
    if not all(key in clips for key in pair) or any(quirks.choose([key]) is None for key in pair):
        return
    for key in pair:
        quirks.mark("second-expression", key)
    one, two = (clips[key] for key in pair)
    shift = one.offset + 24 - two.onset
    clips[pair[1]] = replace(
        two,
        onset=two.onset + shift,
        apex=two.apex + shift,
        offset=two.offset + shift,
        cells={**two.cells, "second_of": pair[0]},
    )


def write_sheets(root: Path, plan: Plan) -> None:
    """Write the SMIC-E sheet, mostly formulas with their values, some of them into the sheet `VIS`."""
    second = {clip.cells["second_of"]: clip for clip in plan.clips if "second_of" in clip.cells}
    hs: list[list[Cell]] = [list(COLUMNS)]
    vis: list[list[Cell]] = [list(VIS_COLUMNS)]
    for clip in plan.clips:
        if "second_of" in clip.cells:
            continue
        lead = 40 + clip.onset % 4
        first = (f"=D{len(hs) + 1}-{lead}", clip.onset - lead)
        if clip.cells["subject"] >= _FIRST_VIS:
            vis.append(_vis_row(len(vis) + 1, clip, (clip.onset - lead) // 4))
            first = (f"=VIS!I{len(vis)}*4", clip.onset - lead)
        hs.append(_hs_row(len(hs) + 1, clip, second.get(clip.sample_id), first))
    write_workbook(root / SHEET, {"HS": hs, "VIS": vis, "Sheet2": (), "Sheet3": ()})


def _hs_row(line: int, clip: Clip, other: Clip | None, first: tuple[str, int]) -> list[Cell]:
    """Return one row of the sheet `HS`; `first` is the formula of FirstF and its value."""
    row: list[Cell] = [None] * len(COLUMNS)
    row[:2] = clip.cells["subject"], clip.cells["filename"]
    row[3:5] = clip.onset, (f"=D{line}+M{line}-1", clip.offset)
    if other is not None:
        gap = other.onset - clip.onset
        row[5:7] = (f"=D{line}+{gap}", other.onset), (f"=F{line}+N{line}-1", other.offset)
        row[13] = other.offset - other.onset + 1
        # As in the real sheet, a formula dragged too far: a third expression of negative length.
        row[7:9] = (f"=F{line}-D{line}", gap), ("=0", 0)
        row[14] = (f"=I{line}-H{line}+1", 1 - gap)
    last = (other or clip).offset + 35
    row[10:13] = first, (f"=K{line}+P{line}-1", last), clip.offset - clip.onset + 1
    row[15:] = last - first[1] + 1, clip.cells["emotion"]
    return row


def _vis_row(line: int, clip: Clip, first: int) -> list[Cell]:
    """Return one row of the sheet `VIS`: the same recording at a quarter of the rate."""
    onset, offset = clip.onset // 4, clip.offset // 4
    row: list[Cell] = [None] * len(VIS_COLUMNS)
    row[:2] = clip.cells["subject"], clip.cells["filename"]
    row[3:5] = onset, (f"=D{line}+J{line}-1", offset)
    row[8:10] = first, offset - onset + 1
    row[11:] = offset - first + 9, clip.cells["emotion"]
    return row
