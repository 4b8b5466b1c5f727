"""STSTNet's two folder layouts, read: a flat folder of maps, and one folder per held-out subject."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_flow.exchange.label_list import stem_key
from mer_flow.exchange.problems import Problem
from mer_flow.work.errors import ExchangeError

TRAIN, TEST = "u_train", "u_test"
LAYOUTS = ("flat", "loso")


@dataclass(frozen=True, slots=True)
class FoundMap:
    """One map on disk, under one name.

    Attributes:
        name: The file's name without ending and blanks, as in `006_006_1_2`.
        path: Where it lies; in the LOSO layout, its place in `u_test`.
        subject: The folder of the held-out subject in the LOSO layout; empty in the flat one.
        label: The class folder in the LOSO layout; None in the flat one.
    """

    name: str
    path: Path
    subject: str = ""
    label: int | None = None


@dataclass
class Scan:
    """What a folder holds.

    Attributes:
        layout: `flat` or `loso`.
        maps: Every usable map by `stem_key` of its name.
        problems: Everything else.
        spoilt: `stem_key` of maps that exist but contradict themselves -> why.
    """

    layout: str
    maps: dict[str, FoundMap] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    spoilt: dict[str, str] = field(default_factory=dict)


def scan_folder(folder: Path, layout: str = "auto") -> Scan:
    """Finds every map of a folder in either layout.

    Args:
        folder: A flat folder of PNG files, or one with `<subject>/u_train|u_test/<label>/*.png`.
        layout: `flat`, `loso`, or `auto` to recognise it.

    Returns:
        The maps by name, and everything that is not one.

    Raises:
        ExchangeError: The folder is missing, empty, or in no known layout.
    """
    if not folder.is_dir():
        raise ExchangeError(f"no such folder: {folder}. Pass the folder of STSTNet's PNG maps.")
    entries = sorted(folder.iterdir())
    folds = [e for e in entries if e.is_dir() and ((e / TRAIN).is_dir() or (e / TEST).is_dir())]
    if layout == "auto":
        flat_files = [e for e in entries if _is_png(e)]
        if folds and flat_files:
            raise ExchangeError(
                f"{folder} holds {len(flat_files)} PNG files and {len(folds)} subject folders: two layouts "
                "at once. Say which to read with --layout flat or --layout loso."
            )
        layout = "loso" if folds else "flat"
        if not folds and not flat_files:
            inside = ", ".join(e.name for e in entries[:5]) or "nothing"
            raise ExchangeError(
                f"{folder} is in neither of STSTNet's layouts: expected *.png in it, or <subject>/u_train "
                f"and <subject>/u_test; found {inside}. If the maps lie one folder deeper, pass that folder."
            )
    return _scan_loso(folder, entries, folds) if layout == "loso" else _scan_flat(folder, entries)


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png" and path.is_file()


def _foreign(path: Path, folder: Path) -> Problem:
    """A file or folder that is no map: said, and skipped."""
    return Problem(
        "not-a-map", str(path.relative_to(folder)), "not a PNG file of this layout; skipped",
        "nothing to do, unless it should be a map", harmless=True,
    )  # fmt: skip


def _scan_flat(folder: Path, entries: list[Path]) -> Scan:
    """Reads a flat folder: the file's name is all there is."""
    scan = Scan("flat")
    for path in entries:
        if not _is_png(path):
            scan.problems.append(_foreign(path, folder))
            continue
        name = path.name[: -len(path.suffix)].strip()
        key = stem_key(name)
        if key in scan.maps:
            scan.spoilt[key] = (
                f"two files, {scan.maps[key].path.name!r} and {path.name!r}, are the same sample"
            )
            continue
        scan.maps[key] = FoundMap(name, path)
    return scan


@dataclass(frozen=True, slots=True)
class _Place:
    """One of the many places of a map in the LOSO layout."""

    fold: str
    part: str
    label: int
    path: Path
    name: str

    def __str__(self) -> str:
        return f"{self.fold}/{self.part}/{self.label}"


