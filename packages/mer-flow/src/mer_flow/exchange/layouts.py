"""STSTNet's two folder layouts, read: a flat folder of maps, and one folder per held-out subject."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mer_flow.databases.frames import opened
from mer_flow.exchange.imports import ImportProblem
from mer_flow.exchange.label_list import stem_key
from mer_flow.work.errors import ExchangeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN, TEST = "u_train", "u_test"


@dataclass(frozen=True, slots=True)
class FoundMap:
    """One place of a map on disk.

    Attributes:
        path: Of the file, named as in `006_006_1_2 .png`.
        fold: The folder of the held-out subject in the LOSO layout; empty in the flat one.
        part: `u_train` or `u_test`; empty in the flat layout.
        label: The class folder in the LOSO layout; None in the flat one.
    """

    path: Path
    fold: str = ""
    part: str = ""
    label: int | None = None

    @property
    def name(self) -> str:
        """The file's name without ending and blanks."""
        return self.path.name[: -len(self.path.suffix)].strip()

    def __str__(self) -> str:
        return f"{self.fold}/{self.part}/{self.label}"


@dataclass
class Scan:
    """What a folder holds.

    Attributes:
        maps: Every usable map by `stem_key` of its name; of the LOSO layout its place in `u_test`.
        spoilt: `stem_key` of maps that exist but contradict themselves -> why.
    """

    folder: Path
    layout: str
    maps: dict[str, FoundMap] = field(default_factory=dict)
    problems: list[ImportProblem] = field(default_factory=list)
    spoilt: dict[str, str] = field(default_factory=dict)

    def skip(self, *paths: Path) -> None:
        """Note files or folders that are no maps."""
        detail, remedy = "not a PNG file of this layout; skipped", "nothing to do, unless it should be a map"
        for path in paths:
            where = str(path.relative_to(self.folder))
            self.problems.append(ImportProblem("not-a-map", where, detail, remedy, harmless=True))


def scan_folder(folder: Path, layout: str = "auto") -> Scan:
    """Find every map of a folder in either layout, and everything that is not one.

    Args:
        folder: A flat folder of PNG files, or one with `<subject>/u_train|u_test/<label>/*.png`.
        layout: `flat`, `loso`, or `auto` to recognise it.

    Raises:
        ExchangeError: The folder is missing, empty, or in no known layout.
    """
    if not folder.is_dir():
        raise ExchangeError(f"no such folder: {folder}. Pass the folder of the published PNG maps.")
    entries = sorted(folder.iterdir())
    folds = [entry for entry in entries if (entry / TRAIN).is_dir() or (entry / TEST).is_dir()]
    flat_files = sum(map(_is_png, entries))
    if layout == "auto" and folds and flat_files:
        raise ExchangeError(
            f"{folder} holds {flat_files} PNG files and {len(folds)} subject folders: two layouts "
            "at once. Say which to read with --layout flat or --layout loso."
        )
    if layout == "auto" and not folds and not flat_files:
        inside = ", ".join(entry.name for entry in entries[:5]) or "nothing"
        raise ExchangeError(
            f"{folder} is in neither of STSTNet's layouts: expected *.png in it, or <subject>/u_train "
            f"and <subject>/u_test; found {inside}. If the maps lie one folder deeper, pass that folder."
        )
    if layout == "loso" and not folds:
        raise ExchangeError(f"{folder} holds no <subject>/u_train and <subject>/u_test. Try --layout flat.")
    if layout == "auto":
        layout = "loso" if folds else "flat"
    scan = Scan(folder, layout)
    if layout == "loso":
        _scan_loso(scan, entries, folds)
    else:
        _scan_flat(scan, entries)
    return scan


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png" and path.is_file()


def _scan_flat(scan: Scan, entries: list[Path]) -> None:
    for path in entries:
        if not _is_png(path):
            scan.skip(path)
            continue
        found = FoundMap(path)
        first = scan.maps.setdefault(stem_key(found.name), found)
        if first is not found:
            fault = f"two files, {first.path.name!r} and {path.name!r}, are the same sample"
            scan.spoilt[stem_key(found.name)] = fault


