"""Where the frames of a clip lie: a copy's folders, scanned once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mer_flow.work.errors import LayoutError, UsageError
from mer_flow.work.suggest import unknown

if TYPE_CHECKING:
    from mer_flow.samples import Sample, SampleTable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
_MAX_DEPTH = 8
_NUMBER = re.compile(r"(\d+)(?!.*\d)")


@dataclass(frozen=True)
class ClipFolder:
    """One clip's folder as the scan found it.

    Attributes:
        key: Normalised clip key; equals the `key` of its sample.
        path: The folder.
        release: The release it belongs to.
    """

    key: str
    path: Path
    release: str


class ClipLocator:
    """Says where each clip's frames lie in one release of one database.

    Frame numbers in file names equal those of the sheet.

    Args:
        database: The database.
        root: The root that was scanned.
        release: The release.
        folders: Key -> folders that may hold the clip, best first.
        keys: Gives the keys under which a sample's folder may be found, best first.
        frames_are_cropped: Whether the frames show a cropped face.
        choose: Picks one of several candidate folders for a sample; the first by default.
        prepare: Gives the folder with the frames inside a clip's folder; the folder itself by default.
    """

    def __init__(
        self,
        database: str,
        root: Path,
        release: str,
        folders: Mapping[str, tuple[Path, ...]],
        keys: Callable[[Sample], Iterable[str]],
        *,
        frames_are_cropped: bool = False,
        choose: Callable[[Sample, tuple[Path, ...]], Path] | None = None,
        prepare: Callable[[Path], Path | None] | None = None,
    ):
        self.database = database
        self.root = root
        self.release = release
        self.frames_are_cropped = frames_are_cropped
        self.folders = folders
        self._keys = keys
        self._choose = choose
        self._prepare = prepare

    def __repr__(self) -> str:
        return f"ClipLocator({self.database}, {self.release}, {len(self.folders)} folders below {self.root})"

    def folder(self, sample: Sample) -> Path | None:
        """Returns the folder with a sample's frames, `None` where the copy has none."""
        for key in self._keys(sample):
            candidates = self.folders.get(key)
            if candidates:
                chosen = candidates[0]
                if len(candidates) > 1 and self._choose is not None:
                    chosen = self._choose(sample, candidates)
                return self._prepare(chosen) if self._prepare else chosen
        return None

    def frame_number(self, sample: Sample, number: int) -> int:
        """Returns the file number of a frame of the sheet: the same number, in every supported release."""
        return number

    def without_row(self, table: SampleTable) -> tuple[Path, ...]:
        """Returns the clip folders that no sample of a table belongs to."""
        used = {key for sample in table for key in self._keys(sample)}
        return tuple(paths[0] for key, paths in self.folders.items() if key not in used)


def check_root(root: Path, database: str, example: str) -> Path:
    """Returns the root as a path if it is a folder.

    Raises:
        LayoutError: It is not; the message gives an example of what is expected.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise LayoutError(f"{database}: root {root} {what}. Expected a folder with clips such as {example}.")
    return root


def walk(
    root: Path, is_clip: Callable[[Path, tuple[str, ...]], bool]
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Walks folders breadth first and yields clip folders, without looking at the frames in them.

    Args:
        root: Where to start; may itself be a clip folder's parent.
        is_clip: Called with a folder and its path's parts below the root (the folder's own name last). A
            folder for which it is true is yielded and not entered.

    Yields:
        (folder, parts below the root).
    """
    level: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    for _ in range(_MAX_DEPTH):
        deeper: list[tuple[Path, tuple[str, ...]]] = []
        for folder, parts in level:
            for name in subfolders(folder):
                child, below = folder / name, (*parts, name)
                if is_clip(child, below):
                    yield child, below
                else:
                    deeper.append((child, below))
        level = deeper


