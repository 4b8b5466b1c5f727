"""Every problem of a database tree at once, before any work starts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mer_flow.databases.clips import ClipFrames
from mer_flow.databases.completeness import compare, load
from mer_flow.databases.frames import read_frame
from mer_flow.databases.layout import ClipLocator
from mer_flow.databases.reading import SheetReading
from mer_flow.databases.registry import get_database
from mer_flow.faces.model_files import DLIB_68, verified_path
from mer_flow.faces.regions import NoMesh, resolve_backend
from mer_flow.samples import UNKNOWN_FRAME, Sample
from mer_flow.synthetic.tree import find_tree
from mer_flow.work.errors import (
    FrameError,
    LayoutError,
    MissingDependencyError,
    ModelFileError,
    SheetError,
    UsageError,
)
from mer_flow.work.libraries import load_cv2, load_dlib

Severity = Literal["error", "warning", "note"]

#: Severity -> kind -> what to do about it. An error costs samples, a warning builds with a recorded fallback.
_REMEDIES: dict[Severity, dict[str, str]] = {
    "error": {
        "library": "Nothing can be built before it is there; the remedy is named.",
        "sheet": "Give the sheet with --sheet, or put it below the root; it is recognised by its columns.",
        "layout": "Point --root at the folder that holds one of the releases named above.",
        "folder-missing": "Restore the clip's folder from the release, or check the release that "
        "--release names.",
        "folder-empty": "Restore the clip's frames from the release.",
        "frame-missing": "Restore the frame, or raise frames.nearest_limit (here --max-gap) if one "
        "that far away will do.",
        "frame-shapes": "Restore the clip from the release: its frames differ in size or colour.",
        "frame-unreadable": "Restore the file from the release: it is truncated or no image.",
    },
    "warning": {
        "no-mesh": "The build takes dlib's points as regions and records a fallback for every sample; fetch "
        "the model first, or choose dlib with `--set regions.backend=dlib`.",
        "incomplete": "Compare your copy with the authors' list; a partial copy builds, but its scores are "
        "not comparable.",
        "row-dropped": "Mend the row in the sheet, or accept that the sample is missing.",
        "frame-substituted": "Nothing to do; the nearest frame is taken and the sample's notes say so.",
    },
    "note": {
        "synthetic": "Nothing to do; the tree is complete as it was made, and no copy of the real one.",
        "row-without-sample": "Nothing to do; the published sheet has this row, and it gives no sample.",
        "reading": "Nothing to do; the reader says how it took the sheet.",
        "correction": "Nothing to do; the fix is reviewed and its source is named.",
        "folder-unlisted": "Nothing to do; a folder without a row gives no sample.",
        "frame-gap": "Nothing to do for flow; dense clips (--keep-clips) lack these frames.",
        "apex-unknown": "The apex is spotted during the build (--apex chooses the method).",
        "apex-at-onset": "The flow between them is zero; `mer-flow build --apex-at-onset spot` (or drop) "
        "changes that.",
    },
}
#: Kind -> (severity, what to do about it).
KINDS = {kind: (severity, remedy) for severity, kinds in _REMEDIES.items() for kind, remedy in kinds.items()}


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    Attributes:
        kind: One of `KINDS`.
        sample_id: The sample it concerns; empty where it concerns the tree.
        row: Sheet row as a spreadsheet shows it; 0 where there is none.
        detail: What was found, where.
    """

    kind: str
    sample_id: str
    row: int
    detail: str

    @property
    def severity(self) -> Severity:
        """`error`, `warning` or `note`."""
        return KINDS[self.kind][0]


@dataclass
class Diagnosis:
    """All findings about one tree."""

    database: str
    root: Path
    release: str = ""
    sheet: str = ""
    version: str = ""
    samples: int = 0
    subjects: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing but notes was found."""
        return all(problem.severity == "note" for problem in self.problems)

    def by_kind(self) -> dict[str, list[Problem]]:
        """Return the findings per kind, errors first, most frequent first."""
        groups: dict[str, list[Problem]] = defaultdict(list)
        for problem in self.problems:
            groups[problem.kind].append(problem)
        order = ("error", "warning", "note")
        return dict(sorted(groups.items(), key=lambda item: (order.index(KINDS[item[0]][0]), -len(item[1]))))

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis for `--json`."""
        problems = [asdict(problem) | {"severity": problem.severity} for problem in self.problems]
        return asdict(self) | {"root": str(self.root), "complete": self.complete, "problems": problems}