def _scan_loso(scan: Scan, entries: list[Path], folds: list[Path]) -> None:
    """Read the LOSO layout: each map stands once in `u_test` and in `u_train` of every other subject."""
    scan.skip(*(entry for entry in entries if entry not in folds))
    places: dict[str, list[FoundMap]] = defaultdict(list)
    for place in _places(folds, scan):
        places[stem_key(place.name)].append(place)
    digests: dict[tuple[int, int], str] = {}

    def digest(path: Path) -> str:
        status = path.stat()
        inode = status.st_dev, status.st_ino
        if inode not in digests:  # each is read once: hard-linked copies cost nothing
            with path.open("rb") as stream:
                digests[inode] = hashlib.file_digest(stream, "sha256").hexdigest()
        return digests[inode]

    for key, found in places.items():
        tests = [place for place in found if place.part == TEST]
        fault = _contradiction(found, tests, digest)
        if fault:
            scan.spoilt[key] = fault
            continue
        scan.maps[key] = tests[0]
        trained = {place.fold for place in found if place.part == TRAIN}
        scan.problems += _fold_faults(tests[0], trained, {fold.name for fold in folds})


def _places(folds: list[Path], scan: Scan) -> Iterator[FoundMap]:
    """Walk every fold and yield every PNG file under a class folder."""
    for fold in folds:
        for part in sorted(fold.iterdir()):
            if part.name not in (TRAIN, TEST) or not part.is_dir():
                scan.skip(part)
                continue
            for label in sorted(part.iterdir()):
                if not label.is_dir() or not re.fullmatch(r"[0-9]{1,3}", label.name):
                    scan.skip(label)
                    continue
                for path in sorted(label.iterdir()):
                    if _is_png(path):
                        yield FoundMap(path, fold.name, part.name, int(label.name))
                    else:
                        scan.skip(path)


def _contradiction(found: list[FoundMap], tests: list[FoundMap], digest: Callable[[Path], str]) -> str:
    """Say how the places of one map contradict each other; empty where they agree."""
    labels = Counter(place.label for place in found)
    if len(labels) > 1:
        rare = min(labels, key=lambda label: labels[label])
        odd = [str(place) for place in found if place.label == rare]
        return f"stands under labels {sorted(labels, key=str)}, {rare} only in {', '.join(odd[:3])}"
    if len(tests) != 1:
        where = ", ".join(map(str, tests)) or f"none ({TRAIN} of {len(found)} folds only)"
        return f"expected in {TEST} of exactly one subject, got {where}"
    odd = [str(place) for place in found if digest(place.path) != digest(tests[0].path)]
    if odd:
        return f"{len(odd)} of its {len(found)} copies differ from the one in {tests[0]}, first in {odd[0]}"
    return ""


def _fold_faults(test: FoundMap, trained: set[str], folds: set[str]) -> Iterator[ImportProblem]:
    """Note faults of the folds that do not touch the map itself."""
    remedy = (
        "imported all the same, folds are cut anew from the store; do not train from this folder as it is"
    )
    if test.fold in trained:
        detail = f"in {TRAIN} and {TEST} of subject {test.fold}: that fold trains on its test sample"
        yield ImportProblem("leaky-fold", test.name, detail, remedy, harmless=True)
    missing = sorted(folds - trained - {test.fold})
    if missing:
        more = " ..." if len(missing) > 5 else ""
        detail = f"not in {TRAIN} of {len(missing)} other fold(s): {', '.join(missing[:5])}{more}"
        yield ImportProblem("incomplete-fold", test.name, detail, remedy, harmless=True)


def read_map(path: Path, size: int) -> NDArray[np.uint8]:
    """Read an RGB PNG file of an expected side, px.

    Returns:
        `(3, size, size)` uint8: u, v, strain, each min-max scaled per image to 0..255.

    Raises:
        ExchangeError: The file is unreadable or truncated, or its size or mode is another.
    """
    import numpy as np

    try:
        with opened(path) as image:
            if image.mode != "RGB" or image.size != (size, size):
                got = f"{image.width}x{image.height} px, mode {image.mode}"
                raise ExchangeError(f"expected {size}x{size} px, mode RGB; got {got}")
            image.load()
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ExchangeError(f"cannot be decoded ({error})") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