def subfolders(folder: Path) -> list[str]:
    """Returns the names of a folder's subfolders in order; hidden ones and stray files are ignored."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except PermissionError as error:
        raise LayoutError(
            f"cannot read folder {folder}: {error.strerror}; give yourself read permission"
        ) from error


def first_image(folder: Path) -> str | None:
    """Returns the name of some image file in a folder, `None` if it has none."""
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES)
        return next(names, None)


def image_numbers(folder: Path) -> list[int]:
    """Returns the sorted numbers of a folder's image files: the last run of digits of each name."""
    with os.scandir(folder) as entries:
        stems = [Path(e.name).stem for e in entries if Path(e.name).suffix.lower() in IMAGE_SUFFIXES]
    return sorted(int(match[1]) for stem in stems if (match := _NUMBER.search(stem)))


def select_release(
    database: str,
    root: Path,
    clips: Iterable[ClipFolder],
    release: str,
    order: tuple[str, ...],
    example: str,
) -> tuple[str, dict[str, tuple[Path, ...]]]:
    """Groups what a scan found by release and picks one.

    Args:
        database: The database, for messages.
        root: The scanned root, for messages.
        clips: What the scan found.
        release: The wanted release, or `auto`.
        order: Known releases, the most wanted first.
        example: A path of a frame in such a copy, for messages.

    Returns:
        The release, and key -> folders of it.

    Raises:
        LayoutError: Nothing was found, or not this release.
        UsageError: No release has this name.
    """
    if release != "auto" and release not in order:
        raise unknown(f"release of {database}", release, ("auto", *order))
    groups: dict[str, dict[str, tuple[Path, ...]]] = {}
    for clip in clips:
        group = groups.setdefault(clip.release, {})
        group[clip.key] = (*group.get(clip.key, ()), clip.path)
    if not groups:
        got = subfolders(root)
        listed = ", ".join(got[:6]) + (" ..." if len(got) > 6 else "") if got else "no folders"
        raise LayoutError(
            f"{database}: root {root} is laid out as no known release ({', '.join(order)}). "
            f"Expected frames such as {example}; found: {listed}. "
            "Point --root at the folder that holds the release."
        )
    if release == "auto":
        release = next((name for name in order if name in groups), next(iter(groups)))
    if release not in groups:
        raise LayoutError(
            f"{database}: root {root} has no clips of release '{release}'; it has: "
            f"{', '.join(f'{name} ({len(found)} clips)' for name, found in groups.items())}"
        )
    return release, groups[release]


def resolve_root(database: str, root: str | Path | None = None) -> Path:
    """Says where a database's copy lies: `--root`, else the environment, else the user's config file.

    Args:
        database: The database.
        root: What `--root` gave.

    Returns:
        The root; it is not checked here.

    Raises:
        UsageError: None of the three says it; the message names all three.
    """
    from mer_flow.databases import DATABASES

    if database not in DATABASES:
        raise unknown("database", database, DATABASES)
    variable = f"MER_FLOW_{database.upper()}_ROOT"
    config = config_file()
    if root is not None:
        return Path(root).expanduser()
    if os.environ.get(variable):
        return Path(os.environ[variable]).expanduser()
    if config.is_file():
        import tomllib

        try:
            roots = tomllib.loads(config.read_text(encoding="utf-8")).get("roots", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"the config file {config} is not valid TOML: {error}") from error
        if not isinstance(roots, dict):
            raise UsageError(
                f"the config file {config}: [roots] must be a table such as {database} = '/data/...'"
            )
        wrong = [name for name in roots if name not in DATABASES]
        if wrong:
            raise UsageError(f"the config file {config}, [roots]: {unknown('database', wrong[0], DATABASES)}")
        if database in roots:
            return Path(str(roots[database])).expanduser()
    raise UsageError(
        f"where is {database}? Give --root DIR, or set the environment variable {variable}, "
        f"or write {database} = 'DIR' under [roots] in {config}."
    )


def config_file() -> Path:
    """Returns the user's config file: `mer-flow/config.toml` in `XDG_CONFIG_HOME`, else in `~/.config`."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "mer-flow" / "config.toml"
