"""Where the frames of a clip lie: a copy's folders, scanned once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mer_flow.databases.registry import DATABASES
from mer_flow.samples import Sample, SampleTable
from mer_flow.work.errors import LayoutError, UsageError
from mer_flow.work.suggest import unknown

_MAX_DEPTH = 8
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class ClipFolder:
    """One clip's folder as the scan found it; `key` is one of the keys of the clip's samples."""

    key: str
    path: Path
    release: str


@dataclass(frozen=True)
class ClipLocator:
    """Where each clip's frames lie in one release; their numbers are those of the sheet.

    Attributes:
        folders: Key -> folders that may hold the clip, best first.
        keys: Gives the keys under which a sample's folder may be found, best first.
        choose: Gives the folder with a sample's frames of those that may hold its clip, `None` for none.
    """

    database: str
    root: Path
    release: str
    folders: Mapping[str, tuple[Path, ...]] = field(repr=False)
    keys: Callable[[Sample], Iterable[str]] = field(repr=False)
    choose: Callable[[Sample, tuple[Path, ...]], Path | None] = field(repr=False)

    @property
    def frames_are_cropped(self) -> bool:
        """Whether the frames show a cropped face: the release's name begins with `cropped`."""
        return self.release.startswith("cropped")

    def folder(self, sample: Sample) -> Path | None:
        """Return the folder with a sample's frames, `None` where the copy has none."""
        key = next((key for key in self.keys(sample) if key in self.folders), None)
        return None if key is None else self.choose(sample, self.folders[key])

    def without_row(self, table: SampleTable) -> tuple[Path, ...]:
        """Return the clip folders that no sample of a table belongs to."""
        used = {key for sample in table for key in self.keys(sample)}
        return tuple(paths[0] for key, paths in self.folders.items() if key not in used)


def walk(
    root: Path, find: Callable[[tuple[str, ...]], _Found | None]
) -> Iterator[tuple[Path, tuple[str, ...], _Found]]:
    """Walk folders breadth first and yield clip folders, without looking at the frames in them.

    Args:
        root: Where to start; may itself be a clip folder's parent.
        find: Called with the parts of a folder's path below the root, its own name last. A folder for which
            it returns something is yielded with it and not entered.

    Yields:
        (folder, parts below the root, what `find` returned).
    """
    level: list[tuple[Path, tuple[str, ...], tuple[tuple[int, int], ...]]] = [(root, (), ())]
    for _ in range(_MAX_DEPTH):
        deeper: list[tuple[Path, tuple[str, ...], tuple[tuple[int, int], ...]]] = []
        for folder, parts, above in level:
            status = folder.stat()
            own = (status.st_dev, status.st_ino)
            if own in above:  # a link to a folder above itself
                continue
            for name in subfolders(folder):
                child, below = folder / name, (*parts, name)
                if (found := find(below)) is not None:
                    yield child, below, found
                else:
                    deeper.append((child, below, (*above, own)))
        level = deeper


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a link that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file; a link that leads in a circle is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def subfolders(folder: Path) -> list[str]:
    """Return the names of a folder's subfolders in order; hidden ones and stray files are ignored."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and is_folder(e))
    except PermissionError as error:
        raise LayoutError(
            f"cannot read folder {folder}: {error.strerror}; give yourself read permission"
        ) from error


def resolve_root(database: str, root: str | Path | None = None) -> Path:
    """Say where a database's copy lies: `--root`, else the environment, else the user's config file.

    Args:
        database: Registered name.
        root: What `--root` gave; it is not checked here.

    Raises:
        UsageError: The database is unknown, or none of the three says it; the message names all three.
    """
    if database not in DATABASES:
        raise unknown("database", database, DATABASES)
    variable = f"MER_FLOW_{database.upper()}_ROOT"
    config = config_file()
    if root is not None:
        return Path(root).expanduser()
    if os.environ.get(variable):
        return Path(os.environ[variable]).expanduser()
    roots = _configured_roots(config) if config.is_file() else {}
    if database in roots:
        return Path(str(roots[database])).expanduser()
    raise UsageError(
        f"where is {database}? Give --root DIR, or set the environment variable {variable}, "
        f"or write {database} = 'DIR' under [roots] in {config}."
    )


def _configured_roots(config: Path) -> dict[str, object]:
    from mer_flow.work.settings import read_toml

    roots = read_toml(config).get("roots", {})
    if not isinstance(roots, dict):
        raise UsageError(f"the config file {config}: [roots] must be a table such as samm = '/data/...'")
    for name in roots:
        if name not in DATABASES:
            raise UsageError(f"the config file {config}, [roots]: {unknown('database', name, DATABASES)}")
    return roots


def config_file() -> Path:
    """Return the user's config file: `mer-flow/config.toml` in `XDG_CONFIG_HOME`, else in `~/.config`."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "mer-flow" / "config.toml"