def _places(folder: Path, folds: list[Path], problems: list[Problem]) -> Iterator[_Place]:
    """Walks every fold and yields every PNG file under a class folder."""
    for fold in folds:
        for part_folder in sorted(fold.iterdir()):
            if part_folder.name not in (TRAIN, TEST) or not part_folder.is_dir():
                problems.append(_foreign(part_folder, folder))
                continue
            for class_folder in sorted(part_folder.iterdir()):
                if not class_folder.is_dir() or not class_folder.name.isdigit():
                    problems.append(_foreign(class_folder, folder))
                    continue
                for path in sorted(class_folder.iterdir()):
                    if not _is_png(path):
                        problems.append(_foreign(path, folder))
                        continue
                    name = path.name[: -len(path.suffix)].strip()
                    yield _Place(fold.name, part_folder.name, int(class_folder.name), path, name)


class _Digests:
    """Digests of files, each inode read once: hard-linked copies cost nothing."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], str] = {}

    def __call__(self, path: Path) -> str:
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        if key not in self._known:
            self._known[key] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._known[key]


def _scan_loso(folder: Path, entries: list[Path], folds: list[Path]) -> Scan:
    """Reads the LOSO layout: each map stands once in `u_test` and in `u_train` of every other subject."""
    scan = Scan("loso")
    scan.problems += [_foreign(entry, folder) for entry in entries if entry not in folds]
    if not folds:
        raise ExchangeError(f"{folder} holds no <subject>/u_train and <subject>/u_test. Try --layout flat.")
    places: dict[str, list[_Place]] = defaultdict(list)
    for place in _places(folder, folds, scan.problems):
        places[stem_key(place.name)].append(place)
    digest = _Digests()
    for key, found in places.items():
        tests = [place for place in found if place.part == TEST]
        fault = _contradiction(found, tests, digest)
        if fault:
            scan.spoilt[key] = fault
            continue
        test = tests[0]
        scan.maps[key] = FoundMap(test.name, test.path, test.fold, test.label)
        scan.problems += _fold_faults(
            test, {p.fold for p in found if p.part == TRAIN}, {f.name for f in folds}
        )
    return scan


def _fold_faults(test: _Place, trained: set[str], folds: set[str]) -> Iterator[Problem]:
    """Notes faults of the folds that do not touch the map itself."""
    remedy = (
        "imported all the same, folds are cut anew from the store; do not train from this folder as it is"
    )
    if test.fold in trained:
        detail = f"in {TRAIN} and {TEST} of subject {test.fold}: that fold trains on its test sample"
        yield Problem("leaky-fold", test.name, detail, remedy, harmless=True)
    missing = sorted(folds - trained - {test.fold})
    if missing:
        more = " ..." if len(missing) > 5 else ""
        detail = f"not in {TRAIN} of {len(missing)} other fold(s): {', '.join(missing[:5])}{more}"
        yield Problem("incomplete-fold", test.name, detail, remedy, harmless=True)


def _contradiction(found: list[_Place], tests: list[_Place], digest: _Digests) -> str:
    """Says how the places of one map contradict each other; empty where they agree."""
    labels = Counter(place.label for place in found)
    if len(labels) > 1:
        rare = min(labels, key=lambda label: labels[label])
        odd = [str(place) for place in found if place.label == rare]
        return f"stands under labels {sorted(labels)}, {rare} only in {', '.join(odd[:3])}"
    if len({place.fold for place in tests}) != 1 or len(tests) != 1:
        where = ", ".join(map(str, tests)) or f"none ({TRAIN} of {len(found)} folds only)"
        return f"expected in {TEST} of exactly one subject, got {where}"
    if len({digest(place.path) for place in found}) > 1:
        reference = digest(tests[0].path)
        odd = [str(place) for place in found if digest(place.path) != reference]
        return f"{len(odd)} of its {len(found)} copies differ from the one in {tests[0]}, first in {odd[0]}"
    return ""


def read_map(path: Path, size: int) -> NDArray[np.uint8]:
    """Reads one map.

    Args:
        path: An RGB PNG file; R, G, B = u, v, strain.
        size: Expected side in px.

    Returns:
        `(3, size, size)` uint8: u, v, strain, each min-max scaled per image to 0..255.

    Raises:
        ExchangeError: The file is unreadable or truncated, or its size or mode is another.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            mode, extent, pixels = image.mode, image.size, np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ExchangeError(f"cannot be decoded ({error})") from error
    if mode != "RGB" or extent != (size, size):
        raise ExchangeError(
            f"expected {size}x{size} px, mode RGB; got {extent[0]}x{extent[1]} px, mode {mode}"
        )
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
