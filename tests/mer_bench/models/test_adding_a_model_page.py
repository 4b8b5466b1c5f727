"""docs/adding-a-model.md, followed to the letter: its files are written, installed and run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tests.pages import Page

PAGE = Page(Path(__file__).parents[3] / "docs" / "adding-a-model.md")


def test_every_block_of_the_page_is_followed() -> None:
    assert len(PAGE.files) == 4
    assert PAGE.blocks() == ["console", "python", "python", "python", "toml"]
    # The tree at the top names what the page then writes.
    tree = PAGE.text[PAGE.text.index("mer-bench-linear/\n") :].partition("```")[0]
    assert {Path(name).name for name in PAGE.files} == set(re.findall(r"[\w.]+\.(?:py|toml)", tree))
    assert [command.split()[0] for command, _ in PAGE.commands].count("mer-bench") == len(PAGE.commands) - 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_the_page_works_as_it_stands(small_store: Path, tmp_path: Path) -> None:
    PAGE.write(tmp_path)
    shutil.copy(small_store, tmp_path / "maps.h5")
    outputs = PAGE.run(tmp_path, failing="--limit")  # a run that is not whole ends with 1, as the page says
    # The board: honest order, every model of the page, the whole of each run.
    rows = [line for line in [*outputs.values()][-1].splitlines() if re.match(r"\d  ", line)]
    assert len(rows) == 8
    figures = [float(re.findall(r"0\.\d{4}|1\.0000", line)[0]) for line in rows[:4]]
    assert figures == sorted(figures, reverse=True)
    assert [line[3:] for line in rows if "Majority" in line] and figures[0] > 0.9
