"""CAS(ME)^3 Part A (Li et al. 2023, doi:10.1109/TPAMI.2022.3174895): 30 fps colour, sheet with apex."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mer_flow.databases.base import Database
from mer_flow.databases.layout import (
    ClipFolder,
    ClipLocator,
    check_root,
    image_numbers,
    select_release,
    subfolders,
    walk,
)
from mer_flow.databases.reading import Notes, RawRow, SheetReading
from mer_flow.databases.sheets import Form, Grid, SheetMatch, find_form, text, word
from mer_flow.work.errors import SheetError

if TYPE_CHECKING:
    from mer_flow.samples import Sample

_FRAMES = {"subject": "Subject", "filename": "Filename", "onset": "Onset", "apex": "Apex", "offset": "Offset"}
_OPTIONAL = {"action_units": "AU", "objective": "Objective class"}
_JPG_INDEX = Form(
    name="jpgindex",
    title="a CAS(ME)^3 Part A sheet of micro-expressions",
    required={**_FRAMES, "emotion": "emotion"},
    optional={**_OPTIONAL, "type": "Expression type"},
    absent=("Valence",),
)
_AU_EMOTION = Form(
    name="au-emotion",
    title="a CAS(ME)^3 Part A sheet of micro- and macro-expressions",
    required={**_FRAMES, "type": "Expression type"},
    optional=_OPTIONAL,
    absent=("Valence",),
)
_VALENCE = Form(
    name="valence",
    title="the old CAS(ME)^3 list with valences",
    required={**{k: v for k, v in _FRAMES.items() if k != "apex"}, "emotion": "emotion"},
    any_of=("Valence",),
)
_PART_C = Form(
    name="part-c",
    title="the CAS(ME)^3 Part C sheet",
    required={"subject": "sub", "count": "count", "onset": "onset", "offset": "offset", "emotion": "emotion"},
)
_SUBJECT = re.compile(r"sp\s*no\.?\s*0*(\d+)", re.IGNORECASE)
_CLIP_FOLDER = re.compile(r"sp\s*no\.?\s*0*(\d+)_([a-z])_(\d+)", re.IGNORECASE)
_LETTER_FOLDER = re.compile(r"([a-z])(\d*)", re.IGNORECASE)
#: Part A has 3285 (V1) or 3346 (V2) macro-expressions and under a thousand micro-expressions.
_MACRO_ROWS = 2000
_RELEASES = ("raw", "clips", "selected")
_EXAMPLE = "part_A/spNO.1/a/color/166.jpg or Part_A_ME_clip/frame/spNO.1_j_28/28.jpg"


class Casme3(Database):
    """Reads the micro-expressions of Part A: JpgIndex sheets v1 and v2, and the AU+Emotion sheets."""

    name = "casme3"
    title = "CAS(ME)^3 Part A"
    fps = 30.0
    has_apex = True
    forms = (_JPG_INDEX, _AU_EMOTION)
    refused = (
        (
            _PART_C,
            "it counts frames by their order in a folder and has no apex; give a sheet of Part A.",
        ),
        (_VALENCE, "it was withdrawn; give the JpgIndex sheet, version 2."),
    )

    def _row_count(self, match: SheetMatch) -> int:
        return sum(1 for _, values in match.data() if text(values["filename"]) and _is_micro(values))

    def _parse(self, match: SheetMatch, grids: Sequence[Grid]) -> SheetReading:
        rows = self._row_count(match)
        if rows > _MACRO_ROWS:
            raise SheetError(
                f"{match.grid.path}, sheet '{match.grid.name}', has {rows} rows: that is the "
                "macro-expression sheet of Part A. Give the micro-expression sheet (version 2: 860 rows)."
            )
        return super()._parse(match, grids)

    def _rows(self, match: SheetMatch, grids: Sequence[Grid], notes: Notes) -> Iterator[RawRow]:
        emotions = self._old_emotions(grids) if match.form is _AU_EMOTION else {}
        for row, values in match.data():
            letter, given = text(values["filename"]), text(values["subject"])
            if not letter:
                notes.drop(row, given, "no Filename")
                continue
            if not _is_micro(values):
                notes.drop(row, f"{given}/{letter}", "a macro-expression")
                continue
            number = _SUBJECT.fullmatch(given)
            if number is None:
                notes.drop(row, f"{given}/{letter}", "Subject is not spNO.<number>, as in spNO.1")
                continue
            subject, onset = f"spNO.{number[1]}", text(values["onset"])
            yield RawRow(
                row,
                subject,
                # The authors name a clip by the onset as written, also where it is wrong.
                f"{letter}_{onset}",
                values["onset"],
                values["apex"],
                values["offset"],
                values.get("emotion") or emotions.get((subject, letter.lower(), onset)),
                values.get("action_units"),
                values.get("objective"),
            )

    def _old_emotions(self, grids: Sequence[Grid]) -> dict[tuple[str, str, str], object]:
        """Takes the emotions that the V1 workbook keeps in a sheet of their own."""
        match = find_form(grids, [_VALENCE])
        emotions: dict[tuple[str, str, str], object] = {}
        if match is not None:
            for _, values in match.data():
                number = _SUBJECT.fullmatch(text(values["subject"]))
                if number is not None:
                    key = (f"spNO.{number[1]}", word(values["filename"]), text(values["onset"]))
                    emotions[key] = values["emotion"]
        return emotions

    def locate(self, root: Path, release: str = "auto") -> ClipLocator:
        """Finds colour frames: whole videos (`raw`), the authors' clips (`clips`), or `selected`.

        `selected` is the layout `ME_A/spNO.1/b2/color`, one folder per micro-expression, numbered where a
        letter repeats; the folder that holds a sample's frames is found by its file numbers.
        """
        root = check_root(root, self.name, _EXAMPLE)
        found = list(walk(root, _is_clip))
        numbered = {p[:-2] for _, p in found if (m := _LETTER_FOLDER.fullmatch(p[-1])) is not None and m[2]}
        clips = []
        for path, parts in found:
            if any(_foreign(part) for part in parts[:-1]):
                continue  # depth maps, videos and macro-expressions lie beside the frames under equal names
            whole = _CLIP_FOLDER.fullmatch(parts[-1])
            if whole is not None:
                clips.append(ClipFolder(_key(whole[1], f"{whole[2]}_{int(whole[3])}"), path, "clips"))
                continue
            subject, letter = _SUBJECT.fullmatch(parts[-2]), _LETTER_FOLDER.fullmatch(parts[-1])
            assert subject is not None and letter is not None
            base = (root.name, *parts[:-2])
            selected = parts[:-2] in numbered or any(part.lower() == "me_a" for part in base)
            clips.append(ClipFolder(_key(subject[1], letter[1]), path, "selected" if selected else "raw"))
        chosen, folders = select_release(self.name, root, clips, release, _RELEASES, _EXAMPLE)
        return ClipLocator(
            self.name,
            root,
            chosen,
            folders,
            _clip_keys if chosen == "clips" else _video_keys,
            choose=_nearest_folder if chosen == "selected" else None,
            prepare=None if chosen == "clips" else _colour_folder,
        )


def _is_micro(values: dict[str, object]) -> bool:
    return "type" not in values or word(values["type"]).startswith("micro")


def _is_clip(path: Path, parts: tuple[str, ...]) -> bool:
    if _CLIP_FOLDER.fullmatch(parts[-1]) is not None:
        return True
    return (
        len(parts) > 1
        and _SUBJECT.fullmatch(parts[-2]) is not None
        and _LETTER_FOLDER.fullmatch(parts[-1]) is not None
    )


def _foreign(part: str) -> bool:
    lowered = part.lower()
    return lowered in ("depth", "video") or "mae_clip" in lowered


def _key(subject: str, clip: str) -> str:
    return f"{int(subject)}/{clip.lower()}"


def _subject_number(sample: Sample) -> str:
    match = _SUBJECT.fullmatch(sample.subject.partition("/")[2])
    return match[1] if match else "-1"


def _clip_keys(sample: Sample) -> tuple[str, ...]:
    return (_key(_subject_number(sample), sample.clip),)


def _video_keys(sample: Sample) -> tuple[str, ...]:
    return (_key(_subject_number(sample), sample.clip.rpartition("_")[0]),)


def _colour_folder(folder: Path) -> Path | None:
    """Returns the folder with a video's colour frames; its own folder where it is not divided."""
    names = {name.lower(): name for name in subfolders(folder)}
    for wanted in ("color", "colour", "rgb"):
        if wanted in names:
            return folder / names[wanted]
    return None if "depth" in names else folder


def _nearest_folder(sample: Sample, folders: tuple[Path, ...]) -> Path:
    """Picks the folder whose file numbers cover most of a sample's interval."""
    last = max(sample.onset, sample.apex, sample.offset)

    def covered(folder: Path) -> int:
        inside = _colour_folder(folder)
        return sum(1 for n in image_numbers(inside) if sample.onset <= n <= last) if inside is not None else 0

    return max(folders, key=covered)


DATABASE = Casme3()