def examine(
    database: str,
    root: Path,
    *,
    sheet: Path | None = None,
    release: str = "auto",
    max_gap: int,
    deep: bool = False,
    on_sample: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Find every problem of a tree without building anything.

    Args:
        database: Registered name; only one that does not exist is an error.
        root: The tree.
        sheet: Annotation sheet; searched in the tree unless given.
        release: `auto` or the release to examine.
        max_gap: How many frames away a substitute for a missing frame may lie.
        deep: Decode every frame from onset to offset, not only onset and apex.
        on_sample: Called with (samples examined, samples in all).
    """
    source = get_database(database)
    found = Diagnosis(database, root)
    try:
        reading = source.read(root, sheet)
    except (SheetError, LayoutError, UsageError) as error:
        kind = "layout" if isinstance(error, LayoutError) else "sheet"
        found.problems.append(Problem(kind, "", 0, str(error)))
        return found
    found.sheet, found.version = str(reading.path or ""), reading.version
    found.samples, found.subjects = len(reading.table), len(reading.table.subjects)
    made = find_tree(root)
    found.problems.extend(of_sheet(reading, made is not None))
    if made is not None:
        found.problems.append(Problem("synthetic", "", 0, f"made by mer-flow demo: {json.dumps(made)}"))
    try:
        locator = source.locate(root, release)
    except LayoutError as error:
        found.problems.append(Problem("layout", "", 0, str(error)))
        return found
    found.release = locator.release
    for done, sample in enumerate(reading.table, 1):
        for kind, detail in _of_sample(sample, locator, max_gap, deep):
            found.problems.append(Problem(kind, sample.sample_id, 0, detail))
        if on_sample:
            on_sample(done, len(reading.table))
    known = load(database).folders_without_rows
    for path in locator.without_row(reading.table):
        expected = " (official copies have it too)" if f"{path.parent.name}/{path.name}" in known else ""
        found.problems.append(Problem("folder-unlisted", "", 0, f"{path} has no row in the sheet{expected}"))
    return found


def of_machine() -> Iterator[Problem]:
    """Yield what this machine lacks for a build: libraries, model files, the face mesh."""
    for load_library in (load_cv2, load_dlib, partial(verified_path, DLIB_68)):
        try:
            load_library()
        except (MissingDependencyError, ModelFileError) as error:
            yield Problem("library", "", 0, str(error))
    backend, reason = resolve_backend("auto")
    if backend == NoMesh.name:
        yield Problem("no-mesh", "", 0, reason)


def of_sheet(reading: SheetReading, synthetic: bool = False) -> Iterator[Problem]:
    """Yield what a sheet alone says: deviations from a complete copy, dropped rows, corrections, doubts."""
    deviations = () if synthetic else compare(reading)
    for deviation in deviations:
        yield Problem("incomplete", "", 0, str(deviation))
    for row in reading.dropped:
        yield Problem("row-dropped" if deviations else "row-without-sample", row.key, row.row, row.reason)
    for fix in reading.corrections:
        detail = f"{fix.column} {fix.old} -> {fix.new}: {fix.reason}"
        yield Problem("correction", fix.sample_id, fix.row, detail)
    for warning in reading.warnings:
        yield Problem("reading", "", 0, warning)


def _of_sample(sample: Sample, locator: ClipLocator, max_gap: int, deep: bool) -> Iterator[tuple[str, str]]:
    """Yield (kind, detail) of every problem of one sample's frames."""
    folder = locator.folder(sample)
    if folder is None:
        yield "folder-missing", f"no folder for this clip below {locator.root}"
        return
    try:
        clip = ClipFrames(sample, folder, max_gap)
    except FrameError as error:
        yield "folder-empty", str(error)
        return
    if sample.apex == UNKNOWN_FRAME:
        yield "apex-unknown", "the sheet gives no apex"
    elif sample.apex == sample.onset:
        yield "apex-at-onset", f"onset and apex are both {sample.onset}"

    needed: set[Path] = set()
    for role, number in (("onset", sample.onset), ("apex", sample.apex)):
        if number != UNKNOWN_FRAME:
            try:
                needed.add(clip.hit(role, number).path)
            except FrameError as error:
                yield "frame-missing", str(error).removeprefix(f"{sample.sample_id}: ")
    for role, distance in clip.substituted.items():
        yield "frame-substituted", f"{role} frame is missing, the one {distance:+d} away is taken"

    if UNKNOWN_FRAME not in (sample.onset, sample.offset):
        inside = clip.index.between(sample.onset, sample.offset)
        wanted = sample.offset - sample.onset + 1
        if len(inside) < wanted:
            yield "frame-gap", f"{wanted - len(inside)} of {wanted} frames are missing in {folder}"
        if deep:
            needed.update(clip.index.path(number) for number in inside)
    shapes: dict[tuple[int, ...], Path] = {}
    for path in sorted(needed):
        try:
            shapes.setdefault(read_frame(path).shape, path)
        except FrameError as error:
            yield "frame-unreadable", str(error)
    if len(shapes) > 1:
        listed = ", ".join(f"{path.name} {shape}" for shape, path in shapes.items())
        yield "frame-shapes", f"frames of {folder} differ in shape: {listed}"
