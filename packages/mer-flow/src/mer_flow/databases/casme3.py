"""CAS(ME)^3 Part A (Li et al. 2023, doi:10.1109/TPAMI.2022.3174895): 30 fps colour, sheet with apex."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mer_flow.databases.base import BY_AGREEMENT, Database
from mer_flow.databases.frames import image_numbers
from mer_flow.databases.layout import ClipFolder, subfolders, walk
from mer_flow.databases.reading import Notes, RawRow
from mer_flow.databases.sheets import Form, Grid, SheetMatch, find_form, text, word
from mer_flow.samples import Sample
from mer_flow.work.errors import SheetError

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
_VIDEO_FOLDER = re.compile(r"([a-z])(\d*)", re.IGNORECASE)
#: Part A has 3285 (V1) or 3346 (V2) macro-expressions and under a thousand micro-expressions.
_MACRO_ROWS = 2000


class Casme3(Database):
    """The micro-expressions of Part A: JpgIndex sheets v1 and v2, and the AU+Emotion sheets."""

    name = "casme3"
    title = "CAS(ME)^3"
    fps = 30.0
    licence = BY_AGREEMENT
    forms = (_JPG_INDEX, _AU_EMOTION)
    refused = (
        (_PART_C, "it counts frames by their order in a folder and has no apex; give a sheet of Part A."),
        (_VALENCE, "it was withdrawn; give the JpgIndex sheet, version 2."),
    )
    releases = ("raw", "clips", "selected")
    example = "part_A/spNO.1/a/color/166.jpg or Part_A_ME_clip/frame/spNO.1_j_28/28.jpg"
    synthetic = "mer_flow.synthetic.layouts.casme3"

    def row_count(self, match: SheetMatch) -> int:
        """Count the micro-expressions; a SheetError says that the sheet is the macro-expressions'."""
        rows = sum(1 for _, values in match.data() if text(values["filename"]) and _is_micro(values))
        if rows > _MACRO_ROWS:
            raise SheetError(
                f"{match.grid.path}, sheet '{match.grid.name}', has {rows} rows: that is the "
                "macro-expression sheet of Part A. Give the micro-expression sheet (version 2: 860 rows)."
            )
        return rows

    def names(self, row: int, values: dict[str, Any], notes: Notes) -> tuple[str, str]:
        """Return `spNO.1` and `a_355`: a clip is named by its onset as written, also where that is wrong."""
        if not _is_micro(values):
            raise ValueError("a macro-expression")
        number = _SUBJECT.fullmatch(text(values["subject"]))
        if number is None:
            raise ValueError("Subject is not spNO.<number>, as in spNO.1")
        return f"spNO.{number[1]}", f"{text(values['filename'])}_{text(values['onset'])}"

    def rows(self, match: SheetMatch, grids: Sequence[Grid], notes: Notes) -> Iterator[RawRow]:
        """Yield the rows, with the emotions that the V1 workbook keeps in a sheet of their own."""
        old = find_form(grids, [_VALENCE]) if match.form is _AU_EMOTION else None
        listed = super().rows(old, (), Notes()) if old is not None else ()
        emotions = {row.key.lower(): row.values["emotion"] for row in listed}
        for row in super().rows(match, grids, notes):
            row.values["emotion"] = row.values.get("emotion") or emotions.get(row.key.lower())
            yield row

    def clip_folders(self, root: Path) -> Iterator[ClipFolder]:
        """Find colour frames: whole videos (`raw`), the authors' clips (`clips`), or `selected`.

        `selected` is the layout `ME_A/spNO.1/b2/color`, one folder per micro-expression, numbered where a
        letter repeats; the folder that holds a sample's frames is found by its file numbers.
        """
        found = list(walk(root, _clip_of))
        numbered = {parts[:-2] for _, parts, name in found if name.re is _VIDEO_FOLDER and name[2]}
        for path, parts, name in found:
            if any(_foreign(part) for part in parts[:-1]):
                continue  # depth maps, videos and macro-expressions lie beside the frames under equal names
            if name.re is _CLIP_FOLDER:
                yield ClipFolder(f"{int(name[1])}/{name[2].lower()}_{int(name[3])}", path, "clips")
                continue
            base = (root.name, *parts[:-2])
            selected = parts[:-2] in numbered or any(part.lower() == "me_a" for part in base)
            key = f"{_number(parts[-2])}/{name[1].lower()}"
            yield ClipFolder(key, path, "selected" if selected else "raw")

    def keys(self, sample: Sample, release: str) -> tuple[str, ...]:
        """Return the subject's number and the clip, or its video alone."""
        clip = sample.clip if release == "clips" else sample.clip.rpartition("_")[0]
        return (f"{_number(sample.subject.partition('/')[2])}/{clip.lower()}",)

    def choose(self, sample: Sample, folders: tuple[Path, ...], release: str) -> Path | None:
        """Return a video's colour folder; of several folders, that whose numbers cover most of the sample."""
        if release == "clips":
            return folders[0]
        last = max(sample.onset, sample.apex, sample.offset)

        def covered(folder: Path) -> int:
            inside = _colour_folder(folder)
            return sum(sample.onset <= n <= last for n in image_numbers(inside)) if inside is not None else 0

        several = release == "selected" and len(folders) > 1
        return _colour_folder(max(folders, key=covered) if several else folders[0])


def _is_micro(values: dict[str, Any]) -> bool:
    return "type" not in values or word(values["type"]).startswith("micro")


def _clip_of(parts: tuple[str, ...]) -> re.Match[str] | None:
    """Tell a clip's folder or, inside a subject's, a video's."""
    whole = _CLIP_FOLDER.fullmatch(parts[-1])
    in_subject = len(parts) > 1 and _SUBJECT.fullmatch(parts[-2]) is not None
    return whole or (_VIDEO_FOLDER.fullmatch(parts[-1]) if in_subject else None)


def _foreign(part: str) -> bool:
    return part.lower() in ("depth", "video") or "mae_clip" in part.lower()


def _number(subject: str) -> int:
    match = _SUBJECT.fullmatch(subject)
    return int(match[1]) if match else -1


def _colour_folder(folder: Path) -> Path | None:
    """Return the folder with a video's colour frames; its own folder where it is not divided."""
    names = {name.lower(): name for name in subfolders(folder)}
    for wanted in ("color", "colour", "rgb"):
        if wanted in names:
            return folder / names[wanted]
    return None if "depth" in names else folder
