"""SMIC (Li et al. 2013, doi:10.1109/FG.2013.6553717): basic release's folders, or SMIC-E sheets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_flow.databases.base import Database
from mer_flow.databases.corrections import load_corrections
from mer_flow.databases.layout import (
    ClipFolder,
    ClipLocator,
    check_root,
    first_image,
    image_numbers,
    select_release,
    walk,
)
from mer_flow.databases.reading import AppliedCorrection, Notes, RawRow, SheetReading
from mer_flow.databases.sheets import Form, Grid, SheetMatch, frame, text, word
from mer_flow.labels import EXTRA_CLIP
from mer_flow.work.errors import LayoutError, SheetError

if TYPE_CHECKING:
    from mer_flow.samples import Sample

_FIELDS = {
    "subject": "Subject",
    "filename": "Filename",
    "onset": "OnsetF",
    "offset": "OffsetF",
    "emotion": "Emotion",
}
_EXTRA = {
    "onset2": "Onset2F",
    "offset2": "Offset2F",
    "length2": "TotalMF2",
    "onset3": "Onset3F",
    "offset3": "Offset3F",
    "length3": "TotalMF3",
}
_HS = Form(
    name="smic-e-hs",
    title="a SMIC-E sheet (HS)",
    required={**_FIELDS, "last": "LastF"},
    optional=_EXTRA,
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
_RELEASES = tuple(f"{kind}{camera}" for camera in ("", "-vis", "-nir") for kind in ("raw", "cropped", "long"))
_EXAMPLE = (
    "SMIC_all_raw/HS/s1/micro/negative/s1_ne_01/image034208.bmp, "
    "SMIC_all_cropped/HS/s1/micro/negative/s1_ne_01/reg_image034208.bmp "
    "or HS_long/SMIC-HS-E/s01/s1_ne_01/image034208.jpg"
)


class Smic(Database):
    """Reads SMIC from the folders of the basic release, or from a SMIC-E sheet."""

    name = "smic"
    title = "SMIC"
    fps = 100.0
    has_apex = False
    forms = (_HS, _VIS)
    needed = ("subject", "filename", "onset", "offset", "emotion", "onset2", "offset2", "onset3", "offset3")

    def read(self, root: Path | None, sheet: Path | None) -> SheetReading:
        """Reads a given sheet, else the basic release's folders, else a SMIC-E sheet below the root.

        The folders come before a sheet that merely lies there: they define the 164 clips, and no SMIC-E sheet
        has them all.

        Raises:
            SheetError: The sheet cannot be used, or the root holds long clips without one.
            LayoutError: The root has neither clips nor a sheet.
        """
        if sheet is not None:
            return self.read_sheet(Path(sheet))
        if root is None:
            return super().read(root, sheet)
        try:
            locator = self.locate(Path(root))
        except LayoutError:
            if Path(root).is_dir() and (found := self.find_sheet(Path(root))) is not None:
                return self.read_sheet(found)
            raise
        if locator.release.startswith("long"):
            if (found := self.find_sheet(Path(root))) is not None:
                return self.read_sheet(found)
            raise SheetError(
                f"smic: {root} holds the long clips of SMIC-E, but no sheet that says where their "
                "micro-expressions lie. Give SMIC-HS-E_annotation.xlsx with --sheet FILE."
            )
        return self.read_folders(locator)

    def read_folders(self, locator: ClipLocator) -> SheetReading:
        """Reads the samples of the basic release: each clip's folder holds exactly onset to offset.

        Args:
            locator: What `locate` returned for a raw or cropped release.
        """
        notes = Notes()
        rows = []
        fps = self.fps if "-" not in locator.release else _SLOW_FPS
        names = sorted(locator.folders, key=_order)
        for name in names:
            path = locator.folders[name][0]
            numbers = image_numbers(path)
            key = f"{_subject(name)}/{name}"
            if not numbers:
                notes.drop(0, key, f"no image files in {path}")
                continue
            lacking = numbers[-1] - numbers[0] + 1 - len(set(numbers))
            if lacking:
                notes.warnings.append(
                    f"{key}: {lacking} frame(s) are missing between the first and the last file"
                )
            emotion = _emotion(name)
            folder = path.parent.name.lower()
            if folder in _EMOTIONS.values() and folder != emotion:
                self._trust_name(0, name, folder, emotion, notes)
            rows.append(RawRow(0, _subject(name), name, numbers[0], None, numbers[-1], emotion, fps=fps))
        return self._reading(locator.root, "folders", len(names), rows, notes)

    def _rows(self, match: SheetMatch, grids: Sequence[Grid], notes: Notes) -> Iterator[RawRow]:
        fps = self.fps if match.form is _HS else _SLOW_FPS
        named: list[tuple[int, str, dict[str, Any]]] = []
        for row, values in match.data():
            given = text(values["filename"])
            if not given:
                notes.drop(row, text(values["subject"]), "no Filename")
            elif (name := _CLIP.fullmatch(given)) is None:
                notes.drop(row, given, "Filename is not s<subject>_<ne|po|sur>_<number>, as in s1_ne_01")
            else:
                number = re.sub(r"\D", "", text(values["subject"])).lstrip("0")
                if number and number != name[1]:
                    notes.warnings.append(
                        f"row {row}: Subject '{text(values['subject'])}' and Filename '{given}' differ; "
                        "the name is trusted"
                    )
                named.append((row, _clip(name), values))
        own = {clip: (row, text(values["onset"])) for row, clip, values in named}
        for row, clip, values in named:
            stated, emotion = word(values["emotion"]), _emotion(clip)
            if stated != emotion and not self._is_reviewed(clip):
                self._trust_name(row, clip, stated, emotion, notes)
                stated = emotion
            yield RawRow(row, _subject(clip), clip, values["onset"], None, values["offset"], stated, fps=fps)
            yield from self._extras(row, clip, values, own, fps, notes)

    def _extras(
        self,
        row: int,
        clip: str,
        values: dict[str, Any],
        own: dict[str, tuple[int, str]],
        fps: float,
        notes: Notes,
    ) -> Iterator[RawRow]:
        """Yields the second and third micro-expression of a long clip."""
        from mer_flow.databases.completeness import load

        names = [short for short, long in load(self.name).long_clips.items() if long == clip]
        seen = {(text(values["onset"]), text(values["offset"]))}
        for nth in (2, 3):
            onset, offset, length = (values.get(f"{column}{nth}") for column in ("onset", "offset", "length"))
            if not _positive(onset):
                continue
            key = f"{_subject(clip)}/{clip} (micro-expression {nth})"
            if not _positive(length):
                notes.drop(row, key, f"TotalMF{nth} is '{text(length)}': not a micro-expression")
                continue
            if (text(onset), text(offset)) in seen:
                notes.drop(row, key, "repeats another onset and offset of its row")
                continue
            seen.add((text(onset), text(offset)))
            name = names[nth - 2] if nth - 2 < len(names) else f"{clip}_me{nth}"
            if name in own:
                if own[name][1] == text(onset):
                    notes.drop(row, key, f"is {name}, which has a row of its own ({own[name][0]})")
                    continue
                name = f"{clip}_me{nth}"
            yield RawRow(row, _subject(clip), name, onset, None, offset, _emotion(clip), fps=fps)

    def _is_reviewed(self, clip: str) -> bool:
        sample_id = f"{self.name}/{_subject(clip)}/{clip}"
        return any(c.sample_id == sample_id and c.column == "emotion" for c in load_corrections(self.name))

    def _trust_name(self, row: int, clip: str, stated: str, emotion: str, notes: Notes) -> None:
        sample_id = f"{self.name}/{_subject(clip)}/{clip}"
        reason = "the clip's name says otherwise, and the name is trusted"
        notes.corrections.append(
            AppliedCorrection(row, sample_id, "emotion", stated, emotion, reason, "the name")
        )

    def locate(self, root: Path, release: str = "auto") -> ClipLocator:
        """Finds the clips of the basic release (`raw`, `cropped`) and of SMIC-E (`long`).

        The VIS and NIR recordings are the releases `raw-vis`, `long-nir` and so on; `auto` prefers HS.
        """
        root = check_root(root, self.name, _EXAMPLE)
        of_base: dict[tuple[str, ...], str] = {}
        clips = []
        for path, parts in walk(root, lambda _, p: _CLIP.fullmatch(p[-1]) is not None):
            lowered = [part.lower() for part in parts[:-1]]
            if any(part.replace("-", "_") == "non_micro" for part in lowered):
                continue
            # Subjects share a release: judge each branch above the subject once.
            cut = next((i for i, part in enumerate(lowered) if re.fullmatch(r"s\d+", part)), len(lowered))
            base = tuple(lowered[:cut])
            if base not in of_base:
                of_base[base] = _release((root.name.lower(), *base), lowered, path)
            name = _CLIP.fullmatch(parts[-1])
            assert name is not None
            clips.append(ClipFolder(_clip(name), path, of_base[base]))
        chosen, folders = select_release(self.name, root, clips, release, _RELEASES, _EXAMPLE)
        return ClipLocator(
            self.name,
            root,
            chosen,
            folders,
            self._long_keys if chosen.startswith("long") else lambda sample: (sample.clip.lower(),),
            frames_are_cropped=chosen.startswith("cropped"),
        )

    def _long_keys(self, sample: Sample) -> tuple[str, ...]:
        """A micro-expression without a folder of its own lies in that of the long clip which contains it."""
        from mer_flow.databases.completeness import load

        clip = sample.clip.lower()
        containing = load(self.name).long_clips.get(clip, EXTRA_CLIP.sub("", clip))
        return (clip, containing)


def _clip(name: re.Match[str]) -> str:
    return f"s{name[1]}_{name[2].lower()}_{int(name[3]):02d}"


def _subject(clip: str) -> str:
    return f"s{int(clip[1 : clip.index('_')]):02d}"


def _emotion(clip: str) -> str:
    return _EMOTIONS[clip.split("_")[1]]


def _order(clip: str) -> tuple[int, str, int]:
    subject, code, number = clip.split("_")
    return int(subject[1:]), code, int(number)


def _positive(value: Any) -> bool:
    try:
        return (frame(value) or 0) > 0
    except ValueError:
        return False


def _release(above: tuple[str, ...], parts: list[str], clip: Path) -> str:
    camera = next((m[1].lower() for part in reversed(above) if (m := _CAMERA.search(part))), "hs")
    suffix = "" if camera == "hs" else f"-{camera}"
    if "micro" not in parts and (not parts or parts[-1] not in _EMOTIONS.values()):
        return f"long{suffix}"
    if any("crop" in part for part in above):
        return f"cropped{suffix}"
    image = first_image(clip)
    return f"{'cropped' if image is not None and image.lower().startswith('reg_') else 'raw'}{suffix}"


DATABASE = Smic()
