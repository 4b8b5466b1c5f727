"""A folder of pages: brought up to date, and never in the place of something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mer_flow.pictures.web.pages import CONTENTS, Pages
from mer_flow.work.errors import UsageError

PACKAGE = "mer_flow.pictures.web"


def write(folder: Path, *names: str) -> None:
    with Pages(folder, PACKAGE, "test 1") as pages:
        for name in names:
            pages.write_bytes(name, name.encode())


def test_what_is_no_more_is_removed(tmp_path: Path) -> None:
    write(tmp_path / "site", "a.txt", "sub/b.txt")
    (tmp_path / "site" / "CNAME").write_text("mine")
    write(tmp_path / "site", "a.txt")
    left = {str(p.relative_to(tmp_path / "site")) for p in (tmp_path / "site").rglob("*") if p.is_file()}
    assert left == {"a.txt", "CNAME", CONTENTS, "assets/pages.css", "assets/pages.js"}


def test_a_failure_removes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "site", "a.txt")
    with pytest.raises(ZeroDivisionError), Pages(tmp_path / "site", PACKAGE, "test 1"):
        1 / 0  # noqa: B018
    assert (tmp_path / "site" / "a.txt").exists()
    write(tmp_path / "site")
    assert not (tmp_path / "site" / "a.txt").exists()


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not empty and holds no pages"):
        Pages(tmp_path, PACKAGE, "test 1")
    with pytest.raises(UsageError, match="is a file"):
        Pages(tmp_path / "thesis.tex", PACKAGE, "test 1")


def test_a_listing_from_a_stranger_removes_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "site").mkdir()
    listing = {"made_with": "x", "files": ["../precious", str(tmp_path / "precious")]}
    (tmp_path / "site" / CONTENTS).write_text(json.dumps(listing))
    write(tmp_path / "site")
    assert (tmp_path / "precious").exists()
