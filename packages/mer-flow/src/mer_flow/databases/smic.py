"""SMIC (Li et al. 2013, doi:10.1109/FG.2013.6553717): basic release's folders, or SMIC-E sheets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mer_flow.databases.base import BY_AGREEMENT, Database
from mer_flow.databases.completeness import load
from mer_flow.databases.frames import image_names, image_numbers
from mer_flow.databases.layout import ClipFolder, ClipLocator, walk
from mer_flow.databases.reading import AppliedCorrection, Notes, RawRow, SheetReading
from mer_flow.databases.sheets import Form, Grid, SheetMatch, frame, text, word
from mer_flow.labels import EXTRA_CLIP
from mer_flow.samples import Sample
from mer_flow.work.errors import LayoutError, SheetError

_FIELDS = {
    "subject": "Subject",
    "filename": "Filename",
    "onset": "OnsetF",
    "offset": "OffsetF",
    "emotion": "Emotion",
}
_EXTRA = {
    f"{key}{nth}": name.format(nth)
    for nth in (2, 3)
    for key, name in (("onset", "Onset{}F"), ("offset", "Offset{}F"), ("length", "TotalMF{}"))
}
_HS = Form(
    name="smic-e-hs", title="a SMIC-E sheet (HS)", required={**_FIELDS, "last": "LastF"}, optional=_EXTRA
)
_VIS = Form(
    name="smic-e-vis",
    title="a SMIC-E sheet (VIS or NIR)",
    required=_FIELDS,
    optional=_EXTRA,
    absent=("LastF",),
)
_CLIP = re.compile(r"s0*(\d+)_(ne|po|sur)_0*(\d+)", re.IGNORECASE)
_EMOTIONS = {"ne": "negative", "po": "positive", "sur": "surprise"}
_CAMERA = re.compile(r"(?:^|[^a-z])(hs|vis|nir)(?:[^a-z]|$)", re.IGNORECASE)
#: SMIC-VIS and SMIC-NIR (Li et al. 2013, section III).
_SLOW_FPS = 25.0


class Smic(Database):
    """SMIC: the folders of the basic release define its clips; the sheets are SMIC-E's."""

    name = "smic"
    title = "SMIC"
    fps = 100.0
    licence = BY_AGREEMENT
    has_apex = False
    forms = (_HS, _VIS)
    needed = ("subject", "filename", "onset", "offset", "emotion", "onset2", "offset2", "onset3", "offset3")
    releases = tuple(
        f"{kind}{camera}" for camera in ("", "-vis", "-nir") for kind in ("raw", "cropped", "long")
    )
    example = (
        "SMIC_all_raw/HS/s1/micro/negative/s1_ne_01/image034208.bmp, "
        "SMIC_all_cropped/HS/s1/micro/negative/s1_ne_01/reg_image034208.bmp "
        "or HS_long/SMIC-HS-E/s01/s1_ne_01/image034208.jpg"
    )
    synthetic = "mer_flow.synthetic.layouts.smic"

    def read(self, root: Path | None, sheet: Path | None) -> SheetReading:
        """Read a given sheet, else the basic release's folders, else a SMIC-E sheet below the root.

        The folders come before a sheet that merely lies there: they define the 164 clips, and no SMIC-E sheet
        has them all.

        Raises:
            SheetError: The sheet cannot be used, or the root holds long clips without one.
            LayoutError: The root has neither clips nor a sheet.
        """
        if sheet is not None or root is None:
            return super().read(root, sheet)
        try:
            locator = self.locate(root)
        except LayoutError:
            found = self.find_sheet(root)
            if found is None:
                raise
            return self.read_sheet(found)
        if not locator.release.startswith("long"):
            return self._read_folders(locator)
        found = self.find_sheet(root)
        if found is None:
            raise SheetError(
                f"smic: {root} holds the long clips of SMIC-E, but no sheet that says where their "
                "micro-expressions lie. Give SMIC-HS-E_annotation.xlsx with --sheet FILE."
            )
        return self.read_sheet(found)

    def _read_folders(self, locator: ClipLocator) -> SheetReading:
        """Read the basic release, where each clip's folder holds exactly onset to offset."""
        notes = Notes()
        rows = []
        for clip in sorted(locator.folders, key=_order):
            path = locator.folders[clip][0]
            numbers = image_numbers(path)
            row = RawRow(0, _subject(clip), clip, {}, self.fps if "-" not in locator.release else _SLOW_FPS)
            if not numbers:
                notes.drop(0, row.key, f"no image files in {path}")
                continue
            lacking = numbers[-1] - numbers[0] + 1 - len(numbers)
            if lacking:
                notes.warn(f"{row.key}: {lacking} frame(s) are missing between the first and the last file")
            folder = path.parent.name.lower()
            row.values = {"onset": numbers[0], "offset": numbers[-1], "emotion": folder}
            if folder not in _EMOTIONS.values():
                row.values["emotion"] = _emotion(clip)
            self._trust_name(row, notes)
            rows.append(row)
        return self.reading(locator.root, "folders", len(locator.folders), rows, notes)

    def names(self, row: int, values: dict[str, Any], notes: Notes) -> tuple[str, str]:
        """Take both from the clip's name, as `s01` and `s1_ne_01`."""
        given = text(values["filename"])
        name = _CLIP.fullmatch(given)
        if name is None:
            raise ValueError("Filename is not s<subject>_<ne|po|sur>_<number>, as in s1_ne_01")
        number = re.sub(r"\D", "", text(values["subject"])).lstrip("0")
        if number and number != name[1]:
            stated = text(values["subject"])
            notes.warn(f"row {row}: Subject '{stated}' and Filename '{given}' differ; the name is trusted")
        return _subject(_clip(name)), _clip(name)

    def rows(self, match: SheetMatch, grids: Sequence[Grid], notes: Notes) -> Iterator[RawRow]:
        """Yield the rows, each followed by the further micro-expressions of its long clip."""
        named = list(super().rows(match, grids, notes))
        own = {row.clip: row for row in named}
        reviewed = {(fix.sample_id, fix.column) for fix in load(self.name).corrections}
        for row in named:
            row.fps = self.fps if match.form is _HS else _SLOW_FPS
            if (f"{self.name}/{row.key}", "emotion") not in reviewed:
                self._trust_name(row, notes)
            yield row
            yield from self._extras(row, own, notes)

    def _extras(self, row: RawRow, own: dict[str, RawRow], notes: Notes) -> Iterator[RawRow]:
        """Yield the second and third micro-expression of a long clip."""
        names = [short for short, long in load(self.name).long_clips.items() if long == row.clip]
        seen = {(text(row.values["onset"]), text(row.values["offset"]))}
        for nth in (2, 3):
            onset, offset, length = (row.values.get(f"{name}{nth}") for name in ("onset", "offset", "length"))
            if not _positive(onset):
                continue
            key = f"{row.key} (micro-expression {nth})"
            if not _positive(length):
                notes.drop(row.row, key, f"TotalMF{nth} is '{text(length)}': not a micro-expression")
                continue
            if (text(onset), text(offset)) in seen:
                notes.drop(row.row, key, "repeats another onset and offset of its row")
                continue
            seen.add((text(onset), text(offset)))
            name = names[nth - 2] if nth - 2 < len(names) else f"{row.clip}_me{nth}"
            if name in own:
                if text(own[name].values["onset"]) == text(onset):
                    notes.drop(row.row, key, f"is {name}, which has a row of its own ({own[name].row})")
                    continue
                name = f"{row.clip}_me{nth}"
            values = {"onset": onset, "offset": offset, "emotion": _emotion(row.clip)}
            yield RawRow(row.row, row.subject, name, values, row.fps)

    def _trust_name(self, row: RawRow, notes: Notes) -> None:
        """Put the emotion of a clip's name in the place of another one."""
        stated, named = word(row.values["emotion"]), _emotion(row.clip)
        if stated != named:
            row.values["emotion"] = named
            sample_id = f"{self.name}/{row.key}"
            reason = "the clip's name says otherwise, and the name is trusted"
            notes.corrections.append(
                AppliedCorrection(row.row, sample_id, "emotion", stated, named, reason, "the name")
            )

    def clip_folders(self, root: Path) -> Iterator[ClipFolder]:
        """Find the clips of the basic release (`raw`, `cropped`) and of SMIC-E (`long`), by camera."""
        of_base: dict[tuple[str, ...], str] = {}
        for path, parts, name in walk(root, lambda parts: _CLIP.fullmatch(parts[-1])):
            lowered = [part.lower() for part in parts[:-1]]
            if any(part.replace("-", "_") == "non_micro" for part in lowered):
                continue
            # Subjects share a release: judge each branch above the subject once.
            cut = next((i for i, part in enumerate(lowered) if re.fullmatch(r"s\d+", part)), len(lowered))
            base = tuple(lowered[:cut])
            if base not in of_base:
                of_base[base] = _release((root.name.lower(), *base), lowered, path)
            yield ClipFolder(_clip(name), path, of_base[base])

    def keys(self, sample: Sample, release: str) -> tuple[str, ...]:
        """Return the clip, and for long recordings the clip which contains it."""
        clip = sample.clip.lower()
        if not release.startswith("long"):
            return (clip,)
        return clip, load(self.name).long_clips.get(clip, EXTRA_CLIP.sub("", clip))


def _clip(name: re.Match[str]) -> str:
    return f"s{name[1]}_{name[2].lower()}_{int(name[3]):02d}"


def _subject(clip: str) -> str:
    return f"s{int(clip[1 : clip.index('_')]):02d}"


def _emotion(clip: str) -> str:
    return _EMOTIONS[clip.split("_")[1]]


def _order(clip: str) -> tuple[int, str, int]:
    subject, code, number = clip.split("_")
    return int(subject[1:]), code, int(number)


def _positive(value: object) -> bool:
    try:
        return (frame(value) or 0) > 0
    except ValueError:
        return False


def _release(above: tuple[str, ...], parts: list[str], clip: Path) -> str:
    camera = next((m[1].lower() for part in reversed(above) if (m := _CAMERA.search(part))), "hs")
    suffix = "" if camera == "hs" else f"-{camera}"
    if "micro" not in parts and (not parts or parts[-1] not in _EMOTIONS.values()):
        return f"long{suffix}"
    first = next(iter(image_names(clip)), "")
    faces = any("crop" in part for part in above) or first.lower().startswith("reg_")
    return f"{'cropped' if faces else 'raw'}{suffix}"
