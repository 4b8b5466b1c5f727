"""A folder of HTML pages: Jinja templates, one style sheet, one script, nothing from a network."""

from __future__ import annotations

import contextlib
import json
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from mer_flow.work.errors import UsageError

#: Lists the files of a folder of pages, so that writing it anew removes what is no more.
CONTENTS = "pages.json"
_HERE = "mer_flow.pictures.web"
_ASSETS = ("pages.css", "pages.js")


class Pages:
    """A folder that pages are written into; used in a `with` block, at whose end it is whole.

    Every value is escaped where a template prints it. Templates see `root`, the way from the page to the
    folder, and may extend `base.html`.

    Args:
        folder: A new or empty folder, or one of an earlier call, which is brought up to date.
        package: The package whose folder `templates` is searched first, and whose `assets` are copied too.
        made_with: Program and version, for the foot of each page.

    Raises:
        UsageError: The folder holds something else.
    """

    def __init__(self, folder: Path, package: str, made_with: str):
        self.folder, self.made_with = folder, made_with
        self._before = _contents(folder)
        self._written: set[str] = set()
        packages = dict.fromkeys((package, _HERE))
        self._packages = [name for name in packages if files(name).joinpath("assets").is_dir()]
        self._templates = Environment(
            loader=ChoiceLoader([PackageLoader(name) for name in packages]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {"made_with": made_with}

    def __enter__(self) -> Pages:
        # Written first: a folder that a kill left half-made is still known as one of ours.
        self.write_bytes(CONTENTS, self._listing(self._before))
        for package in self._packages:
            for asset in files(package).joinpath("assets").iterdir():
                self.write_bytes(f"assets/{asset.name}", asset.read_bytes())
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            return
        for name in self._before - self._written:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        self.write_bytes(CONTENTS, self._listing(self._written))

    def write(self, name: str, template: str, /, **values: Any) -> None:
        """Write a page.

        Args:
            name: Its path in the folder, with `/`.
            template: Its template.
            **values: What the template prints.
        """
        root = "../" * (len(PurePosixPath(name).parts) - 1)
        text = self._templates.get_template(template).render(root=root, **values)
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file that pages refer to."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._written.add(name)

    def _listing(self, names: set[str]) -> bytes:
        return json.dumps({"made_with": self.made_with, "files": sorted(names)}, indent=1).encode()


def _contents(folder: Path) -> set[str]:
    """Return the files of an earlier call, those inside the folder; refuse a folder of something else."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Name a folder for the pages.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return set()
    try:
        names = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["files"]
        inside = folder.resolve()
        return {str(name) for name in names if (folder / str(name)).resolve().is_relative_to(inside)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} is not empty and holds no pages of an earlier call ({CONTENTS}: {error}). "
            "Name a new folder, or empty this one."
        ) from None
